"""Good images that are added to the detector of a run, and kept in its folder."""

import datetime
import logging
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from patch_svdd_jax.data import Split, image_stream
from patch_svdd_jax.data.dataset import concatenate
from patch_svdd_jax.data.file_search import Source
from patch_svdd_jax.detection import additions, detector
from patch_svdd_jax.detection.additions import Moved
from patch_svdd_jax.detection.detector import Addition, Detector
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system import files
from patch_svdd_jax.system.names import portable

FOLDER = 'additions'
# Files that an error names.
_SHOWN = 3


class Image(NamedTuple):
  """A good image: decoded, and as its file."""

  split: Split
  name: str
  content: bytes


def read(sources: Sequence[Source], found: Detector) -> list[Image]:
  """Reads good images.

  Raises:
    UserError: some cannot be read; names them.
  """
  images, faults = [], []
  for source in sources:
    split = image_stream.attempt(source, found.config.data, region=found.region)
    if isinstance(split, str):
      faults.append(split)
    else:
      images.append(Image(split, source.name, source.path.read_bytes()))
  if faults:
    more = f' and {len(faults) - _SHOWN} more' if len(faults) > _SHOWN else ''
    raise UserError(f'nothing was added: {"; ".join(faults[:_SHOWN])}{more}')
  return images


def new(images: Sequence[Image], found: Detector) -> list[Image]:
  """Returns the images that were not added before, each once."""
  known = {each.digest for each in found.origin.additions}
  chosen = []
  for image in images:
    (digest,) = image.split.digests
    if digest not in known:
      known.add(digest)
      chosen.append(image)
  return chosen


def add(
  workdir: pathlib.Path, found: Detector, images: Sequence[Image], rate: float
) -> tuple[Detector, Moved]:
  """Adds good images to the detector of a run, keeps them, and saves it as another version.

  Args:
    workdir: of the run.
    found: its detector.
    images: of `new`.
    rate: of false alarms, whose threshold is compared.

  Raises:
    UserError: no images can be added to this detector, or the disk refuses.
  """
  split = concatenate([image.split for image in images])
  now = datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')
  kept = tuple(
    Addition(image.name, image.split.digests[0], now, file_name(image)) for image in images
  )
  grown, moved = additions.add(found, split, kept, rate)
  for image, addition in zip(images, kept, strict=True):
    files.write(workdir / FOLDER / addition.file, image.content)
  grown.save(workdir, keep=True)
  return grown, moved


def again(workdir: pathlib.Path, found: Detector) -> Detector:
  """Returns a detector that was fitted anew with the images that were added to the one before it.

  Where that cannot be, a warning says so; the images stay in the folder of additions.
  """
  try:
    origin = detector.saved_origin(workdir)
  except UserError:  # one that is damaged is made anew
    origin = None
  if origin is None or not origin.additions:
    return found
  sources = [Source(each.name, workdir / FOLDER / each.file) for each in origin.additions]
  try:
    split = concatenate([image.split for image in read(sources, found)])
    return additions.add(found, split, origin.additions, rate=0.5)[0]
  except UserError as error:
    logging.getLogger(__name__).warning(
      '%d images that were added are no longer in the detector: %s', len(sources), error
    )
    return found


def undo(workdir: pathlib.Path, steps: int) -> tuple[int, int]:
  """Goes back to an earlier version of the detector of a run.

  Args:
    workdir: of the run.
    steps: how many versions.

  Returns:
    The number of the version, and how many added images it is without.

  Raises:
    UserError: there are not so many earlier versions.
  """
  before = detector.saved_origin(workdir)
  version = detector.undo(workdir, steps)
  after = detector.saved_origin(workdir)
  kept = after.additions if after else ()
  gone = [each for each in before.additions if each not in kept] if before else []
  with files.explained(workdir / FOLDER):
    for file in {each.file for each in gone} - {'', *(each.file for each in kept)}:
      (workdir / FOLDER / file).unlink(missing_ok=True)
  return version, len(gone)


def file_name(image: Image) -> str:
  """Returns the name of the copy of an image, which tells it from others of its name."""
  name = portable(pathlib.PurePosixPath(pathlib.PurePosixPath(image.name).name))
  mark = f'-{image.split.digests[0][:8]}'
  if name.stem.endswith(mark):  # a copy that is added again
    return str(name)
  return files.fitting(name.stem, f'{mark}{name.suffix}')
