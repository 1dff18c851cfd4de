"""Prepares what is timed: a detector, its exported files, and image files, all in one folder.

All of it is made in a process of its own, so that nobody's memory holds what was needed for it.
"""

import logging
import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import ml_collections

from patch_svdd_jax import config_rules, configuration, data
from patch_svdd_jax.benchmarking import contenders, machine
from patch_svdd_jax.data import images
from patch_svdd_jax.data.file_search import Source
from patch_svdd_jax.detection import calibration_scores, export
from patch_svdd_jax.detection.detector import Detector, saved_origin
from patch_svdd_jax.detection.inspection import Limits
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.models import encoder
from patch_svdd_jax.models.geometry import ImageSize
from patch_svdd_jax.system import devices
from patch_svdd_jax.system.batching import evenly_spaced

# The settings of the detector where none is given.
CONFIG = 'laptop'
# A camera's files have more pixels than are scored: these have twice as many along each side.
FINER = 2
# By which the detector that is not given is calibrated: enough to have thresholds.
CALIBRATION = {'images': 20, 'folds': 2}
EXPORTS: dict[str, Callable[[Detector, Limits | None], bytes]] = {
  '.stablehlo': export.to_stablehlo,
  '.onnx': export.to_onnx,
}


class Facts(NamedTuple):
  """Describes what was prepared.

  Attributes:
    config: the detector's, for the size that it is timed at.
    bank_rows: rows of all memory banks.
    device: what JAX computes on, in words.
    alone: whether only one process can use the device at a time.
    missing: of each export that could not be made, why.
  """

  config: ml_collections.ConfigDict
  bank_rows: int
  device: str
  alone: bool
  missing: dict[str, str]


class Own(NamedTuple):
  """A saved detector's own (height, width), and whether it takes images of other sizes."""

  size: ImageSize
  any_size: bool


def read_own(workdir: pathlib.Path) -> Own:
  """Reads what size of images a workdir's detector is of.

  Raises:
    UserError: there is no detector.
  """
  devices.check()
  if (origin := saved_origin(workdir)) is None:
    raise UserError(f'no fitted detector in {workdir}: train first, or check --model')
  height, width = origin.config.data.image_size
  return Own((height, width), origin.config.train.mean == 'channel')


def fit_untrained(
  size: ImageSize, normal_images: int, workdir: pathlib.Path, prepared: pathlib.Path
) -> None:
  """Saves a detector of textures whose encoder has learned nothing.

  Args:
    size: of the images.
    normal_images: that its memory banks are of.
    workdir: where it is saved.
    prepared: where prepared images are kept.

  Raises:
    UserError: there are fewer normal images.
  """
  devices.check()
  config = settings(size, prepared)
  config.data.normal_images = normal_images
  config.calibration.update(CALIBRATION)
  config_rules.validate(config, training=False)
  dataset = data.load(config.data)
  if len(dataset.train) < normal_images:
    raise UserError(
      f'--normal-images {normal_images}: the textures have {len(dataset.train)}, or give a --model'
    )
  config = data.resolved(config, dataset)
  untrained = encoder.init_encoder(config)
  detector = Detector.fit(config, untrained, dataset.train.images, step=0)
  calibration_scores.calibrate(detector, dataset.train, dataset.held_out).save(workdir)


def settings(size: ImageSize, prepared: pathlib.Path) -> ml_collections.ConfigDict:
  """Returns the config of textures of a size."""
  config = configuration.read(CONFIG)
  config.data.update(image_size=size, prepared=str(prepared), held_out=0.0)
  return config


def write_textures(
  size: ImageSize, count: int, folder: pathlib.Path, prepared: pathlib.Path
) -> list[Source]:
  """Writes test images of textures as PNG files for a detector of a size.

  Raises:
    UserError: there are fewer.
  """
  config = settings((FINER * size[0], FINER * size[1]), prepared)
  config.data.light = 'kept'
  test = data.load(config.data).test
  if len(test) < count:
    raise UserError(f'--test-images {count}: the textures have {len(test)}, or give --images')
  folder.mkdir(parents=True)
  sources = []
  for number, index in enumerate(evenly_spaced(len(test), count)):
    path = folder / f'{number:03}.png'
    path.write_bytes(images.encode_png(test.images[index]))
    sources.append(Source(path.name, path))
  return sources


def prepare(
  workdir: pathlib.Path, size: ImageSize, folder: pathlib.Path, exports: Sequence[str]
) -> Facts:
  """Exports a detector for images of a size into a folder, and says what it is.

  Raises:
    UserError: the detector is not calibrated.
  """
  devices.check()
  detector = contenders.load(workdir, size)
  limit = contenders.limits(detector)
  return Facts(
    config=detector.config,
    bank_rows=sum(bank.size for bank in detector.banks.values()),
    device=machine.device_name(),
    alone=jax.default_backend() != 'cpu',
    missing=write_exports(detector, limit, folder, exports),
  )


def write_exports(
  detector: Detector, limit: Limits, folder: pathlib.Path, exports: Sequence[str]
) -> dict[str, str]:
  """Writes a detector's exported files into a folder; returns of those that cannot be made why."""
  missing = {}
  # The converter to ONNX warns of what does not concern whoever measures.
  logging.disable(logging.WARNING)
  try:
    for suffix in exports:
      try:
        export_path(folder, suffix).write_bytes(EXPORTS[suffix](detector, limit))
      # Besides a UserError, whatever the converter, which is another package's, raises.
      except Exception as error:  # noqa: BLE001
        missing[suffix] = str(error).partition('\n')[0] or type(error).__name__
  finally:
    logging.disable(logging.NOTSET)
  return missing


def export_path(folder: pathlib.Path, suffix: str) -> pathlib.Path:
  """Returns where the export of a suffix lies."""
  return folder / f'detector{suffix}'
