"""Pictures: what they show, their common colour scale, and that none is left half-written."""

import dataclasses
import fnmatch
import os
import unicodedata

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from PIL import Image
from scipy import ndimage
from skimage import data

from patch_svdd_jax.data import Split
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.reporting import overlays

OUTLINE = (255, 0, 200)


def make_split(defects, size=(256, 256)):
  """Images of one colour each, its red its number; anomalous ones have a square in the middle."""
  number = len(defects)
  labels = np.array([name != 'good' for name in defects])
  images = np.zeros((number, *size, 3), np.uint8)
  images[:] = np.stack([10 + np.arange(number), np.full(number, 99), np.full(number, 50)], 1)[
    :, None, None
  ]
  masks = np.zeros((number, *size), bool)
  masks[labels, size[0] // 4 : size[0] // 2, size[1] // 4 : size[1] // 2] = True
  names = tuple(f'test/{name}/{i:03d}.png' for i, name in enumerate(defects))
  return Split(
    images=images,
    masks=masks,
    has_mask=np.ones(number, bool),
    labels=labels,
    defects=tuple(defects),
    names=names,
    sizes=np.full((number, 2), size),
    appearance=np.zeros((number, 4), np.float32),
    digests=names,
  )


def read(path):
  return np.asarray(Image.open(path))


def contains(picture, pane):
  """Whether the picture contains the pane, pixel by pixel."""
  height, width = pane.shape[:2]
  rows, columns = picture.shape[0] - height + 1, picture.shape[1] - width + 1
  corners = (picture[:rows, :columns] == pane[0, 0]).all(-1)
  corners &= (picture[height - 1 :, width - 1 :] == pane[-1, -1]).all(-1)
  return any(
    (picture[y : y + height, x : x + width] == pane).all() for y, x in np.argwhere(corners)
  )


def has_colour(picture, colour):
  return bool((picture == colour).all(-1).any())


def maps_of(split, seed=0):
  return np.random.default_rng(seed).random(split.masks.shape, dtype=np.float32) + split.masks


def test_a_value_has_one_colour_in_all_pictures(tmp_path):
  split = make_split(['good', 'hole'])
  maps = maps_of(split)
  maps[1] *= 20  # its own scale would be another
  limits = overlays.colour_limits(maps)
  overlays.write_overlays(tmp_path, split, maps, limits)
  for i, name in enumerate(split.names):
    assert contains(read(tmp_path / name), overlays.colour(maps[i], limits))
  values, (low, high) = np.linspace(-1, 3, 100), (0.0, 2.0)
  expected = matplotlib.colormaps['inferno'](Normalize(low, high, clip=True)(values), bytes=True)
  colours = overlays.colour(values, (low, high))
  np.testing.assert_allclose(colours.astype(int), expected[:, :3].astype(int), atol=5)
  np.testing.assert_array_equal(colours[[0, -1]], expected[[0, -1], :3])


def test_a_layer_has_the_colours_and_hides_what_is_anomalous():
  values = np.linspace(-1, 3, 40).reshape(5, 8)
  layer = overlays.colour_layer(values, (0.0, 2.0))
  assert (layer.shape, layer.dtype) == ((5, 8, 4), np.uint8)
  np.testing.assert_array_equal(layer[..., :3], overlays.colour(values, (0.0, 2.0)))
  alpha = layer[..., 3].ravel().astype(int)
  assert (np.diff(alpha) >= 0).all()
  assert (alpha[0], alpha[-1]) == (0, round(0.9 * 255))


def test_limits_span_the_normal_pixels_and_the_defects():
  maps = np.arange(1000, dtype=np.float32).reshape(10, 10, 10)
  low, high = overlays.colour_limits(maps)
  assert low == pytest.approx(499.5)
  assert high == pytest.approx(998, abs=0.1)


def test_a_map_of_one_value_has_one_colour():
  maps = np.full((2, 4, 4), 0.5, np.float32)
  colours = overlays.colour(maps, overlays.colour_limits(maps))
  assert (colours == colours[0, 0, 0]).all()


def test_a_row_shows_the_image_its_outline_and_its_map(tmp_path):
  split = make_split(['good', 'hole'])
  maps = maps_of(split)
  overlays.write_overlays(tmp_path, split, maps, (0, 2))
  good, hole = (read(tmp_path / name) for name in split.names)
  assert contains(good, split.images[0])
  assert contains(hole, split.images[1])
  assert not has_colour(good, OUTLINE)
  assert has_colour(hole, OUTLINE)


def test_an_outline_surrounds_the_region_and_covers_none_of_it(tmp_path):
  split = make_split(['hole'])
  overlays.write_overlays(tmp_path, split, np.zeros(split.masks.shape), (0, 1))
  y, x = np.nonzero((read(tmp_path / split.names[0]) == OUTLINE).all(-1))
  # A square of 64 pixels, a pixel's distance, and a line of two: 70 pixels outside, 66 inside.
  assert (np.ptp(y) + 1, np.ptp(x) + 1) == (70, 70)
  assert len(y) == 70**2 - 66**2


@pytest.mark.parametrize('size', [(256, 256), (3, 256), (256, 2), (1, 1)])
def test_a_defect_all_over_the_image_is_outlined_along_its_edge(tmp_path, size):
  split = make_split(['hole'], size)
  split.masks[:] = True
  overlays.write_overlays(tmp_path, split, np.zeros(split.masks.shape), (0, 1))
  assert has_colour(read(tmp_path / split.names[0]), OUTLINE)


@pytest.mark.parametrize('size', [(64, 64), (1024, 512), (100, 700)])
def test_images_of_any_size_make_pictures_of_one_size(tmp_path, size):
  split = make_split(['hole'], size)
  overlays.write_overlays(tmp_path, split, maps_of(split), (0.0, 1.0))
  picture = read(tmp_path / split.names[0])
  height, width = (round(256 * side / max(size)) for side in size)
  assert picture.shape == (height, 4 * width + 3 * 4, 3)
  assert contains(picture, np.broadcast_to(split.images[0, 0, 0], (height, width, 3)))


def test_pictures_of_photographs_are_small_files(tmp_path):
  split = make_split(['hole'])
  split.images[0] = data.brick()[:256, :256, None]
  maps = ndimage.gaussian_filter(maps_of(split), (0, 8, 8))
  overlays.write_overlays(tmp_path, split, maps, overlays.colour_limits(maps))
  assert (tmp_path / split.names[0]).stat().st_size < 300_000


def test_the_overview_shows_the_extremes_of_each_type():
  defects = ['hole', 'good', 'hole', 'good', 'hole', 'good', 'crack', *'abcdef']
  split = make_split(defects)
  scores = np.array([0.5, 0.1, 0.9, 0.3, 0.7, 0.2, 0.6, *[0.4] * 6], np.float32)
  maps = np.zeros(split.masks.shape, np.float32)
  maps[0, :5] = 1
  *types, bar = overlays.draw_overview(split, maps, scores, (0, 1)).axes
  types = [axes for axes in types if axes.images]
  assert [axes.get_title('left') for axes in types][:3] == [
    'good\nhighest 0.3, lowest 0.1',
    *(f'{name}\nhighest 0.4' for name in 'ab'),
  ]
  [hole] = [axes for axes in types if axes.get_title('left').startswith('hole')]
  assert hole.get_title('left') == 'hole\nhighest 0.9, lowest 0.5'
  picture = hole.images[0].get_array()
  assert picture.shape == (2 * 144 + 4, 2 * 144 + 4, 3)
  left, right = picture[:144, :144], picture[:144, 148:]
  for pane, i in ((left, 2), (right, 0)):
    assert has_colour(pane, split.images[i, 0, 0])
    assert has_colour(pane, OUTLINE)
  below = overlays.panes_of(split.images[0], split.masks[0], maps[0], (0, 1), 144).overlay
  np.testing.assert_array_equal(picture[148:, 148:], below)
  assert bar.get_ylabel() == 'score'
  assert bar.get_ylim() == (0, 1)


def test_the_overview_is_a_file_whatever_types_are_called(tmp_path):
  names = ['good', 'a\nb', 'a\udcff', '名', '$x', '$a_$', 'x' * 200]
  split = make_split(names, (8, 8))
  scores = np.ones(len(names))
  figure = overlays.draw_overview(split, np.zeros(split.masks.shape), scores, (0.5, 0.5))
  titles = {axes.get_title('left').partition('\n')[0] for axes in figure.axes if axes.images}
  assert titles == {'good', 'a\ufffdb', 'a\ufffd', '名', '$x', '$a_$', '…' + 35 * 'x'}
  overlays.write_overview(tmp_path / 'a' / 'overview.png', figure)
  assert read(tmp_path / 'a' / 'overview.png').shape[1] > 4 * 288


def test_a_failure_leaves_neither_a_picture_nor_a_part_of_one(tmp_path, monkeypatch):
  split = make_split(['hole'])
  maps = maps_of(split)
  old = tmp_path / split.names[0]
  overlays.write_overlays(tmp_path, split, maps, (0, 1))
  before = old.read_bytes()

  def full(*_):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(os, 'replace', full)
  with pytest.raises(UserError, match='no space'):
    overlays.write_overlays(tmp_path, split, maps, (0, 1))
  with pytest.raises(UserError, match='no space'):
    overlays.write_overview(tmp_path / 'overview.png', Figure())
  assert [path for path in tmp_path.rglob('*') if path.is_file()] == [old]
  assert old.read_bytes() == before


def named(split, *names):
  return dataclasses.replace(split, names=names)


def test_images_that_differ_in_their_suffix_have_their_own_pictures(tmp_path):
  split = named(make_split(['good', 'good']), '000.png', '000.jpg')
  overlays.write_overlays(tmp_path, split, maps_of(split), (0, 1))
  assert sorted(path.name for path in tmp_path.iterdir()) == ['000.jpg.png', '000.png']


@pytest.mark.parametrize('name', ['../000.png', '/tmp/000.png'])
def test_no_picture_leaves_the_folder(tmp_path, name):
  split = named(make_split(['good']), name)
  with pytest.raises(ValueError, match='leads out of the folder'):
    overlays.write_overlays(tmp_path / 'pictures', split, maps_of(split), (0, 1))
  assert list(tmp_path.rglob('*.png')) == []


def test_maps_of_other_images_are_refused(tmp_path):
  split = make_split(['good', 'hole'])
  with pytest.raises(ValueError, match='not those of images'):
    overlays.write_overlays(tmp_path, split, maps_of(split)[:1], (0, 1))


FILES = {
  'usual': (['a.png', 'b.jpg', 'c/a.png'], ['a.png', 'b.jpg.png', 'c/a.png']),
  'suffixes': (['a.jpg', 'a.jpg.png', 'a.png'], ['a.jpg~*.png', 'a.jpg.png~*.png', 'a.png']),
  'case': (['A.png', 'a.png', 'b.png'], ['A.png~*.png', 'a.png~*.png', 'b.png']),
  'case of folders': (['X/a.png', 'x/a.png'], ['X/a.png~*.png', 'x/a.png~*.png']),
  'normal forms': (['\u00e9.png', 'e\u0301.png'], ['\u00e9.png~*.png', 'e\u0301.png~*.png']),
  'no suffix': (['nine', 'nine.png'], ['nine~*.png', 'nine.png~*.png']),
  'a folder in the way': (['a.jpg', 'a.jpg.png/b.png'], ['a.jpg~*.png', 'a.jpg.png/b.png']),
  'joined by a line': (['x/a.png', 'x_a.png'], ['x/a.png', 'x_a.png']),
}


@pytest.mark.parametrize('kind', FILES)
def test_no_two_images_share_the_file_of_a_picture(kind):
  names, expected = FILES[kind]
  paths = overlays.picture_paths(names)
  assert list(paths) == names
  for (name, path), pattern in zip(paths.items(), expected, strict=True):
    assert fnmatch.fnmatchcase(str(path), pattern)
    assert path in overlays.possible_paths(name)
  ignoring_case = {unicodedata.normalize('NFC', str(path)).casefold() for path in paths.values()}
  assert len(ignoring_case) == len(names)
  # Whatever else there is.
  assert overlays.picture_paths(names[::-1]) == paths
