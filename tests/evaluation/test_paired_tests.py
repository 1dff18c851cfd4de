import itertools

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from patch_svdd_jax.evaluation import paired_tests
from patch_svdd_jax.evaluation.paired_tests import (
  holm,
  interval,
  rank_differences,
  resampled,
  resampled_aurocs,
  signed_rank,
)


def labels_of(normal, anomalous):
  return np.arange(normal + anomalous) >= normal


def draw(rng, labels, shift, common=0.5):
  """Scores of two detectors that are equally good, and agree in part."""
  shared, *own = rng.normal(size=(3, len(labels)))
  return [shift * labels + common**0.5 * shared + (1 - common) ** 0.5 * each for each in own]


def exact_p(differences):
  """By all signs that the differences could have had."""
  nonzero = differences[differences != 0]
  ranks = stats.rankdata(np.abs(nonzero))
  signs = np.array(list(itertools.product([0, 1], repeat=len(nonzero))))
  sums = signs @ ranks
  found = ranks[nonzero > 0].sum()
  return min(1.0, 2 * min(np.mean(sums <= found), np.mean(sums >= found)))


@pytest.mark.parametrize(
  'differences',
  [[3.0], [1, 2, 3, -4, 5.0], [0.5, 0.5, -0.5, 0, 1, 1, 0], np.arange(-3, 9) / 4 + 0.125],
)
def test_few_images_have_the_exact_p_value(differences):
  differences = np.array(differences, np.float64)
  found = signed_rank(differences)
  assert found.p_value == pytest.approx(exact_p(differences), abs=1e-12)
  assert found.images == len(differences)
  assert (found.better, found.worse) == (np.sum(differences > 0), np.sum(differences < 0))
  assert found.median == np.median(differences)


def test_many_images_with_ties_have_that_of_the_normal_distribution():
  differences = np.round(np.random.default_rng(0).normal(0.2, 1, 200), 1)
  nonzero = differences[differences != 0]
  count, ranks = len(nonzero), stats.rankdata(np.abs(nonzero))
  _, ties = np.unique(ranks, return_counts=True)
  variance = count * (count + 1) * (2 * count + 1) / 24 - np.sum(ties**3 - ties) / 48
  z = (ranks[nonzero > 0].sum() - count * (count + 1) / 4) / np.sqrt(variance)
  expected = 2 * stats.norm.sf(abs(z))
  assert signed_rank(differences).p_value == pytest.approx(expected, rel=1e-12)
  with_unknown = np.concatenate([differences, [np.nan]])
  assert signed_rank(with_unknown) == signed_rank(differences)


@pytest.mark.parametrize('differences', [[], [0.0, 0.0, 0.0], [np.nan]])
def test_nothing_that_differs_has_no_p_value(differences):
  found = signed_rank(np.array(differences))
  assert np.isnan(found.p_value)
  assert (found.better, found.worse) == (0, 0)


def test_ranks_are_better_the_higher_of_anomalous_and_the_lower_of_normal_images():
  labels = labels_of(3, 2)
  one, other = np.array([1.0, 2, 5, 3, 4]), np.array([10.0, 40, 20, 30, 30])
  # By pairs: the share of the others that score lower, ties one half.
  ranks = [
    [
      sum((s > t) + 0.5 * (s == t) for j, t in enumerate(scores) if j != i) / 4
      for i, s in enumerate(scores)
    ]
    for scores in (one, other)
  ]
  expected = np.where(labels, 1, -1) * np.subtract(ranks[1], ranks[0])
  np.testing.assert_allclose(rank_differences(labels, one, other), expected, atol=1e-15)


def test_ranks_do_not_depend_on_the_scale_of_scores_and_their_mean_is_that_of_aurocs():
  rng = np.random.default_rng(0)
  labels = labels_of(13, 20)
  one, other = draw(rng, labels, 1.0)
  found = rank_differences(labels, one, other)
  np.testing.assert_array_equal(found, rank_differences(labels, np.exp(one), 3 + 9 * other))
  np.testing.assert_array_equal(found, -rank_differences(labels, other, one))
  gain = roc_auc_score(labels, other) - roc_auc_score(labels, one)
  assert found.mean() == pytest.approx(2 * 13 * 20 / (33 * 32) * gain)


