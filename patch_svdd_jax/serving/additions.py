"""Good images that are added to a served detector, and taken out again."""

import pathlib
from typing import Any

import numpy as np

from patch_svdd_jax.data import Split
from patch_svdd_jax.detection import additions
from patch_svdd_jax.detection.additions import Moved
from patch_svdd_jax.detection.detector import Detector, saved_origin, versions
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.experiments import additions_run
from patch_svdd_jax.serving.changes import Changes
from patch_svdd_jax.serving.scoring import DetectorScorer
from patch_svdd_jax.system.digests import digest_bytes


class DetectorAdditions:
  """The good images of the detector of a run that a scorer has."""

  def __init__(self, scorer: DetectorScorer, workdir: pathlib.Path, changes: Changes, rate: float):
    """Takes the scorer, the folder of its run, who may change it, and a false-alarm rate."""
    self._scorer, self._workdir, self._changes, self._rate = scorer, workdir, changes, rate

  def compile(self) -> None:
    """Compiles everything that adding an image needs, by one that is not kept."""
    detector = self._scorer.detector
    grey = np.full((*detector.config.data.image_size, 3), 128, np.uint8)
    additions.add(detector, self._scorer.prepare(grey, 'grey'), (), self._rate)

  def add(self, split: Split, name: str, content: bytes) -> dict[str, Any]:
    """Adds an image, of a file of this content; answers as `schema.Added` says.

    Raises:
      BusyError: the detector is being changed.
      UserError: the image was added before, or none can be.
    """
    split = Split(**vars(split) | {'digests': (digest_bytes(content),)})
    with self._changes.alone():
      detector = self._newest()
      chosen = additions_run.new([additions_run.Image(split, name, content)], detector)
      if not chosen:
        raise UserError('this image was added before')
      grown, moved = additions_run.add(self._workdir, detector, chosen, self._rate)
      self._scorer.replace(grown)
      return self._answer(moved)

  def undo(self) -> dict[str, Any]:
    """Goes back to the version before the last addition; answers as `schema.Undone` says.

    Raises:
      BusyError: the detector is being changed.
      UserError: there is nothing to take out.
    """
    with self._changes.alone():
      origin = saved_origin(self._workdir)
      if not origin or not origin.additions:
        raise UserError('no image was added')
      version, images = additions_run.undo(self._workdir, 1)
      self._scorer.replace(additions.with_room(Detector.load(self._workdir)))
      return {'version': version, 'images': images}

  def _newest(self) -> Detector:
    """Returns the detector, or that which another command has saved since."""
    detector = self._scorer.detector
    if saved_origin(self._workdir) == detector.origin:
      return detector
    return additions.with_room(Detector.load(self._workdir))

  def _answer(self, moved: Moved) -> dict[str, Any]:
    before, after = moved.threshold
    return {
      'version': versions(self._workdir)[-1],
      'images': moved.images,
      'threshold': (before.value, after.value),
      'median': moved.median,
      'score': float(moved.scores[0]),
      'p_value': float(moved.p_values[0]),
      'alarm': bool(np.any(moved.alarms)),
    }
