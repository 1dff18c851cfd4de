"""What the TFDS builders share: the features, and writing ArrayRecord files as a stream."""

import dataclasses
import os
import pathlib
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from patch_svdd_jax.data import images, layout, masks, value_range
from patch_svdd_jax.data.examination import Examination, Examined
from patch_svdd_jax.data.report import Case, DataReport, UnusableError
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system.batching import Bar
from patch_svdd_jax.system.digests import digest_parts

_REPORT = 'report'  # its key among the metadata of what is prepared


def features() -> tfds.features.FeaturesDict:
  """Returns one example: an image at its own size and what is known about it."""
  return tfds.features.FeaturesDict(
    {
      'image': tfds.features.Image(shape=(None, None, 3)),
      'mask': tfds.features.Image(shape=(None, None, 1), encoding_format='png'),
      'has_mask': tfds.features.Scalar(np.bool_),
      'label': tfds.features.ClassLabel(names=['good', 'anomalous']),
      'defect': tfds.features.Text(),
      'name': tfds.features.Text(),
      'digest': tfds.features.Text(),
    }
  )


def example(
  image: bytes, mask: bytes, *, has_mask: bool, defect: str, name: str, digest: str
) -> dict[str, Any]:
  """Returns an example of encoded files: given arrays, TFDS would import TensorFlow."""
  label = 'good' if defect == layout.GOOD else 'anomalous'
  return {
    'image': image,
    'mask': mask,
    'has_mask': has_mask,
    'label': label,
    # Names on disk need not be UTF-8.
    'defect': os.fsencode(defect),
    'name': os.fsencode(name),
    'digest': digest,
  }


def file_example(
  item: layout.Item, within: value_range.Range, *, as_published: bool = False
) -> tuple[dict[str, Any], Examined]:
  """Reads an item's files and checks that its masks, whose union counts, fit.

  Args:
    item: an image and its masks.
    within: the range of deep values, see `value_range`.
    as_published: whether a mask of a defective image that marks nothing is taken as it is, so that
      all pixels count as normal. Otherwise it is as good as none.

  Raises:
    UserError: naming the file that is damaged, or both where image and mask disagree.
  """
  if item.problem:
    raise UserError(item.problem)
  contents = [images.read_bytes(path) for path in (item.image, *item.masks)]
  image = images.normalise(contents[0], str(item.image), within)
  mask = np.zeros(image.size, bool)
  odd: list[tuple[str, Case]] = []
  for path, content in zip(item.masks, contents[1:], strict=True):
    part = masks.decode(content, path, image.frame)
    _check_mask(item, path, part, image.size)
    odd += _odd_levels(content, path)
    mask |= part
  is_marked = bool(mask.any())
  if item.masks and item.defect != layout.GOOD:
    empty = 'mask_empty_as_published' if as_published else 'mask_empty'
    kind = masks.judge(mask) if is_marked else empty
    odd += [(kind, _mask_case(item, mask))] if kind else []
    odd += [('masks_joined', Case(item.name))] if len(item.masks) > 1 else []
  made = example(
    image.content,
    images.encode_png(mask),
    has_mask=is_marked or item.defect == layout.GOOD or (as_published and bool(item.masks)),
    defect=item.defect,
    name=item.name,
    # Of the files, not of what was made of them: another version may decode a JPEG otherwise.
    digest=digest_parts(*contents),
  )
  facts = images.facts(contents[0], str(item.image))
  return made, Examined(facts, is_marked, tuple(odd))


def _odd_levels(content: bytes, path: pathlib.Path) -> list[tuple[str, Case]]:
  if path.suffix.lower() == masks.ARRAY:
    return []
  levels, is_jpeg = images.mask_levels(content, str(path))
  kind = 'mask_jpeg' if is_jpeg else masks.judge_levels(levels)
  return [(kind, Case('/'.join(path.parts[-3:])))] if kind else []


def _mask_case(item: layout.Item, mask: np.ndarray) -> Case:
  marked = int(mask.sum())
  share = f'{marked} pixels' if masks.is_tiny(marked, mask.size) else f'{marked / mask.size:.1%}'
  return Case(item.name, f'{share} marked by {", ".join(path.name for path in item.masks[:2])}')


