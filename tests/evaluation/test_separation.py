"""Separation of synthetic anomalies against scikit-learn, and its error against a bootstrap."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from patch_svdd_jax.data.synthetic_anomalies import KINDS
from patch_svdd_jax.detection.scores import Scores
from patch_svdd_jax.evaluation.separation import (
  IMAGES,
  auroc_influences,
  make_examples,
  separate,
  standard_error,
)

SIZE = (48, 56)


def normal_images(count, size=SIZE):
  return np.random.default_rng(0).integers(60, 190, (count, *size, 3), dtype=np.uint8)


class DifferenceScorer:
  """Scores pixels by their change from the image that an example is made of, and noise."""

  def __init__(self, normal, examples, noise):
    self.originals, self.noise = normal[examples.sources], noise

  def score(self, images, progress=iter, regions=None):
    rng = np.random.default_rng(1)
    list(progress(range(1)))
    maps = np.abs(images.astype(float) - self.originals).mean(axis=-1)
    maps = (maps + rng.normal(0, self.noise, maps.shape)).astype(np.float32)
    other = rng.normal(size=maps.shape).astype(np.float32)
    by_name = {'k32': other, 'k16': other, 'sum': other, 'product': maps}
    tops = {name: each.max(axis=(1, 2)) for name, each in by_name.items()}
    return Scores(by_name, tops, {}, {}, {})


def test_examples_are_normal_images_then_their_anomalies():
  normal = normal_images(3)
  examples = make_examples(normal)
  assert examples.images.shape == (3 + 3 * len(KINDS), *SIZE, 3)
  assert examples.kinds == [''] * 3 + list(KINDS) * 3
  np.testing.assert_array_equal(examples.sources, [0, 1, 2, *np.repeat([0, 1, 2], len(KINDS))])
  np.testing.assert_array_equal(examples.images[:3], normal)
  np.testing.assert_array_equal(examples.masks.any(axis=(1, 2)), np.arange(18) >= 3)
  unchanged = (examples.images == normal[examples.sources]).all(axis=-1)
  assert unchanged[~examples.masks].all()
  again = make_examples(normal)
  np.testing.assert_array_equal(examples.images, again.images)


def test_examples_are_bounded_and_evenly_spaced():
  normal = np.zeros((IMAGES * 3, 32, 32, 3), np.uint8)
  normal[:] = np.arange(IMAGES * 3, dtype=np.uint8)[:, None, None, None]
  examples = make_examples(normal)
  clean = [not kind for kind in examples.kinds]
  assert sum(clean) == IMAGES
  np.testing.assert_array_equal(examples.images[clean][:, 0, 0, 0], np.arange(IMAGES) * 3 + 1)


@pytest.mark.parametrize('noise', [1.0, 20.0])
def test_figures_are_those_of_the_main_map(noise):
  normal = normal_images(4)
  examples = make_examples(normal)
  scorer = DifferenceScorer(normal, examples, noise)
  found = separate(scorer, examples)
  scores = scorer.score(examples.images)
  images, maps = scores.images['product'], scores.maps['product']
  kinds = np.array(examples.kinds)
  for kind, figures in {'all': found.figures, **found.per_kind}.items():
    use = np.ones(len(kinds), bool) if kind == 'all' else (kinds == '') | (kinds == kind)
    assert figures['image_auroc'] == pytest.approx(roc_auc_score(kinds[use] != '', images[use]))
    expected = roc_auc_score(examples.masks[use].ravel(), maps[use].ravel())
    assert figures['pixel_auroc'] == pytest.approx(expected)
    assert 0 <= figures['aupro_5'] <= 1
  assert set(found.per_kind) == set(KINDS)
  assert all(len(each) == 4 for each in found.influences.values())


def grouped_scores(seed, groups, each, shift):
  """Labels, scores and groups in which the elements of a group are alike."""
  rng = np.random.default_rng(seed)
  numbers = np.repeat(np.arange(groups), each)
  labels = np.tile(np.arange(each) > 1, groups)
  scores = rng.normal(size=groups)[numbers] + rng.normal(size=numbers.size) + shift * labels
  return labels, np.round(scores, 1), numbers  # some are equal


def test_influences_add_up_to_nothing_and_match_leaving_a_group_out():
  labels, scores, numbers = grouped_scores(0, 200, 6, 1.0)
  influences = auroc_influences(labels, scores, numbers, 200)
  assert influences.sum() == pytest.approx(0, abs=1e-12)
  whole = roc_auc_score(labels, scores)
  for group in (0, 17, 199):
    rest = numbers != group
    # All groups are of one size, so that leaving one out moves the AUROC by its influence.
    moved = whole - roc_auc_score(labels[rest], scores[rest])
    assert moved * 199 / 200 == pytest.approx(influences[group], rel=0.05, abs=2e-5)


def test_standard_error_is_that_of_a_bootstrap_of_groups():
  labels, scores, numbers = grouped_scores(1, 40, 6, 0.7)
  _, other, _ = grouped_scores(2, 40, 6, 0.7)
  difference = auroc_influences(labels, scores, numbers, 40)
  difference = difference - auroc_influences(labels, scores + 0.5 * other, numbers, 40)
  rng = np.random.default_rng(0)
  drawn = []
  for _ in range(600):
    chosen = (rng.integers(0, 40, 40)[:, None] * 6 + np.arange(6)).ravel()
    drawn.append(
      roc_auc_score(labels[chosen], scores[chosen])
      - roc_auc_score(labels[chosen], (scores + 0.5 * other)[chosen])
    )
  assert standard_error(difference) == pytest.approx(np.std(drawn), rel=0.15)


def test_no_influence_of_one_class():
  influences = auroc_influences(np.zeros(4, bool), np.arange(4.0), np.arange(4), 4)
  assert np.isnan(influences).all()
