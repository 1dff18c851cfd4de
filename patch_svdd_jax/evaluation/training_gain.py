"""Whether training paid: the trained detector beside what needs no training, without labels."""

from collections.abc import Callable
from typing import NamedTuple

import ml_collections
import numpy as np

from patch_svdd_jax.data import Split
from patch_svdd_jax.detection.detector import Detector
from patch_svdd_jax.evaluation.metrics import AUROCS
from patch_svdd_jax.evaluation.separation import (
  Separation,
  make_examples,
  separate,
  standard_error,
)
from patch_svdd_jax.models import encoder, features
from patch_svdd_jax.system.batching import Progress, evenly_spaced

# Normal images that each system is fitted on at most: the cost stays within bounds, and all
# systems remember as many.
FITTED = 100
# A reference is better by more standard errors than this in one of twenty comparisons of equals.
_SURE = 1.64

TRAINED, UNTRAINED, THUMBNAIL = 'trained', 'untrained', 'thumbnail'
# What to do where a reference is better than the trained detector.
REMEDIES = {
  UNTRAINED: 'train longer (config.train.steps), or vary light less (config.train.augment)',
  THUMBNAIL: 'train longer (config.train.steps), or score by thumbnails, besides or alone '
  '(config.score.features, config.score.whiten)',
}


class TrainingGain(NamedTuple):
  """How well a trained detector and its references find synthetic anomalies.

  Attributes:
    images: how many held-out normal images were used.
    figures: of each system by name, the trained detector first, by `metrics.TITLES`.
    per_kind: of each system, those of each kind of anomaly.
    gains: by how much the trained detector is better than each reference, and the standard error
      of that, see `compare`.
  """

  images: int
  figures: dict[str, dict[str, float]]
  per_kind: dict[str, dict[str, dict[str, float]]]
  gains: dict[str, tuple[float, float]]

  def better(self) -> list[str]:
    """Returns the references that are surely better than the trained detector, the best first."""
    lost = [name for name, (gain, error) in self.gains.items() if gain < -_SURE * error]
    return sorted(lost, key=lambda name: self.gains[name][0])

  def words(self, name: str) -> str:
    """Returns a system's AUROCs in words."""
    figures = self.figures[name]
    return ' and '.join(f'{title} {figures[metric]:.3f}' for metric, title in AUROCS.items())

  def summary(self) -> str:
    """Returns one line with the AUROCs of all systems."""
    compared = '; '.join(f'{name} {self.words(name)}' for name in self.figures)
    return f'synthetic anomalies of {self.images} held-out images: {compared}'

  def warning(self) -> str | None:
    """Returns one line where a reference is better: by how much, and what to do."""
    better = self.better()
    if not better:
      return None
    compared = ', '.join(f'{name} {self.words(name)}' for name in better)
    return (
      f'training did not pay: on synthetic anomalies of {self.images} held-out images the trained '
      f'detector reaches {self.words(TRAINED)}, {compared}: {REMEDIES[better[0]]}'
    )


def compare(trained: Separation, reference: Separation) -> tuple[float, float]:
  """Returns by how much the trained one's mean of image and pixel AUROC is higher, and its error.

  The standard error is that of choosing other held-out images. Both systems score the same ones,
  so what makes an image easy or hard for both cancels.
  """
  difference = np.mean([trained.figures[name] - reference.figures[name] for name in AUROCS])
  influences = [trained.influences[name] - reference.influences[name] for name in AUROCS]
  return float(difference), standard_error(np.mean(influences, axis=0))


def references(config: ml_collections.ConfigDict) -> dict[str, ml_collections.ConfigDict]:
  """Returns the configs of detectors that need no training, by name.

  These are an untrained encoder, scored as the trained one is, and whitened thumbnails of patches,
  unless a scale has none, or the detector is scored by them and nothing else.
  """
  found = {UNTRAINED: config}
  thumbnails = features.thumbnails_alone(config)
  described = (features.from_config(each.score) for each in (config, thumbnails))
  if features.has_thumbnails(config) and len(set(described)) > 1:
    found[THUMBNAIL] = thumbnails
  return found


def measure(
  detector: Detector,
  normal: Split,
  held_out: Split,
  progress: Callable[[str], Progress],
) -> TrainingGain | None:
  """Compares a detector with its references on synthetic anomalies of held-out images.

  Args:
    detector: trained, fitted on `normal`.
    normal: images.
    held_out: others, normal ones that are neither trained on nor in a memory bank.
    progress: makes what wraps the batches of a task with this title.

  Returns:
    None where fewer than two images are held out, or no anomaly can be seen: nothing can be told.
  """
  if len(held_out) < 2:
    return None
  examples = make_examples(held_out.images, detector.regions_of(held_out.images, held_out.regions))
  if not any(examples.kinds):
    return None
  few = normal.take(evenly_spaced(len(normal), FITTED))

  def fit(name: str, config: ml_collections.ConfigDict, params: encoder.Params) -> Detector:
    title = f'Embedding normal images, {name}'
    return Detector.fit(
      config, params, few.images, step=0, progress=progress(title), regions=few.regions
    )

  def score(name: str, system: Detector) -> Separation:
    return separate(system, examples, progress(f'Scoring synthetic anomalies, {name}'))

  if len(few) < len(normal):
    detector = fit(TRAINED, detector.config, detector.params)
  untrained = encoder.init_encoder(detector.config)
  found = {TRAINED: score(TRAINED, detector)} | {
    name: score(name, fit(name, config, untrained))
    for name, config in references(detector.config).items()
  }
  return TrainingGain(
    examples.kinds.count(''),
    {name: each.figures for name, each in found.items()},
    {name: each.per_kind for name, each in found.items()},
    {name: compare(found[TRAINED], each) for name, each in found.items() if name != TRAINED},
  )
