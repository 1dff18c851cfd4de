import numpy as np

from patch_svdd_jax.data import mvtec
from patch_svdd_jax.experiments import paper_results


def test_the_categories_are_those_of_the_data():
  assert list(paper_results.RESULTS) == list(mvtec.COUNTS)


def test_the_means_are_those_that_the_paper_states():
  assert np.mean(list(paper_results.RESULTS.values()), axis=0).round(3).tolist() == [0.921, 0.957]
