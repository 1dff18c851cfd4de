"""Data sets as arrays: published ones, any folder or list of one's own, an embedded one.

`load(config.data)` is all that the rest of the package needs. TFDS is imported when it is called.
"""

import contextlib
import dataclasses
import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import ml_collections
import numpy as np

from patch_svdd_jax.data import (
  appearance,
  categories,
  contamination,
  held_out,
  image_size,
  lighting,
  region,
  report,
  value_range,
)
from patch_svdd_jax.data.dataset import Dataset, Split, regions_of
from patch_svdd_jax.data.report import Case, DataReport
from patch_svdd_jax.system import batching

if TYPE_CHECKING:
  from patch_svdd_jax.data.builder import Builder

  Builders = dict[str, Builder]

__all__ = ['Dataset', 'Split', 'load', 'regions_of']


def load(config: ml_collections.ConfigDict) -> Dataset:
  """Loads a category, which is prepared first if it is not yet or its files have changed.

  Args:
    config: with the keys
      name: of a published data set, see `catalogue`; 'folder' or 'textures'.
      category: a category of the data set, 'all' where it has none; for 'folder' a sub-folder of
        root, or '' for root; 'multiclass' for all that are there, as one data set.
      root: published: the official archive or the folder it is extracted to, '' once prepared;
        folder: see `recognition`; textures: unused. One in a bucket is mirrored, see `mirror`.
      prepared: folder for the prepared files; '' for `files.cache_folder`; where it is in a bucket,
        what is prepared is shared there, see `shared_entries`.
      cache_gib: GiB that this folder may have, see `prepared.prepare`.
      image_size: (height, width) in pixels that all images are resized to; what a 0 means, see
        `image_size`.
      value_range: (black, white) of files of more than 8 bits a channel, () for what the training
        images make it, see `value_range`.
      resize: 'nearest', 'box', 'bilinear', 'bicubic' or 'lanczos'; masks are always nearest.
      light: 'kept', or 'standardised' in every image by itself.
      region: a PNG that is white where images are judged, or a folder of one for each image, see
        `region`; '' for all of all images.
      normal_images: how many of those that are not held out are trained on; 0 for all.
      held_out: share of the normal images that is kept from training, see `held_out.divide`; where
        the data set has validation images, any share but 0 means these.
      contamination: defective test images for each normal one that is trained on, which are moved
        among these, see `contamination.mix`.
      contamination_overlap: whether the moved ones are tested all the same.

  Returns:
    The training, held-out and test images.

  Raises:
    UnusableError: where training images cannot be used; it names them all.
    UserError: where a setting is at fault.
  """
  from patch_svdd_jax.data import prepared, sources  # import TFDS, which takes a second

  several = config.category == categories.MULTICLASS
  names = sources.present(config) if several else [config.category]
  folder, bound = sources.prepared_folder(config), config.cache_gib * 2**30
  shared = sources.prepared_store(config)

  def prepare(config: ml_collections.ConfigDict, kept: contextlib.ExitStack) -> 'Builders':
    return {
      name: kept.enter_context(
        prepared.prepare(sources.builder_factory(of_category(config, name)), folder, bound, shared)
      )
      for name in names
    }

  with contextlib.ExitStack() as kept:
    builders = prepare(config, kept)
    extents = [each for builder in builders.values() for each in builder.training_extents]
    within = value_range.resolve(config.value_range, extents)
    if several and extents:
      # Each by itself was read by its own range. What is prepared anew must not be in use.
      kept.close()
      config = config.copy_and_resolve_references()
      config.value_range = within
      builders = prepare(config, kept)
    size = tuple(config.image_size)
    if not all(size):
      own = [prepared.read_sizes(builder, 'train') for builder in builders.values()]
      size = image_size.resolve(size, np.concatenate(own))

    def read(split: str) -> dict[str, Split]:
      return {
        name: prepared.read_split(builder, split, size, config.resize)
        for name, builder in builders.items()
      }

    parts = {split: read(split) for split in ('train', 'validation')}
    start = time.perf_counter()
    parts['test'] = read('test')
    decoding = time.perf_counter() - start
    reports = {name: builder.report() for name, builder in builders.items()}
    light_of = builders[names[0]].lighting
  for name in names:
    splits = {split: each[name] for split, each in parts.items()}
    for split, complete in region.with_regions(splits, of_category(config, name)).items():
      start = time.perf_counter()
      # Regions come first: light is standardised, and described, by them.
      parts[split][name] = light(complete, config)
      if split == 'test':
        decoding += time.perf_counter() - start
  normal, validation, test = (
    categories.combine(each) if several else each[names[0]] for each in parts.values()
  )
  dataset = assemble(sources.title(config, config.category), normal, test, config, validation)
  found = report.combine(reports) if several else reports[names[0]]
  lights = tuple(map(light_of, dataset.test.names))
  return dataclasses.replace(
    dataset,
    categories=tuple(names) if several else (),
    lights=lights if any(lights) else (),
    report=with_vanished(found, test),
    value_range=within,
    decode_seconds=decoding / len(test) if test else None,
  )


