"""What training gained, measured once for each detector and kept in its workdir."""

import hashlib
import json
import pathlib
from collections.abc import Callable

from patch_svdd_jax import data
from patch_svdd_jax.detection.detector import Detector, digest_normal
from patch_svdd_jax.evaluation import training_gain
from patch_svdd_jax.evaluation.metrics import TITLES
from patch_svdd_jax.evaluation.training_gain import TrainingGain
from patch_svdd_jax.system import distributed, files
from patch_svdd_jax.system.batching import Progress

FILE = 'training_gain.json'


def measure(
  detector: Detector,
  workdir: pathlib.Path,
  dataset: data.Dataset,
  progress: Callable[[str], Progress],
) -> TrainingGain | None:
  """Returns what is saved of this detector, or measures and saves it; see `training_gain.measure`.

  Args:
    detector: trained, and fitted on the training images.
    workdir: of the run.
    dataset: of the detector's config.
    progress: makes what wraps the batches of a task with this title.
  """
  measured_of = origin(detector, dataset)
  if saved := read(workdir, measured_of):
    return saved
  gain = training_gain.measure(detector, dataset.train, dataset.held_out, progress)
  if gain and distributed.is_first():
    files.write_json(workdir / FILE, {'of': measured_of, **gain._asdict()})
  return gain


def origin(detector: Detector, dataset: data.Dataset) -> str:
  """Returns a digest of all that the figures depend on."""
  config, step, images, _ = detector.origin
  # An older version has measured fewer figures.
  held_out = dataset.held_out
  others = digest_normal(held_out.images, held_out.regions, config.data.region_share)
  parts = [config.to_dict(), step, images, others, list(TITLES)]
  return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def read(workdir: pathlib.Path, measured_of: str) -> TrainingGain | None:
  """Returns what a workdir has of this detector; None where it is another's, missing or damaged."""
  try:
    saved = json.loads((workdir / FILE).read_bytes())
    return TrainingGain(**saved) if saved.pop('of') == measured_of else None
  except (OSError, ValueError, TypeError, KeyError, AttributeError):
    return None
