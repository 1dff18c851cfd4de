"""Regions of images that are judged: the detector's, or those of files near each image."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from patch_svdd_jax.configs import default
from patch_svdd_jax.data import arrays, image_stream
from patch_svdd_jax.data.file_search import Source
from patch_svdd_jax.errors import UserError

SIZE = (16, 16)
LEFT = np.zeros(SIZE, bool)
LEFT[:, :8] = True


def config(**settings):
  data = default.get_config().data
  data.update({'image_size': SIZE, **settings})
  return data


def save(path, array):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(array).save(path)


@pytest.fixture
def image(tmp_path):
  path = tmp_path / 'new' / '001.png'
  save(path, np.random.default_rng(0).integers(0, 255, (*SIZE, 3), np.uint8))
  return Source('new/001.png', path)


@pytest.mark.parametrize('place', ['new/roi/001.png', 'roi/new/001.png'])
def test_the_region_of_an_image_lies_beside_it_or_above(image, tmp_path, place):
  save(tmp_path / place, np.uint8(255 * LEFT))
  split = image_stream.read(image, config(region='roi', light='standardised'))
  np.testing.assert_array_equal(split.regions, LEFT[None])
  # It is lit and described by its region alone.
  changed = np.array(Image.open(image.path))
  changed[:, 8:] = 0
  save(image.path, changed)
  again = image_stream.read(image, config(region='roi', light='standardised'))
  np.testing.assert_array_equal(again.images[:, :, :8], split.images[:, :, :8])
  np.testing.assert_array_equal(again.appearance, split.appearance)


def test_an_image_without_its_region_is_a_failure_that_says_where_it_was_looked_for(image):
  (batch,) = image_stream.batches([image], 4, config(region='roi'))
  assert batch.split is None
  ((source, why),) = batch.failures
  assert source == image
  assert f'{image.path.parent}/roi/001.png, and beside the folders above' in why


def test_the_detectors_region_needs_no_file(image):
  (batch,) = image_stream.batches([image], 4, config(region='region.png'), LEFT)
  np.testing.assert_array_equal(batch.split.regions, LEFT[None])
  assert batch.split.fixed_region is not None
  (batch,) = image_stream.batches([image], 4, config())
  assert batch.split.regions is None


def test_arrays_have_the_regions_that_are_given_or_the_detectors():
  data = config(light='standardised')
  split = arrays.resized([np.zeros((*SIZE, 3), np.uint8)] * 2, data, ['a', 'b'])
  assert arrays.lit(split, data).regions is None
  np.testing.assert_array_equal(arrays.lit(split, data, fixed=LEFT).regions, [LEFT, LEFT])
  given = arrays.lit(split, data, [LEFT, ~LEFT], fixed=LEFT)
  np.testing.assert_array_equal(given.regions, [LEFT, ~LEFT])
  np.testing.assert_array_equal(given.region_of(1), ~LEFT)
  with pytest.raises(UserError, match='3 regions for 2 images'):
    arrays.lit(split, data, [LEFT] * 3)
  assert dataclasses.replace(split, regions=None).region_of(0) is None
