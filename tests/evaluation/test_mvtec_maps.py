"""Maps on disk, read and measured as the definition of AU-PRO says, file by file."""

import numpy as np
import pytest
import tifffile
from PIL import Image
from skimage import measure, transform

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.evaluation import metrics, mvtec_maps
from patch_svdd_jax.evaluation.ranking import rank_pixels, take_pixels
from tests.support.categories import save

SIZE = (24, 30)
NAMES = ('test/good/000.png', 'test/good/001.png', 'test/hole/000.png', 'test/cut/000.png')


def draw(size=(12, 15)):
  """Maps f32[4, *size], and masks bool[4, *SIZE] of two regions in one image and one in another."""
  rng = np.random.default_rng(0)
  masks = np.zeros((4, *SIZE), bool)
  masks[2, 3:9, 4:12] = masks[2, 9:12, 12:15] = True  # one region: they touch at a corner
  masks[2, 16:20, 20:29] = True
  masks[3, 12:15, :] = True
  maps = rng.random((4, *size)) + 0.7 * np.stack([transform.resize(each, size) for each in masks])
  return maps.astype(np.float32), masks


def resized(maps, size):
  """Pixels are squares, whose centres are where the values are."""
  options = {'order': 1, 'mode': 'edge', 'anti_aliasing': False}
  return np.stack([transform.resize(each.astype(np.float64), size, **options) for each in maps])


def aupro_of_folder(data, maps, limits):
  """Bergmann et al. 2021, section 5.3: every threshold in turn, on files alone."""
  regions, normal = [], []
  for path in sorted(maps.glob('test/*/*.tiff')):
    scores = tifffile.imread(path)
    truth = data / 'ground_truth' / path.parent.name / f'{path.stem}_mask.png'
    mask = np.asarray(Image.open(truth)) > 0 if truth.exists() else np.zeros(scores.shape, bool)
    labels = measure.label(mask, connectivity=2)
    regions += [scores[labels == number] for number in range(1, labels.max() + 1)]
    normal.append(scores[~mask])
  normal = np.concatenate(normal)
  thresholds = np.unique(np.concatenate([normal, *regions]))[::-1]
  rates = [0.0, *(np.mean(normal >= threshold) for threshold in thresholds)]
  overlaps = [0.0]
  overlaps += [
    np.mean([np.mean(each >= threshold) for each in regions]) for threshold in thresholds
  ]
  return len(regions), [area(np.array(rates), np.array(overlaps), limit) for limit in limits]


def area(rates, overlaps, limit):
  """Under the curve up to the limit, as a share."""
  inside = rates <= limit
  # Of several overlaps at one rate np.interp takes the last, at which the curve leaves it.
  x = np.append(rates[inside], limit)
  y = np.append(overlaps[inside], np.interp(limit, rates, overlaps))
  return np.trapezoid(y, x) / limit


def test_the_folder_has_the_aupro_of_the_maps(tmp_path):
  maps, masks = draw()
  mvtec_maps.write(tmp_path / 'maps/tile', NAMES, maps, np.array([SIZE] * 4))
  for name, mask in zip(NAMES, masks, strict=True):
    if mask.any():
      _, defect, file = name.split('/')
      path = tmp_path / 'tile/ground_truth' / defect / file.replace('.png', '_mask.png')
      save(path, mask.astype(np.uint8) * 255)
  limits = (0.3, 0.05, 1.0)
  count, areas = aupro_of_folder(tmp_path / 'tile', tmp_path / 'maps/tile', limits)
  assert count == 3
  for limit, expected in zip(limits, areas, strict=True):
    found = metrics.aupro(rank_pixels([take_pixels(masks, resized(maps, SIZE))]), limit)
    assert found == pytest.approx(expected, rel=1e-4)
    assert 0.1 < found < 1


def test_every_map_has_its_image_size(tmp_path):
  maps, _ = draw()
  sizes = np.array([(24, 30), (50, 41), (12, 15), (13, 100)])
  mvtec_maps.write(tmp_path, NAMES, maps, sizes)
  for name, each, size in zip(NAMES, maps, sizes, strict=True):
    found = tifffile.imread((tmp_path / name).with_suffix('.tiff'))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, resized(each[None], size)[0], rtol=1e-5)
  assert len(list(tmp_path.rglob('*.*'))) == 4  # nothing unfinished


@pytest.mark.parametrize('other', ['test/good/1.jpg', 'test/GOOD/1.png', 'test/good/1.PNG'])
def test_images_that_would_share_a_map(tmp_path, other):
  maps, _ = draw()
  names = ['test/good/1.png', other]
  with pytest.raises(UserError, match=r'good/1\.png and .* would have one map, .*1\.tiff: rename'):
    mvtec_maps.write(tmp_path, names, maps, np.ones((2, 2), int))
  assert not list(tmp_path.iterdir())


def test_maps_of_images_that_are_gone_go(tmp_path):
  maps, _ = draw()
  sizes = np.array([SIZE] * 4)
  mvtec_maps.write(tmp_path, NAMES, maps, sizes)
  notes, other = tmp_path / 'test/hole/notes.txt', tmp_path / 'screw/test/good/000.tiff'
  for path in (notes, other):  # nor are maps of other categories looked at
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('mine')
  mvtec_maps.write(tmp_path, NAMES[:3], maps[:3], sizes[:3])
  assert {path for path in tmp_path.rglob('*') if path.is_file()} == {
    notes,
    other,
    *((tmp_path / name).with_suffix('.tiff') for name in NAMES[:3]),
  }


@pytest.mark.parametrize('name', ['test/good/000.tiff', 'test/gone/7.tiff'])
@pytest.mark.parametrize('content', [b'no TIFF', b''])
def test_maps_of_others_are_refused(tmp_path, name, content):
  maps, _ = draw()
  sizes = np.array([SIZE] * 4)
  mvtec_maps.write(tmp_path, NAMES, maps, sizes)
  path = tmp_path / name
  path.parent.mkdir(exist_ok=True)
  if content:
    path.write_bytes(content)
  else:
    tifffile.imwrite(path, maps[0])
  before = {each: each.read_bytes() for each in tmp_path.rglob('*.tiff')}
  with pytest.raises(UserError, match=f'{name} is not known to be of an evaluation: move it, or'):
    mvtec_maps.write(tmp_path, NAMES, maps, sizes)
  assert {each: each.read_bytes() for each in tmp_path.rglob('*.tiff')} == before


def test_a_folder_that_cannot_be_written(tmp_path):
  maps, _ = draw()
  (tmp_path / 'test').write_text('a file')
  with pytest.raises(UserError, match=r'cannot write .*test.*: a file has the name of a folder'):
    mvtec_maps.write(tmp_path, NAMES, maps, np.array([SIZE] * 4))
