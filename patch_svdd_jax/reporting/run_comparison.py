"""Measured runs side by side: their figures, and whether what tells them apart may be chance.

All is told against the first run. Figures of several categories have a mean over them, and tests
take the images of all besides.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from patch_svdd_jax.data.categories import EVERY
from patch_svdd_jax.evaluation import paired_tests
from patch_svdd_jax.evaluation.metrics import TITLES
from patch_svdd_jax.evaluation.paired_tests import SignedRank
from patch_svdd_jax.reporting.measured_run import MeasuredRun, check_comparable, short_names

# What is compared image by image.
AUPIMO, RANK = 'aupimo', 'image_rank'


class PairedTest(NamedTuple):
  """A test of a run against the first one, on the images of a category or on those of all.

  Attributes:
    category: its name, ALONE or EVERY.
    run: number of the run.
    measure: AUPIMO or RANK.
    differences: f64[N] by image, positive where the run is better; NaN where there is none.
    found: by the test.
    corrected: its p-value, corrected for all tests of the comparison.
  """

  category: str
  run: int
  measure: str
  differences: np.ndarray
  found: SignedRank
  corrected: float


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
  """A comparison of runs.

  Attributes:
    runs: the first is what the others are compared with.
    names: of the runs, short.
    figures: of each run, by category and metric; of several categories, by EVERY their mean.
    intervals: (low, high) of the difference of the image AUROC to the first run, by category and
      number of the run; NaN where there is none.
    tests: of each run but the first.
    resamples: samples that gave the intervals.
    seed: of these samples.
  """

  runs: Sequence[MeasuredRun]
  names: Sequence[str]
  figures: Mapping[str, Sequence[Mapping[str, float]]]
  intervals: Mapping[tuple[str, int], tuple[float, float]]
  tests: Sequence[PairedTest]
  resamples: int
  seed: int

  @property
  def title(self) -> str:
    """Returns a title that names the compared runs."""
    first, *others = self.names
    return f'{", ".join(others)} against {first}'

  @property
  def others(self) -> Sequence[int]:
    """Returns the numbers of all runs but the first."""
    return range(1, len(self.runs))

  @property
  def several(self) -> bool:
    """Returns whether there are several categories."""
    return EVERY in self.figures

  @property
  def whole(self) -> str:
    """Returns the name of all categories together, or of the only one."""
    return EVERY if self.several else next(iter(self.figures))

  def difference(self, category: str, run: int, metric: str) -> float:
    """Returns a figure minus that of the first run."""
    figures = self.figures[category]
    return figures[run][metric] - figures[0][metric]


def compare(runs: Sequence[MeasuredRun], resamples: int, seed: int) -> Comparison:
  """Compares runs with the first one.

  Raises:
    UserError: they were not measured on the same images.
  """
  check_comparable(runs)
  figures = {
    category: [run.categories[category].figures for run in runs] for category in runs[0].categories
  }
  if len(figures) > 1:
    figures[EVERY] = [_mean(each) for each in zip(*figures.values(), strict=True)]
  tests = [
    PairedTest(category, number, measure, differences, paired_tests.signed_rank(differences), 0.0)
    for number in range(1, len(runs))
    for measure, by_category in _differences(runs[0], runs[number]).items()
    for category, differences in by_category.items()
  ]
  corrected = paired_tests.holm([test.found.p_value for test in tests])
  return Comparison(
    runs,
    short_names([run.place for run in runs]),
    figures,
    _intervals(runs, resamples, seed),
    [test._replace(corrected=value) for test, value in zip(tests, corrected, strict=True)],
    resamples,
    seed,
  )


def _mean(figures: Sequence[Mapping[str, float]]) -> dict[str, float]:
  """Returns the mean of each metric, NaN where one of them is."""
  return {metric: float(np.mean([each[metric] for each in figures])) for metric in TITLES}


def _differences(one: MeasuredRun, other: MeasuredRun) -> dict[str, dict[str, np.ndarray]]:
  """Returns differences by image, f64[N], by measure and category; of several, by EVERY of all."""
  found: dict[str, dict[str, np.ndarray]] = {AUPIMO: {}, RANK: {}}
  for category in one.categories:
    labels, scores, aupimo = _arrays([one, other], category)
    found[AUPIMO][category] = aupimo[1] - aupimo[0]
    found[RANK][category] = paired_tests.rank_differences(labels, *scores)
  if len(one.categories) > 1:
    for each in found.values():
      each[EVERY] = np.concatenate([*each.values()])
  return found


def _arrays(
  runs: Sequence[MeasuredRun], category: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns labels bool[N], scores and AUPIMO f64[runs, N] of the images, as the first has them."""
  names = runs[0].categories[category].images
  images = [[run.categories[category].images[name] for name in names] for run in runs]
  labels = np.array([image.anomalous for image in images[0]], bool)
  scores, aupimo = (
    np.array([[getattr(image, name) for image in each] for each in images], np.float64)
    for name in ('score', 'aupimo')
  )
  return labels, scores, aupimo


def _intervals(
  runs: Sequence[MeasuredRun], resamples: int, seed: int
) -> dict[tuple[str, int], tuple[float, float]]:
  """Returns the intervals of the difference of the image AUROC.

  Of several categories each is resampled by itself, and the differences of their means are taken.
  """
  found = {}
  for number, category in enumerate(runs[0].categories):
    labels, scores, _ = _arrays(runs, category)
    aurocs = paired_tests.resampled_aurocs(labels, scores, resamples, [seed, number])
    found[category] = aurocs[1:] - aurocs[0]
  if len(found) > 1:
    found[EVERY] = np.mean([*found.values()], axis=0)
  return {
    (category, number): paired_tests.interval(differences)
    for category, each in found.items()
    for number, differences in enumerate(each, 1)
  }
