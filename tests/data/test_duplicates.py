"""Copies of normal images among test images are found, and photographs that look alike are not."""

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from patch_svdd_jax.data import Dataset, Split, duplicates
from patch_svdd_jax.data.duplicates import Duplicate

SIZE = (72, 90)
COUNT = 8


def photograph(rng, alike):
  """A part in a fixed position, with grain and its own texture, a weak one if `alike`."""
  rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
  part = 90 * (np.hypot(rows - 36, columns - 45) < 25)
  texture = ndimage.gaussian_filter(rng.normal(size=SIZE), 2)
  picture = 80 + part + (100 if alike else 200) * texture + rng.normal(scale=2, size=SIZE)
  return np.repeat(picture.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


def split_of(images, place):
  count = len(images)
  return Split(
    images=np.reshape(images, (count, *SIZE, 3)).astype(np.uint8),
    masks=np.zeros((count, *SIZE), bool),
    has_mask=np.ones(count, bool),
    labels=np.zeros(count, bool),
    defects=('good',) * count,
    names=tuple(f'{place}/{index}.png' for index in range(count)),
    sizes=np.full((count, 2), SIZE),
    appearance=np.zeros((count, 4), np.float32),
    digests=('',) * count,
  )


@pytest.fixture(params=[False, True], ids=['textures', 'fixed position'])
def dataset(request):
  rng = np.random.default_rng(0)
  images = [photograph(rng, request.param) for _ in range(2 * COUNT)]
  return Dataset(
    'parts',
    split_of(images[: COUNT - 2], 'train'),
    split_of(images[COUNT - 2 : COUNT], 'held_out'),
    split_of(images[COUNT:], 'test'),
  )


def compressed(image, quality):
  file = io.BytesIO()
  Image.fromarray(image).save(file, 'JPEG', quality=quality)
  return np.asarray(Image.open(file))


def resized(image, factor):
  there = (round(SIZE[1] * factor), round(SIZE[0] * factor))
  picture = Image.fromarray(image).resize(there, Image.Resampling.BILINEAR)
  return np.asarray(picture.resize(SIZE[::-1], Image.Resampling.BICUBIC))


def with_test_images(dataset, changed):
  images = dataset.test.images.copy()
  for index, image in changed.items():
    images[index] = image
  return dataclasses.replace(dataset, test=dataclasses.replace(dataset.test, images=images))


def test_photographs_that_look_alike_are_no_copies(dataset):
  assert duplicates.find(dataset) == []


@pytest.mark.parametrize(
  'copy',
  [
    np.array,
    lambda image: compressed(image, 95),
    lambda image: compressed(image, 75),
    lambda image: resized(image, 0.5),
    lambda image: resized(image, 1.5),
  ],
  ids=['pixels', 'quality 95', 'quality 75', 'half', 'larger'],
)
def test_copies_are_found(dataset, copy):
  changed = {1: copy(dataset.train.images[3]), 4: copy(dataset.held_out.images[0])}
  assert duplicates.find(with_test_images(dataset, changed)) == [
    Duplicate('test/1.png', 'train/3.png'),
    Duplicate('test/4.png', 'held_out/0.png'),
  ]


def test_all_test_images_are_copies(dataset):
  copies = dict(enumerate(dataset.train.images))
  found = duplicates.find(with_test_images(dataset, copies))
  assert [pair.normal for pair in found] == list(dataset.train.names)


def test_a_defect_makes_another_picture(dataset):
  image = dataset.train.images[0].copy()
  image[20:44, 30:60] = 0
  assert duplicates.find(with_test_images(dataset, {0: image})) == []


def test_images_without_content_are_copies_only_of_the_same_pixels():
  grey, other = np.full((1, *SIZE, 3), 90), np.full((1, *SIZE, 3), 91)
  none = split_of([], 'held_out')
  normal, test = split_of([grey], 'train'), split_of([grey, other], 'test')
  assert duplicates.find(Dataset('grey', normal, none, test)) == [
    Duplicate('test/0.png', 'train/0.png')
  ]


def test_nothing_to_compare(dataset):
  empty = split_of([], 'test')
  assert duplicates.find(dataclasses.replace(dataset, test=empty)) == []


def test_thumbnails_are_means_of_areas():
  grey = np.random.default_rng(0).integers(0, 256, (5, 7, 64), np.uint8)
  # Fewer rows than SIDE stay as they are; two columns each.
  expected = grey.reshape(5, 7, 32, 2).mean(axis=-1).reshape(5, -1)
  found = duplicates.thumbnails(np.repeat(grey[..., None], 3, axis=3))
  np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_warning_names_the_first():
  found = [Duplicate(f'test/{i}.png', f'train/{i}.png') for i in range(5)]
  assert duplicates.warn(found[:1]).startswith(
    '1 test image is a copy of normal images (test/0.png = train/0.png): '
  )
  text = duplicates.warn(found)
  assert text.startswith('5 test images are copies')
  assert 'test/2.png = train/2.png, ...' in text
  assert 'test/3.png' not in text
  assert '\n' not in text