@pytest.mark.parametrize('lost', [np.nan, None])
def test_without_a_score_or_another_image_there_are_no_ranks(lost):
  labels = labels_of(2, 2) if lost else labels_of(1, 0)
  scores = np.arange(len(labels), dtype=np.float64)
  missing = np.where(scores == 0, np.nan, scores) if lost else scores
  assert np.isnan(rank_differences(labels, scores, missing)).all()


def test_equally_good_runs_seldom_differ_by_their_ranks():
  rng, labels = np.random.default_rng(1), labels_of(20, 60)
  found = [
    signed_rank(rank_differences(labels, *draw(rng, labels, 0.7))).p_value for _ in range(300)
  ]
  # 300 tries at 5 %: 27 are exceeded once in a thousand times.
  assert np.sum(np.array(found) < 0.05) <= 27


def test_resampled_aurocs_are_those_of_a_plain_loop(monkeypatch):
  labels = np.array([0, 1, 1, 0, 0, 1, 0, 1, 1, 0], bool)
  scores = np.round(np.random.default_rng(0).normal(labels, 1, (3, 10)), 1)  # with ties
  monkeypatch.setattr(paired_tests, '_TOGETHER', 70)  # seven samples at a time
  samples = np.concatenate(list(resampled(labels, 20, [5])))
  assert samples.shape == (20, 10)
  assert (samples[:, labels].sum(axis=1) == 5).all()
  assert (samples[:, ~labels].sum(axis=1) == 5).all()
  expected = [
    [roc_auc_score(np.repeat(labels, counts), np.repeat(each, counts)) for counts in samples]
    for each in scores
  ]
  np.testing.assert_allclose(resampled_aurocs(labels, scores, 20, [5]), expected, rtol=1e-13)


def test_the_interval_is_as_wide_as_that_of_delong():
  rng, labels = np.random.default_rng(2), labels_of(80, 120)
  one, other = draw(rng, labels, 1.0)
  # DeLong et al. 1988: the variance of a difference by the placements of each image.
  above = [(s[labels][:, None] > s[~labels]) for s in (one, other)]
  placements = np.subtract(*(each.astype(np.float64) for each in above[::-1]))
  variance = sum(placements.mean(axis).var(ddof=1) / size for axis, size in ((1, 120), (0, 80)))
  low, high = interval(np.subtract(*resampled_aurocs(labels, np.stack([other, one]), 4000, [0])))
  assert high - low == pytest.approx(2 * 1.96 * variance**0.5, rel=0.05)
  assert (low + high) / 2 == pytest.approx(placements.mean(), abs=0.1 * variance**0.5)


@pytest.mark.parametrize(('normal', 'anomalous'), [(5, 1), (1, 5), (0, 5), (5, 0)])
def test_a_class_that_cannot_be_resampled_has_no_interval(normal, anomalous):
  labels = labels_of(normal, anomalous)
  scores = np.arange(len(labels), dtype=np.float64)[None]
  assert np.isnan(interval(resampled_aurocs(labels, scores, 10, [0])[0])).all()


def test_holm_steps_down():
  found = holm([0.01, 0.04, np.nan, 0.03, 0.005])
  np.testing.assert_allclose(found, [0.03, 0.06, np.nan, 0.06, 0.02])
  # A level rejects what it rejects of one after another, each at the level over those left.
  rng = np.random.default_rng(0)
  p_values = rng.uniform(size=30) ** 3
  for level in (0.01, 0.05, 0.3):
    rejected = set()
    for place, index in enumerate(np.argsort(p_values)):
      if p_values[index] > level / (30 - place):
        break
      rejected.add(int(index))
    assert {i for i, p in enumerate(holm(p_values)) if p <= level} == rejected
  assert holm([]) == []