def _check_mask(
  item: layout.Item, path: pathlib.Path, mask: np.ndarray, size: tuple[int, int]
) -> None:
  if mask.shape != size:
    raise UserError(
      f'{path}: is {mask.shape[1]} x {mask.shape[0]} pixels but its image {item.image} is '
      f'{size[1]} x {size[0]}; make them the same size'
    )
  if item.defect == layout.GOOD and mask.any():
    raise UserError(
      f'{path}: marks an anomaly in {item.image}, which stands among the good ones; '
      'move the image or remove the mask'
    )


# What is kept with a data set that has deep images: the numbers of those to train on, and the range
# by which all are read.
_EXTENTS, _RANGE = 'training_extents', 'value_range'


class _LocalInfo(tfds.core.DatasetInfo):
  def initialize_from_bucket(self) -> None:
    """Does nothing: no bucket knows these data sets, and asking leaves folders in /tmp."""


class Builder(tfds.core.GeneratorBasedBuilder):
  """A TFDS builder that writes each split as it is generated, one example in memory at a time.

  TFDS's own writer keeps up to 1 GB of examples to shuffle them, and needs TensorFlow beyond that.
  Here nothing is shuffled: examples keep the order they are generated in.
  """

  VERSION = tfds.core.Version('1.2.0')

  def __init__(self, *, within: Sequence[float] = (), **kwargs: Any):
    """Makes a builder; the range of deep values is `within`, or else the training images' own."""
    self._within = tuple(within)
    super().__init__(**kwargs)

  @property
  def source(self) -> str:
    """Returns the place it is prepared from, for people to read."""
    return self.qualified_name

  def is_given(self) -> bool:
    """Returns whether there is a source; otherwise what was prepared of it last is read."""
    return True

  def fingerprint(self) -> str:
    """Returns a digest of the source's content as it is now.

    Raises:
      UserError: there is no source, or it cannot be read.
    """
    raise NotImplementedError

  @staticmethod
  def lighting(name: str) -> str:
    """Returns the light that an image was taken in, if its name says so; '' otherwise."""
    del name
    return ''

  @property
  def qualified_name(self) -> str:
    """Returns the names of the data set and its category."""
    return '/'.join(part for part in (self.name, self.builder_config_name) if part)

  def is_prepared(self) -> bool:
    """Returns whether a complete copy is there; TFDS's own check also warns where none is."""
    return bool((self.data_path / 'dataset_info.json').exists()) and all(
      path.exists() for split in self.info.splits.values() for path in split.filepaths
    )

  def write(self, fingerprint: str) -> None:
    """Prepares the source, whose content has that fingerprint.

    Raises:
      UserError: the source is at fault, or has changed meanwhile.
    """
    source = os.fsencode(self.source).decode(errors='replace')  # JSON has to be UTF-8
    self.info.metadata.update(fingerprint=fingerprint, source=source)
    self.download_and_prepare(file_format='array_record')

  def report(self) -> DataReport:
    """Returns the report on the files as they are now."""
    return self.stored_report()

  def stored_report(self) -> DataReport:
    """Returns the report on what is prepared; an empty one where images are made, not read."""
    return DataReport()

  @property
  def training_extents(self) -> list[value_range.Extent]:
    """Returns the extents of the deep training images of a data set that is prepared."""
    return value_range.from_json(self.info.metadata.get(_EXTENTS, '[]'))

  def has_range(self) -> bool:
    """Returns whether the range of what is prepared is the one that is asked for, if it matters."""
    used = self.info.metadata.get(_RANGE)
    return not used or used == list(value_range.resolve(self._within, self.training_extents))

  def _dataset_info(self, **details: str) -> tfds.core.DatasetInfo:
    return _LocalInfo(
      builder=self,
      features=features(),
      disable_shuffling=True,
      metadata=tfds.core.MetadataDict(),
      **details,
    )

  def _generate_splits(self, dl_manager: Any, download_config: Any) -> list[tfds.core.SplitInfo]:
    del download_config
    splits = self._split_generators(dl_manager)
    written = [self._write_split(name, examples) for name, examples in splits.items()]
    if self.fingerprint() != self.info.metadata['fingerprint']:
      raise UserError(
        f'{self.source}: has changed while it was read; run the same command again when it is as '
        'it should be'
      )
    return written

  def _write_split(self, name: str, examples: Iterable[Any]) -> tfds.core.SplitInfo:
    template = self._get_filename_template(split_name=name)
    serializer = ExampleSerializer(self.info.features.get_serialized_info())
    lengths = []

    def records() -> Iterator[tuple[int, bytes]]:
      for key, value in examples:
        record = serializer.serialize_example(self.info.features.encode_example(value))
        lengths.append(len(record))
        yield key, record

    path = template.sharded_filepath(shard_index=0, num_shards=1)
    self._example_writer().write(path, records())
    return tfds.core.SplitInfo(
      name=name, shard_lengths=[len(lengths)], num_bytes=sum(lengths), filename_template=template
    )

  def _progress(self, items: Sequence[Any], split: str) -> Iterable[Any]:
    return Bar(
      items, desc=f'Preparing {self.qualified_name} {split}', unit='image', mininterval=0.5
    )

  def _make_download_manager(self, **settings: Any) -> Any:
    """Stands in for TFDS's, which makes folders for downloads: there are none."""
    del settings
    return types.SimpleNamespace(downloaded_size=0)

  # TFDS announces itself on standard output, which belongs to the results.
  def _log_download_bytes(self) -> None: ...

  def _log_download_done(self) -> None: ...


