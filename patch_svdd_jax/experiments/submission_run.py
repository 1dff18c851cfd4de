"""A submission to MVTec's benchmark server, made category by category in one folder on disk.

  FOLDER/submission/         what is packed, see `evaluation.submission`
  FOLDER/submission.json     what the files of each category were made with
  FOLDER/submission.tar.gz   where all categories are there

A run that was stopped goes on with the images whose files are not there, if detector, images and
rate are those that it began with; otherwise the category begins anew.
"""

import dataclasses
import json
import logging
import pathlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from patch_svdd_jax import __version__
from patch_svdd_jax.data import image_stream, private_splits
from patch_svdd_jax.data.file_search import Source
from patch_svdd_jax.detection import inspection
from patch_svdd_jax.detection.calibration import Threshold
from patch_svdd_jax.detection.detector import Detector, load_identified
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.evaluation import submission
from patch_svdd_jax.evaluation.submission import Encoding
from patch_svdd_jax.models.geometry import ImageSize
from patch_svdd_jax.system import digest_cache, digests, files
from patch_svdd_jax.system.batching import Progress

_logger = logging.getLogger(__name__)
NAME = 'submission'

MakeProgress = Callable[[str], Progress]


@dataclasses.dataclass(frozen=True)
class Job:
  """A category: where its detector is, and the folder that holds the category's images."""

  category: str
  workdir: pathlib.Path
  root: pathlib.Path


@dataclasses.dataclass(frozen=True)
class Written:
  """Outcome of a category.

  Attributes:
    category: its name.
    images: how many it has.
    map_name: of the map that is written.
    limit: above which a pixel is anomalous, in the map's own values.
  """

  category: str
  images: int
  map_name: str
  limit: Threshold


