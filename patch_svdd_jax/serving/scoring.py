"""A detector as a server needs it: images of any size in, one record each out."""

import importlib
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from patch_svdd_jax import data
from patch_svdd_jax.data import Split, arrays, value_range
from patch_svdd_jax.data.dataset import concatenate
from patch_svdd_jax.detection import distribution_shift, inspection
from patch_svdd_jax.detection.detector import Detector
from patch_svdd_jax.detection.prediction import Prediction

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
  scale: tuple[float, float]
  value_range: tuple[float, float]

  def prepare(self, image: np.ndarray, name: str) -> Split:
    """An image u8[h, w, 3] of any size, resized and lit as the detector expects it."""

  def score(self, images: Sequence[Split]) -> list[Scored]:
    """Scores 1 to `batch_size` of them."""

  def grow(self) -> bool:
    """Makes `batch_size` larger; returns whether it did."""

  def about(self) -> dict[str, Any]:
    """The model, its limits, and what is remarkable, as JSON has it."""


class DetectorScorer:
  """A calibrated detector at false-alarm rates.

  Attributes:
    batch_size: images that are scored at a time, at most: what is compiled for, 0 at first.
    scale: the map values (low, high) that colours mean; the pixel threshold is their middle.
    value_range: by which deep files are read.
    warnings: what to say of the rates.
  """

  def __init__(self, detector: Detector, name: str, rate: float, pixel_rate: float):
    """Raises a UserError where the detector is not calibrated, or a rate is none."""
    self._detector, self._name = detector, name
    self._limit = inspection.limits(detector, rate, pixel_rate)
    self._rates = (rate, pixel_rate)
    self._devices = jax.local_device_count()
    self._window = distribution_shift.Window(inspection.calibrated(detector).statistics)
    self._scored = 0
    self.batch_size = 0
    self.scale = (0.0, 2 * self._limit.pixel.value)
    self.value_range = value_range.of(detector.config.data)
    self.warnings = self._limit.warnings

  def sizes(self) -> list[int]:
    """What batches are padded to, rising."""
    largest = inspection.batch_size(self._detector)
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
    height, width = self._detector.config.data.image_size
    grey = self.prepare(np.full((height, width, 3), 128, np.uint8), 'grey')
    self._inspect(grey, size)
    self.batch_size = size
    return True

  def prepare(self, image: np.ndarray, name: str) -> Split:
    """An image u8[h, w, 3] of any size, resized and lit as the detector expects it."""
    config = self._detector.config.data
    return data.light(arrays.resized([image], config, [name]), config)

  def score(self, images: Sequence[Split]) -> list[Scored]:
    """Scores 1 to `batch_size` of them, and watches whether they still look like normal ones."""
    split = concatenate(images)
    size = next(size for size in self.sizes() if size >= len(split))
    found = self._inspect(split, size)
    self._scored += len(split)
    known = self._window.texts
    if self._window.take(found.statistics) and self._window.texts and not known:
      logger.warning('%s', distribution_shift.warn(self._window.texts))
    return [
      Scored(prediction, of_image)
      for prediction, of_image in zip(found.of_each(split), found.maps, strict=True)
    ]

  def _inspect(self, split: Split, size: int) -> inspection.Inspection:
    return inspection.inspect_padded(self._detector, split, self._limit, size)

  def about(self) -> dict[str, Any]:
    """The model, its limits, and what is remarkable, as JSON has it."""
    return {
      'model': {
        'name': self._name,
        'step': self._detector.origin.step,
        'images': self._detector.origin.images,
      },
      'threshold': self._limit.image._asdict() | {'rate_asked': self._rates[0]},
      'pixel_threshold': self._limit.pixel._asdict() | {'rate_asked': self._rates[1]},
      'calibration_images': inspection.calibrated(self._detector).images,
      'warnings': list(self.warnings),
      'shift': list(self._window.texts),
      'scored': self._scored,
    }
