import numpy as np

from patch_svdd_jax import paper
from patch_svdd_jax.data import mvtec


def test_the_categories_are_those_of_the_data():
  assert list(paper.RESULTS) == list(mvtec.COUNTS)


def test_the_means_are_those_that_the_paper_states():
  assert np.mean(list(paper.RESULTS.values()), axis=0).round(3).tolist() == [0.921, 0.957]
