"""Fits the detector of a run anew with another region of interest, by its encoder as it is.

The region belongs to the detector, not to the training: config.data.region of the detector names
it, and `eval` and `build-bank` take it from there. The file lies in the workdir, named by its
content, so that versions of the detector that are gone back to find theirs.
"""

import contextlib
import pathlib
from collections.abc import Callable

import ml_collections
import numpy as np

from patch_svdd_jax import data
from patch_svdd_jax.data import images
from patch_svdd_jax.detection.detector import Detector, saved_origin
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.experiments.training_run import fit_detector
from patch_svdd_jax.system import digests, files, working_copy
from patch_svdd_jax.system.batching import Progress

# Digits of the digest in a file's name.
_DIGITS = 16


def load(
  detector: Detector, workdir: pathlib.Path, region: np.ndarray
) -> tuple[ml_collections.ConfigDict, data.Dataset]:
  """Writes a region into the workdir, and loads the normal images that the detector is fitted to.

  Args:
    detector: of the workdir.
    workdir: of the run.
    region: bool[h, w], of the aspect ratio of images. One that is all of them is none.

  Returns:
    The detector's config with that region, and its data set.

  Raises:
    UserError: the images cannot be read, or the region does not fit them.
  """
  config = detector.config.copy_and_resolve_references()
  config.data.region = ''
  if not region.all():
    png = images.encode_png(region)
    path = workdir / f'region-{digests.digest_parts(png)[:_DIGITS]}.png'
    files.write(path, png)
    config.data.region = str(path.absolute())
  try:
    return config, data.load(config.data)
  except UserError as error:
    raise UserError(
      f'the normal images cannot be read here ({error}): where they are, `patch-svdd build-bank '
      f'--workdir {working_copy.shown(workdir)} --config.data.region=region.png` does the same'
    ) from error


def fit(
  config: ml_collections.ConfigDict,
  detector: Detector,
  workdir: pathlib.Path,
  dataset: data.Dataset,
  progress: Callable[[str], Progress],
) -> Detector:
  """Fits the detector to what `load` returned, calibrates it, and saves it as a new version."""
  return fit_detector(
    config,
    detector.params,
    workdir,
    dataset,
    step=detector.origin.step,
    progress=progress,
    calibrated=True,
    keep=True,
  )


def of_detector(
  config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> ml_collections.ConfigDict:
  """Returns the config of a run with the region of its detector, where it has one.

  A region that lies in the workdir is found there, wherever that lies by now.
  """
  with contextlib.suppress(UserError):  # one that is damaged is made anew
    if origin := saved_origin(workdir):
      config = config.copy_and_resolve_references()
      config.data.region_share = origin.config.data.region_share
      region = origin.config.data.region
      own = workdir / pathlib.PurePath(region).name
      config.data.region = str(own.absolute()) if region and own.is_file() else region
  return config


def check_own(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
  """Refuses to train on where the detector has another region than the run.

  The encoder would learn nothing of it, and a detector without it would take its place.

  Raises:
    UserError: names both.
  """
  own = of_detector(config, workdir).data.region
  if own != config.data.region:
    raise UserError(
      f'the detector in {workdir} was given another region after its training '
      f'(config.data.region: {config.data.region!r} -> {own!r}): train with it in another '
      '--workdir, or begin anew (--restart)'
    )
