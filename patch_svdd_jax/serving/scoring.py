"""A detector as a server needs it: images of any size in, one record each out."""

import contextlib
import importlib
import logging
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from patch_svdd_jax.data import Split, arrays, value_range
from patch_svdd_jax.data.dataset import concatenate
from patch_svdd_jax.detection import distribution_shift, inspection
from patch_svdd_jax.detection.detector import Detector
from patch_svdd_jax.detection.prediction import Prediction
from patch_svdd_jax.errors import UserError

logger = logging.getLogger(__name__)

# A batch is padded to the next of 1, 4, 16, ...: one image alone does not wait for a whole batch,
# and there are few programs to compile.
GROWTH = 4


class Scored(NamedTuple):
  """What is found of one image.

  Attributes:
    prediction: what is found.
    map: f32[H, W], its anomaly map, of the size that images are resized to.
  """

  prediction: Prediction
  map: np.ndarray


class Scorer(Protocol):
  """Lists what the app asks for: `prepare` in any thread, `score` and `grow` in one."""

  batch_size: int
  value_range: tuple[float, float]

  @property
  def scale(self) -> tuple[float, float]:
    """The map values (low, high) that colours mean."""

  def prepare(self, image: np.ndarray, name: str) -> Split:
    """Prepares an image u8[h, w, 3] of any size: resized and lit as the detector expects it."""

  def score(self, images: Sequence[Split]) -> list[Scored]:
    """Scores 1 to `batch_size` of them."""

  def grow(self) -> bool:
    """Makes `batch_size` larger; returns whether it did."""

  def about(self) -> dict[str, Any]:
    """Describes the model, its limits, and anything remarkable, for JSON."""


class _Judge(NamedTuple):
  """Holds what changes with the detector, all at once.

  Attributes:
    detector: calibrated.
    limit: at the false-alarm rates.
    window: watches whether images still look like normal ones.
  """

  detector: Detector
  limit: inspection.Limits
  window: distribution_shift.Window

  def inspect(self, split: Split, size: int) -> inspection.Inspection:
    """Scores and judges images, padded to `size`."""
    return inspection.inspect_padded(self.detector, split, self.limit, size)


class DetectorScorer:
  """A calibrated detector at false-alarm rates.

  Attributes:
    batch_size: images that are scored at a time, at most: what is compiled for, 0 at first.
    value_range: by which deep files are read.
  """

  def __init__(self, detector: Detector, name: str, rate: float, pixel_rate: float):
    """Makes a scorer.

    Raises:
      UserError: the detector is not calibrated, a rate is unusable, or each image needs a region.
    """
    if detector.needs_regions:
      raise UserError(
        'the detector judges a region of each image that is its own, and here images come alone: '
        'use predict, or give it one config.data.region for all images'
      )
    self._name, self._rates = name, (rate, pixel_rate)
    self._judge = self._judge_by(detector)
    self._devices = jax.local_device_count()
    # Several devices that wait for each other must be given their programs in one order.
    self._alone: contextlib.AbstractContextManager[object] = (
      threading.Lock() if self._devices > 1 else contextlib.nullcontext()
    )
    self._scored = 0
    self.batch_size = 0
    self.value_range = value_range.of(detector.config.data)

  def _judge_by(self, detector: Detector) -> _Judge:
    limit = inspection.limits(detector, *self._rates)
    window = distribution_shift.Window(inspection.calibrated(detector).statistics)
    return _Judge(detector, limit, window)

  @property
  def detector(self) -> Detector:
    """The one that scores at this moment."""
    return self._judge.detector

  @property
  def scale(self) -> tuple[float, float]:
    """The map values (low, high) that colours mean; the pixel threshold is their middle."""
    return 0.0, 2 * self._judge.limit.pixel.value

  @property
  def warnings(self) -> tuple[str, ...]:
    """What to say of the rates."""
    return self._judge.limit.warnings

  def replace(self, detector: Detector) -> None:
    """Scores by another detector, of the same config.data, from the next batch on.

    It is called in any thread but that of `score`, by one at a time: the one before goes on scoring
    while what this one needs is compiled. Of several devices, requests wait meanwhile.

    Raises:
      UserError: it is not calibrated; then the one before stays.
    """
    judge, compiled = self._judge_by(detector), 0
    # More may be compiled for the one before in the meantime.
    while compiled < self.batch_size:
      for size in [size for size in self.sizes() if compiled < size <= self.batch_size]:
        self._compile(judge, size)
        compiled = size
    self._judge = judge

  def sizes(self) -> list[int]:
    """Returns the sizes that batches are padded to, rising."""
    largest = inspection.batch_size(self.detector)
    sizes = [self._devices]
    while sizes[-1] * GROWTH < largest:
      sizes.append(sizes[-1] * GROWTH)
    return sorted({*sizes, largest})

  def grow(self) -> bool:
    """Compiles what the next larger batch needs; returns whether there is one."""
    size = next((size for size in self.sizes() if size > self.batch_size), None)
    if size is None:
      importlib.import_module('scipy.stats')  # or the first comparison of light waits for it
      return False
    self._compile(self._judge, size)
    self.batch_size = size
    return True

  def _compile(self, judge: _Judge, size: int) -> None:
    height, width = judge.detector.config.data.image_size
    grey = self.prepare(np.full((height, width, 3), 128, np.uint8), 'grey')
    with self._alone:
      judge.inspect(grey, size)

  def prepare(self, image: np.ndarray, name: str) -> Split:
    """Returns an image u8[h, w, 3] of any size, resized and lit as the detector expects it."""
    config = self.detector.config.data
    return arrays.lit(arrays.resized([image], config, [name]), config, fixed=self.detector.region)

  def score(self, images: Sequence[Split]) -> list[Scored]:
    """Scores 1 to `batch_size` of them, and watches whether they still look like normal ones."""
    split = concatenate(images)
    size = next(size for size in self.sizes() if size >= len(split))
    judge = self._judge
    with self._alone:
      found = judge.inspect(split, size)
    self._scored += len(split)
    known = judge.window.texts
    if judge.window.take(found.statistics) and judge.window.texts and not known:
      logger.warning('%s', distribution_shift.warn(judge.window.texts))
    return [
      Scored(prediction, of_image)
      for prediction, of_image in zip(found.of_each(split), found.maps, strict=True)
    ]

  def about(self) -> dict[str, Any]:
    """Returns the model, its limits, and what is remarkable, as JSON has it."""
    judge = self._judge
    return {
      'model': {
        'name': self._name,
        'step': judge.detector.origin.step,
        'images': judge.detector.origin.images,
      },
      'threshold': judge.limit.image._asdict() | {'rate_asked': self._rates[0]},
      'pixel_threshold': judge.limit.pixel._asdict() | {'rate_asked': self._rates[1]},
      'calibration_images': inspection.calibrated(judge.detector).images,
      'warnings': list(judge.limit.warnings),
      'shift': list(judge.window.texts),
      'scored': self._scored,
    }
