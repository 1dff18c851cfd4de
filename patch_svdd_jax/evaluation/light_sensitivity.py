"""How a detector takes other light: held-out normal images, made darker, brighter, flatter, harder.

No label is needed: an image does not become defective by light. A detector that calls relit images
more anomalous than the same ones as they are will raise false alarms when a lamp ages. Some data
sets have normal test images in several lights, by which the same is measured.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from patch_svdd_jax.data import Split
from patch_svdd_jax.data.lighting import REGULAR, change, ordered, standardise
from patch_svdd_jax.detection.detector import Detector
from patch_svdd_jax.evaluation import metrics
from patch_svdd_jax.evaluation.ranking import rank_elements
from patch_svdd_jax.system.batching import Progress


class Lighting(NamedTuple):
  """A change of light: gain * image + shift, in grey levels."""

  shift: float
  gain: float


# Screw's good test images are 15 grey levels darker than those it is trained on.
LIGHTINGS = (
  Lighting(-30, 1.0),
  Lighting(-15, 1.0),
  Lighting(15, 1.0),
  Lighting(0, 0.8),
  Lighting(0, 1.25),
)


class Sensitivity(NamedTuple):
  """What a change of light does to the image scores of one map.

  Attributes:
    lighting: the change, or the name of the other light.
    auroc: how well the scores tell relit images from the same ones as they are; .5: not at all.
    ratio: the median score of the relit ones, in medians of the others.
  """

  lighting: Lighting | str
  auroc: float
  ratio: float


def compare(lighting: Lighting | str, scores: np.ndarray, relit: np.ndarray) -> Sensitivity:
  """Returns the sensitivity by the scores f32[N] of images as they are, and relit."""
  labels = np.repeat([False, True], [len(scores), len(relit)])
  auroc = metrics.auroc(rank_elements(labels, np.concatenate([scores, relit])))
  return Sensitivity(lighting, auroc, float(np.median(relit) / np.median(scores)))


def measure_sensitivity(
  detector: Detector,
  images: np.ndarray,
  progress: Progress = iter,
  regions: np.ndarray | None = None,
) -> list[Sensitivity]:
  """Returns the sensitivity to each of LIGHTINGS, by the detector's main map.

  Args:
    detector: fitted.
    images: u8[N, H, W, 3], normal ones that it was not fitted on, as `data.load` gives them.
    progress: wraps the iterable of batches.
    regions: bool[N, H, W], of these images; None as of `Detector.score`.
  """

  def score(changed: np.ndarray) -> np.ndarray:
    scores = detector.score(changed, progress, regions)
    return scores.images[scores.main_map]

  def relight(lighting: Lighting) -> np.ndarray:
    changed = change(images, *lighting)
    # Where images are standardised, those of other light are too, as a camera's would be.
    standardised = detector.config.data.light == 'standardised'
    return standardise(changed, detector.regions_of(images, regions)) if standardised else changed

  scores = score(images)
  return [compare(each, scores, score(relight(each))) for each in LIGHTINGS]


def measure_lights(
  detector: Detector, test: Split, lights: Sequence[str], progress: Progress = iter
) -> list[Sensitivity]:
  """Returns the sensitivity to each other light of normal test images than that of training.

  There is none where none of them is in that light.

  Args:
    detector: fitted.
    test: images, of which the normal ones count.
    lights: of each, see `Dataset.lights`.
    progress: wraps the iterable of batches.
  """
  good = np.flatnonzero(~test.labels)
  lights_of_good = np.array(lights)[good]
  if REGULAR not in lights_of_good:
    return []
  regions = None if test.regions is None else test.regions[good]
  found = detector.score(test.images[good], progress, regions)
  scores = found.images[found.main_map]
  return [
    compare(light, scores[lights_of_good == REGULAR], scores[lights_of_good == light])
    for light in ordered(lights_of_good)
    if light != REGULAR
  ]