class LayoutBuilder(Builder):
  """A builder whose images and masks are files of their own.

  Class attributes:
    as_published: see `file_example`.
  """

  as_published = False

  def found_now(self) -> layout.Layout | None:
    """Returns what the folders hold at this moment; None where they are not there."""
    raise NotImplementedError

  def report(self) -> DataReport:
    """Returns the report on the prepared files, and on the folders as they are now."""
    stored, found = self.stored_report(), self.found_now()
    if not found:
      return stored
    return dataclasses.replace(stored, of_folders=found.findings, form=found.form)

  def stored_report(self) -> DataReport:
    """Returns the report on the files that are prepared."""
    return DataReport.from_json(self.info.metadata[_REPORT])

  def _layout_splits(self, found: layout.Layout) -> Mapping[str, Iterable[Any]]:
    self._record = Examination(found)
    splits = {'train': found.train, 'validation': found.validation, 'test': found.test}
    within = self._range_of(found)
    return {k: self._generate_examples(items, k, within) for k, items in splits.items() if items}

  def _range_of(self, found: layout.Layout) -> value_range.Range:
    """Returns the range of deep values, and keeps it where there are some."""
    deep = value_range.deep_files(item.image for item in found.train)
    extents = value_range.training_extents(deep)
    within = value_range.resolve(self._within, extents)
    others = (item.image for item in (*found.validation, *found.test))
    if deep or value_range.deep_files(others):
      self.info.metadata[_EXTENTS] = value_range.to_json(value_range.merge(extents))
      self.info.metadata[_RANGE] = list(within)
    return within

  def _generate_splits(self, dl_manager: Any, download_config: Any) -> list[tfds.core.SplitInfo]:
    """Writes what can be used.

    Raises:
      UnusableError: training images cannot be, or there are none; all that is wrong is named.
    """
    splits = super()._generate_splits(dl_manager, download_config)
    report = self._record.report()
    if report.cases('no_training_images') or report.cases('training_file_unusable'):
      raise UnusableError(self.source, report)
    self.info.metadata[_REPORT] = report.to_json()
    return splits

  def _generate_examples(
    self, items: Sequence[layout.Item], split: str, within: value_range.Range
  ) -> Iterator[tuple[int, dict[str, Any]]]:
    for index, item in enumerate(self._progress(items, split)):
      try:
        made, examined = file_example(item, within, as_published=self.as_published)
      except UserError as error:
        self._record.fail(split, item, str(error))
      else:
        self._record.add(split, item, examined)
        yield index, made
