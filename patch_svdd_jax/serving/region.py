"""The region of interest of a served detector: shown, checked, and learned anew on request.

A detector is made anew in a thread of its own, while requests are scored by the one before.
"""

import concurrent.futures
import contextlib
import logging
import pathlib
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from patch_svdd_jax.data import image_size, images
from patch_svdd_jax.detection.detector import Detector
from patch_svdd_jax.errors import UserError, one_line
from patch_svdd_jax.experiments import region_run
from patch_svdd_jax.models import geometry
from patch_svdd_jax.models.architecture import strides_of
from patch_svdd_jax.serving.changes import Changes
from patch_svdd_jax.serving.scoring import DetectorScorer
from patch_svdd_jax.system.batching import Progress

logger = logging.getLogger(__name__)

# Shares of the time: .17, .45 and .37 on 90 images of 128 pixels (two busy cores, once). Of more
# images calibration takes more.
SHARES = {'Embedding': 0.2, 'Calibrating': 0.45, 'Compiling': 0.35}


class CancelledError(Exception):
  """The server ends."""


class Stages:
  """How much of a work of several stages is done, and how long it will take; it can be cancelled.

  Each stage is asked for by its title, in this order, as by `fit_detector`.
  """

  def __init__(self) -> None:
    self.done = 0.0
    self._cancelled = threading.Event()
    self._start = time.monotonic()

  def __call__(self, title: str) -> Progress:
    """Returns what wraps the batches of a stage."""
    titles = list(SHARES)
    before = sum(SHARES[each] for each in titles[: titles.index(title)])

    def stage(batches: Iterable[int]) -> Iterator[int]:
      counted = list(batches)
      for number, batch in enumerate(counted):
        self._check()
        yield batch
        share = before + SHARES[title] * (number + 1) / len(counted)
        # Some stages go over batches several times.
        self.done = max(self.done, share)
      self._check()

    return stage

  @property
  def seconds_left(self) -> float | None:
    """None as long as it cannot be told."""
    seconds = time.monotonic() - self._start
    return seconds * (1 - self.done) / self.done if self.done else None

  def cancel(self) -> None:
    """Ends it before the next batch, by a CancelledError."""
    self._cancelled.set()

  def _check(self) -> None:
    if self._cancelled.is_set():
      raise CancelledError


def aspect_of(detector: Detector) -> float:
  """Returns width / height of the normal images before they were resized, as far as it is known."""
  if detector.calibration and image_size.ASPECT in detector.calibration.statistics:
    return float(np.median(detector.calibration.statistics[image_size.ASPECT]))
  height, width = detector.config.data.image_size
  return float(width / height)


def unstretched(region: np.ndarray, aspect: float) -> np.ndarray:
  """Returns a region bool[H, W], enlarged along one side to an aspect ratio, width / height."""
  height, width = region.shape
  size = max(height, round(width / aspect)), max(width, round(height * aspect))
  return images.resize_mask(region, size)


def check(region: np.ndarray, detector: Detector) -> None:
  """Refuses a region bool[h, w] of another shape than images have, or in which no patch counts.

  Raises:
    UserError: says why, and what to do.
  """
  aspect = aspect_of(detector)
  if image_size.stretch(aspect, np.array([region.shape]))[0] > 1 + image_size.TOLERANCE:
    raise UserError(
      f'the region has {region.shape[1]} x {region.shape[0]} pixels, and images are '
      f'{aspect:.4g} times as wide as high: draw it on an image of the part'
    )
  height, width = detector.config.data.image_size
  resized = images.resize_mask(region, (height, width))
  share = detector.config.data.region_share
  for k, stride in strides_of(detector.config).items():
    if not geometry.patches_inside(resized, k, stride, share).any():
      raise UserError(
        f'no patch of K={k} lies in the region with {share:.3g} of its pixels: draw a larger one'
      )


class DetectorRegions:
  """The region of the detector of a run that a scorer has."""

  def __init__(
    self,
    scorer: DetectorScorer,
    workdir: pathlib.Path,
    changes: Changes,
  ):
    """Takes the scorer, the folder of its run, and who may change it."""
    self._scorer, self._workdir, self._changes = scorer, workdir, changes
    self._stages = Stages()
    self._state, self._error = 'none', ''
    self._thread: threading.Thread | None = None

  def present(self) -> bytes | None:
    """Returns the PNG of the region by which images are scored; None where all of them is."""
    detector = self._scorer.detector
    if detector.region is None:
      return None
    return images.encode_png(unstretched(detector.region, aspect_of(detector)))

  def check(self, region: np.ndarray) -> None:
    """Refuses a region bool[h, w] that the detector cannot have.

    Raises:
      UserError: says why, and what to do.
    """
    check(region, self._scorer.detector)

  def begin(self, region: np.ndarray) -> concurrent.futures.Future[None]:
    """Begins to make the detector anew with a region bool[h, w].

    Returns:
      What is done once the normal images are read; their UserError where they cannot be.

    Raises:
      BusyError: a change is under way.
    """
    read: concurrent.futures.Future[None] = concurrent.futures.Future()
    kept = contextlib.ExitStack()
    kept.enter_context(self._changes.alone())
    self._stages, self._state, self._error = Stages(), 'building', ''
    self._thread = threading.Thread(
      target=self._run, args=(region, read, kept), name='region', daemon=True
    )
    self._thread.start()
    return read

  def _run(
    self,
    region: np.ndarray,
    read: concurrent.futures.Future[None],
    kept: contextlib.ExitStack,
  ) -> None:
    try:
      with kept:
        self._make(region, read)
      self._state = 'saved'
    except CancelledError:
      self._state = 'none'
    except UserError as error:
      self._fail(error, one_line(str(error)), read)
    except Exception as error:
      logger.exception('the detector could not be made anew')
      self._fail(error, 'internal error; the server has logged it', read)

  def _fail(self, error: Exception, text: str, read: concurrent.futures.Future[None]) -> None:
    self._state, self._error = 'failed', text
    if not read.done():
      read.set_exception(error)

  def _make(self, region: np.ndarray, read: concurrent.futures.Future[None]) -> None:
    detector, stages = self._scorer.detector, self._stages
    config, dataset = region_run.load(detector, self._workdir, region)
    read.set_result(None)
    remade = region_run.fit(config, detector, self._workdir, dataset, stages)
    for _ in stages('Compiling')([0]):
      self._scorer.replace(remade)

  def about(self) -> dict[str, Any]:
    """Returns how far it is, as JSON has it."""
    return {
      'state': self._state,
      'share': self._stages.done,
      'seconds_left': self._stages.seconds_left if self._state == 'building' else None,
      'error': self._error,
    }

  def close(self) -> None:
    """Ends what is under way, after its present batch."""
    self._stages.cancel()
    if self._thread:
      self._thread.join()
