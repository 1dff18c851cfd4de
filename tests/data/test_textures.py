import os
import subprocess
import sys

import numpy as np
import pytest

from patch_svdd_jax import data
from patch_svdd_jax.data import defects, textures


@pytest.fixture(scope='module')
def photographs():
  return textures.photographs()


@pytest.fixture(scope='module')
def loaded(tmp_path_factory):
  """All three categories at their own size."""
  import ml_collections

  place = tmp_path_factory.mktemp('prepared')
  config = ml_collections.ConfigDict(
    {
      'name': 'textures',
      'category': '',
      'root': '',
      'prepared': str(place),
      'image_size': (textures.SIZE, textures.SIZE),
      'resize': 'bicubic',
      'value_range': (),
      'light': 'kept',
      'normal_images': 0,
      'held_out': 0.0,
      'cache_gib': 1.0,
      'region': '',
      'region_share': 0.5,
      'contamination': 0.0,
      'contamination_overlap': False,
    }
  )
  sets = {}
  for category in textures.CATEGORIES:
    config.category = category
    sets[category] = data.load(config)
  return sets


def find(photograph, image):
  """All (top, left) where the photograph equals u8[h, w] image exactly."""
  height, width = image.shape
  views = np.lib.stride_tricks.sliding_window_view(photograph, (height, width))
  candidates = np.argwhere((views[:, :, 0, :16] == image[0, :16]).all(axis=-1))
  return [tuple(c) for c in candidates if (views[tuple(c)] == image).all()]


@pytest.mark.parametrize('category', textures.CATEGORIES)
def test_counts_and_kinds(loaded, category):
  dataset = loaded[category]
  assert dataset.name == f'textures/{category}'
  assert dataset.train.images.shape == (100, 128, 128, 3)
  assert not dataset.train.labels.any()
  assert set(dataset.train.defects) == {'good'}
  test = dataset.test
  counts = {kind: test.defects.count(kind) for kind in test.defects}
  assert counts.pop('good') == 20
  assert len(counts) >= 5
  assert set(counts.values()) == {6}
  assert test.has_mask.all()
  np.testing.assert_array_equal(test.masks.any(axis=(1, 2)), test.labels)


@pytest.mark.parametrize('category', textures.CATEGORIES)
def test_no_test_pixel_occurs_in_training(loaded, photographs, category):
  """Plain crops are found in the photograph by their pixels; the regions must not touch."""
  photograph = photographs[category]
  seen = np.zeros((2, 512, 512), bool)
  dataset = loaded[category]
  for k, split in enumerate((dataset.train, dataset.test)):
    for image in split.images[~split.labels]:
      (corner,) = find(photograph, image[..., 0])
      seen[k, corner[0] : corner[0] + 128, corner[1] : corner[1] + 128] = True
  assert seen[0].any()
  assert seen[1].any()
  assert not (seen[0] & seen[1]).any()


@pytest.mark.parametrize('category', textures.CATEGORIES)
def test_defects_differ_from_a_test_crop_inside_their_mask_only(loaded, photographs, category):
  first, last = textures.TEST_COLUMNS
  region = photographs[category][:, first:last]
  views = np.lib.stride_tricks.sliding_window_view(region, (128, 128))
  test = loaded[category].test
  for image, mask in zip(test.images[test.labels], test.masks[test.labels], strict=True):
    assert (image == image[..., :1]).all()
    outside = ~mask
    rows = np.flatnonzero(outside.all(axis=1))[:1]  # a row without any defect places the crop
    matches = (views[:, :, rows[0]] == image[rows[0], :, 0]).all(axis=-1)
    (corner,) = np.argwhere(matches)
    changed = views[tuple(corner)] != image[..., 0]
    assert not (changed & outside).any()
    assert changed[mask].mean() > 0.7
    assert 100 < mask.sum() < 0.12 * mask.size


def test_all_clean_test_crops_differ(photographs):
  crops = textures.clean_test_crops('grass', photographs['grass'])
  assert len({crop.tobytes() for crop in crops.values()}) == len(crops) == 62


@pytest.mark.parametrize('kind', ['blurred', 'coarse', 'foreign', 'smeared'])
def test_structural_defects_keep_the_brightness(photographs, kind):
  """No threshold on brightness may find them: the mean moves little beside the texture's spread."""
  rng = np.random.default_rng(5)
  for category, other in (('grass', 'brick'), ('gravel', 'grass')):
    photograph = photographs[category]
    moves = []
    for i in range(8):
      image = photograph[40 * i : 40 * i + 128, 200:328]
      changed, mask = defects.add_defect(rng, kind, image, photographs[other])
      moves.append(changed[mask].mean() - image[mask].mean())
    assert np.abs(moves).max() < 0.3 * photograph.std()


@pytest.mark.parametrize('kind', defects.KINDS)
def test_a_defect_is_a_function_of_its_seed(photographs, kind):
  image, other = photographs['gravel'][:128, 200:328], photographs['brick']
  untouched = image.copy()

  def draw(seed):
    return defects.add_defect(np.random.Generator(np.random.PCG64(seed)), kind, image, other)

  for a, b in zip(draw(1), draw(1), strict=True):
    np.testing.assert_array_equal(a, b)
  assert (draw(1)[1] != draw(2)[1]).any()
  np.testing.assert_array_equal(image, untouched)


def test_preparing_again_gives_the_same_images(loaded, tmp_path, settings):
  again = data.load(
    settings(name='textures', category='brick', image_size=(128, 128), prepared=str(tmp_path))
  )
  np.testing.assert_array_equal(again.test.images, loaded['brick'].test.images)
  np.testing.assert_array_equal(again.test.masks, loaded['brick'].test.masks)
  np.testing.assert_array_equal(again.train.images, loaded['brick'].train.images)


def test_the_photographs_need_no_network_and_no_pooch():
  code = """
import socket, sys
sys.modules['pooch'] = None
def refuse(*args, **kwargs):
  raise AssertionError('network')
socket.socket.connect = refuse
from patch_svdd_jax.data import textures
for photograph in textures.photographs().values():
  assert photograph.shape == (512, 512) and photograph.dtype == 'uint8'
"""
  subprocess.run([sys.executable, '-c', code], check=True, env=dict(os.environ))
