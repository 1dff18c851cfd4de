"""How a detector takes other light: held-out normal images, made darker, brighter, flatter, harder.

No label is needed: an image does not become defective by light. A detector that calls relit images
more anomalous than the same ones as they are will raise false alarms when a lamp ages.
"""

from typing import NamedTuple

import numpy as np

from patch_svdd_jax.data import lighting
from patch_svdd_jax.detection.detector import Detector
from patch_svdd_jax.evaluation import metrics
from patch_svdd_jax.system.batching import Progress


class Light(NamedTuple):
  """A change of light: gain * image + shift, in grey levels."""

  shift: float
  gain: float


# Screw's good test images are 15 grey levels darker than those it is trained on.
LIGHTS = (Light(-30, 1.0), Light(-15, 1.0), Light(15, 1.0), Light(0, 0.8), Light(0, 1.25))


class Sensitivity(NamedTuple):
  """What a change of light does to the image scores of one map.

  Attributes:
    light: the change.
    auroc: how well the scores tell relit images from the same ones as they are; .5: not at all.
    ratio: the median score of the relit ones, in medians of the others.
  """

  light: Light
  auroc: float
  ratio: float


def compare(light: Light, scores: np.ndarray, relit: np.ndarray) -> Sensitivity:
  """The sensitivity by the scores f32[N] of images as they are, and relit."""
  labels = np.repeat([False, True], [len(scores), len(relit)])
  auroc = metrics.auroc(labels, np.concatenate([scores, relit]))
  return Sensitivity(light, auroc, float(np.median(relit) / np.median(scores)))


def measure(detector: Detector, images: np.ndarray, progress: Progress = iter) -> list[Sensitivity]:
  """The sensitivity to each of LIGHTS, by the detector's last map.

  Args:
    detector: fitted.
    images: u8[N, H, W, 3], normal ones that it was not fitted on, as `data.load` gives them.
    progress: wraps the iterable of batches.
  """

  def score(changed: np.ndarray) -> np.ndarray:
    return list(detector.score(changed, progress).images.values())[-1]

  def relight(light: Light) -> np.ndarray:
    changed = lighting.change(images, light.shift, light.gain)
    # Where images are standardised, those of other light are too, as a camera's would be.
    standardised = detector.config.data.light == 'standardised'
    return lighting.standardise(changed) if standardised else changed

  scores = score(images)
  return [compare(light, scores, score(relight(light))) for light in LIGHTS]