def inspect(config: ml_collections.ConfigDict) -> tuple[DataReport, Dataset | None]:
  """Reports on a category, which is prepared as for `load` if nothing forbids it.

  Args:
    config: as for `load`.

  Returns:
    The report, and the data set if it can be used.

  Raises:
    UserError: where a setting is at fault.
  """
  try:
    dataset = load(config)
  except report.UnusableError as error:
    return error.report, None
  return dataset.report, dataset


def with_vanished(found: DataReport, test: Split) -> DataReport:
  """Adds the masks of which nothing is left at the size that the test images are resized to."""
  gone = test.labels & test.has_mask & ~test.masks.any(axis=(1, 2))
  empty = {case.name for case in found.cases('mask_empty_as_published')}
  names = [test.names[index] for index in np.flatnonzero(gone)]
  cases = [('mask_vanishes', Case(name)) for name in names if name not in empty]
  return dataclasses.replace(found, of_files=(*found.of_files, *report.findings(cases)))


def resolved(config: ml_collections.ConfigDict, dataset: Dataset) -> ml_collections.ConfigDict:
  """Returns the whole config, with what it leaves to the training images of a data set."""
  config = image_size.resolved(config, dataset.train.images.shape[1:3])
  return value_range.resolved(config, dataset.value_range)


def of_category(config: ml_collections.ConfigDict, category: str) -> ml_collections.ConfigDict:
  """Returns the settings for another category."""
  changed = config.copy_and_resolve_references()
  changed.category = category
  return changed


def assemble(
  name: str,
  normal: Split,
  test: Split,
  config: ml_collections.ConfigDict,
  validation: Split | None = None,
) -> Dataset:
  """Returns a data set of images that are resized and lit.

  Args:
    name: of the data set and its category.
    normal: images to train on, and to hold some out of.
    test: images to score.
    config: as for `load`.
    validation: normal images that are held out instead, if there are any.
  """
  warn_of_stretched(normal, [part for part in (normal, validation, test) if part])
  if validation and config.held_out:
    train, held = normal, validation
  else:
    train, held = held_out.divide(normal, config.held_out)
  if config.normal_images:
    train = train.take(batching.evenly_spaced(len(train), config.normal_images))
  train, rest = contamination.mix(train, test, config.contamination)
  tested = test if config.contamination_overlap else rest
  return Dataset(name=name, train=train, held_out=held, test=tested)


def warn_of_stretched(normal: Split, parts: Sequence[Split]) -> None:
  """Logs which images of some parts have another aspect ratio than the normal ones."""
  if not len(normal):
    return
  sizes = np.concatenate([part.sizes for part in parts])
  names = [name for part in parts for name in part.names]
  aspect = image_size.median_aspect(normal.sizes)
  if text := image_size.stretch_summary(aspect, sizes, names):
    logging.getLogger(__name__).warning('%s', text)


def light(split: Split, config: ml_collections.ConfigDict) -> Split:
  """Returns the split in the light that `config.light` asks for; of regions, by these alone."""
  if split.regions is not None:
    looks = np.empty_like(split.appearance)
    for index, (image, region) in enumerate(zip(split.images, split.regions, strict=True)):
      looks[index] = appearance.image_statistics(image, region)
    split = dataclasses.replace(split, appearance=looks)
  if config.light == 'kept':
    return split
  return dataclasses.replace(split, images=lighting.standardise(split.images, split.regions))