class Submission:
  """The folder of a submission.

  Attributes:
    folder: what is packed.
    archive: where it is packed.
  """

  def __init__(self, output: pathlib.Path):
    """Reads what an earlier run has left.

    Raises:
      UserError: what is there is no submission.
    """
    self.folder = output / NAME
    self.archive = output / f'{NAME}.tar.gz'
    self._path = output / f'{NAME}.json'
    self._entries: dict[str, dict[str, Any]] = {}
    self._checked: set[str] = set()
    if self._path.exists():
      try:
        self._entries = json.loads(self._path.read_bytes())
        if not all(isinstance(each, dict) for each in self._entries.values()):
          raise TypeError
      except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UserError(f'{self._path} is no file of submit: name another --output') from error
    elif self.folder.exists():
      raise UserError(f'{self.folder} is not known to be of submit: name another --output')

  def add(self, job: Job, rate: float, progress: MakeProgress) -> Written:
    """Writes the files of a category that are not there, and checks all of them.

    Logs what is to be minded of the limit, and that an earlier run's files are not gone on with.

    Args:
      job: the category.
      rate: share of a normal image's pixels that may be called anomalous.
      progress: makes what wraps the images of a task with this title.

    Raises:
      UserError: the detector is not calibrated, an image cannot be read, or a file is wrong.
    """
    category = job.category
    sources = private_splits.find(job.root, category)
    detector, digest = load_identified(job.workdir)
    limit, warnings = inspection.pixel_limit(detector, rate)
    encoding = submission.encoding(inspection.calibrated(detector), limit.value)
    paths = [source.path for source in sources]
    made_with = {
      'version': __version__,
      'detector': digest,
      'images': digests.digest_parts(*(d.encode() for d in digest_cache.digest_files(paths))),
      'pixel false-alarm rate': rate,
    }
    self._begin(category, made_with, {'root': str(job.root.absolute()), **encoding._asdict()})
    for text in warnings:
      _logger.warning('%s: %s', category, text)
    left = [source for source in sources if not self._has(category, source)]
    if left:
      self.archive.unlink(missing_ok=True)
      for name, anomaly_map, size in _score(detector, left, progress(f'Scoring {category}')):
        try:
          encoded = submission.encode(anomaly_map, size, encoding.scale)
        except UserError as error:
          raise UserError(f'{category}/{name}: {error}') from error
        submission.write(self.folder, category, name, encoded, encoding.level)
    self._check(category, sources, encoding, progress)
    return Written(category, len(sources), detector.main_map, limit)

  def _begin(self, category: str, made_with: dict[str, Any], more: dict[str, Any]) -> None:
    """Removes what an earlier run has made with something else, and says so."""
    before = self._entries.get(category, {}).get('made_with')
    changed = [name for name, value in made_with.items() if before and before.get(name) != value]
    if changed:
      _logger.warning('%s begins anew: %s changed', category, ', '.join(changed))
    with files.explained(self.folder):
      if before != made_with:
        # In this order: files without an entry are removed by whoever comes next.
        self._entries.pop(category, None)
        files.write_json(self._path, self._entries)
        self.archive.unlink(missing_ok=True)
        for kind in submission.SUFFIXES:
          shutil.rmtree(self.folder / kind / category, ignore_errors=True)
      self.folder.mkdir(parents=True, exist_ok=True)
      for path in self.folder.rglob(f'*{files.UNFINISHED}'):
        path.unlink()
    self._keep(category, {'made_with': made_with, **more, 'whole': False})

  def _keep(self, category: str, entry: dict[str, Any]) -> None:
    self._entries[category] = entry
    files.write_json(self._path, self._entries)

  def _has(self, category: str, source: Source) -> bool:
    places = submission.paths(self.folder, category, source.name)
    return all(path.exists() for path in places.values())

  def _check(
    self, category: str, sources: Sequence[Source], encoding: Encoding, progress: MakeProgress
  ) -> None:
    title = f'Checking {category}'
    _refuse(submission.check(self.folder, category, sources, encoding.level, progress(title)))
    self._checked.add(category)
    self._keep(category, self._entries[category] | {'whole': True})

  def missing(self) -> list[str]:
    """Returns the categories whose files are not all there."""
    return [
      category
      for category in private_splits.COUNTS
      if not self._entries.get(category, {}).get('whole')
    ]

  def pack(self, progress: MakeProgress) -> None:
    """Checks the categories of earlier runs, and packs all of them unless they are packed.

    Raises:
      UserError: a file is wrong, or cannot be written.
    """
    _refuse(submission.check_categories(self.folder))
    for category, entry in self._entries.items():
      if category not in self._checked:
        sources = private_splits.find(pathlib.Path(entry['root']), category)
        self._check(category, sources, Encoding(entry['scale'], entry['level']), progress)
    if not self.archive.exists():
      submission.pack(self.folder, self.archive, progress('Packing'))


def _refuse(wrong: Sequence[str]) -> None:
  """Raises a UserError of what is wrong, if anything is."""
  if wrong:
    more = f' ({len(wrong) - 1} more)' if len(wrong) > 1 else ''
    raise UserError(f'{wrong[0]}{more}: remove what is wrong, and run the same command again')


def _score(
  detector: Detector, sources: Sequence[Source], progress: Progress
) -> Iterator[tuple[str, np.ndarray, ImageSize]]:
  """Yields each image's name, main map f32[H, W], and (height, width) in pixels of its file.

  Raises:
    UserError: an image cannot be read.
  """

  def scored() -> Iterator[tuple[str, np.ndarray, ImageSize]]:
    size = inspection.batch_size(detector)
    for batch in image_stream.batches(sources, size, detector.config.data, detector.region):
      if batch.failures or batch.split is None:
        raise UserError(batch.failures[0][1])
      # Another number of images would be another program to compile.
      padded = batch.split.take(np.resize(np.arange(len(batch.split)), size))
      scores = detector.score(padded.images, regions=padded.regions).first(len(batch.split))
      sizes = [(int(height), int(width)) for height, width in batch.split.sizes]
      yield from zip(batch.split.names, scores.maps[scores.main_map], sizes, strict=True)

  for _, each in zip(progress(range(len(sources))), scored(), strict=True):
    yield each
