"""Masks in every shape that people have them: read right, or said."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from patch_svdd_jax import data
from patch_svdd_jax.data import masks, report
from patch_svdd_jax.errors import UserError
from tests.support.categories import save

HEIGHT, WIDTH = 48, 40
DOT = np.zeros((HEIGHT, WIDTH), bool)
DOT[10:20, 12:24] = True


def photograph(*seed):
  return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
  """A folder whose one defective image has no mask yet."""
  for i in range(2):
    save(tmp_path / f'nuts/train/good/{i}.png', photograph(i))
  save(tmp_path / 'nuts/test/good/0.png', photograph(2))
  save(tmp_path / 'nuts/test/dent/0.png', photograph(3))
  return tmp_path / 'nuts'


@pytest.fixture
def load(folder, settings):
  return lambda: data.load(settings(root=str(folder), image_size=(HEIGHT, WIDTH)))


def kinds(loaded):
  return {finding.kind for finding in loaded.report.findings}


def put(path, content):
  path.parent.mkdir(parents=True, exist_ok=True)
  if path.suffix == '.npy':
    np.save(path, content)
  elif isinstance(content, bytes):
    path.write_bytes(content)
  else:
    Image.fromarray(content).save(path)


@pytest.mark.parametrize(
  'place',
  [
    *('ground_truth/dent/0_mask.png', 'ground_truth/dent/0.png', 'ground_truth/dent/0_gt.png'),
    *('ground_truth/dent/0_GT.bmp', 'ground_truth/dent/0-mask.tif', 'ground_truth/dent/0.MASK.png'),
    *('ground_truth/dent/0.png.png', 'ground_truth/Dent/0_mask.png', 'ground_truth/dent /0.png'),
    *('ground_truth/dent/0/000.png', 'ground_truth/dent/0/mask.png', 'ground_truth/dent/0.npy'),
    *('groundtruth/dent/0.png', 'ground-truth/dent/0.png', 'Ground_Truth/dent/0_mask.png'),
    *('masks/dent/0.png', 'Masks/dent/0.png', 'mask/dent/0.png', 'gt/dent/0.png', 'GT/dent/0.npy'),
    *('ground truth/dent/0.png', 'ground_truth /dent/0/0_mask.npy'),
  ],
)
def test_masks_are_found_where_their_meaning_is_clear(folder, load, place):
  put(folder / place, DOT)
  loaded = load()
  np.testing.assert_array_equal(loaded.test.masks[loaded.test.labels][0], DOT)
  assert loaded.test.has_mask.all()
  assert not loaded.report.of_weight('wrong', 'mind')


@pytest.mark.parametrize(
  ('place', 'kind'),
  [
    ('ground_truth/dent/00_mask.png', 'mask_without_image'),
    ('ground_truth/dent/mask_0.png', 'mask_without_image'),
    ('ground_truth/dents/0_mask.png', 'mask_without_image'),
    ('ground_truth/dent/1/0_mask.png', 'mask_without_image'),
    ('ground_truth/0_mask.png', 'wrong_level'),
    ('ground_truth/test/dent/0/0_mask.png', 'too_deep'),
    ('ground_truth/dent/0_mask.heic', 'mask_not_read'),
    ('ground_truth/dent/0_mask.svg', 'mask_not_read'),
    ('ground_truth/dent/0.json', 'mask_not_read'),
    ('ground_truth/dent/0.xml', 'mask_not_read'),
    ('ground_truth/dent/0.mat', 'mask_not_read'),
    ('ground_truth/dent/0.npz', 'mask_not_read'),
    ('ground_truth/dent/0', 'mask_not_read'),
    ('annotations/dent/0_mask.png', 'folder_beside'),
    ('labels/dent/0.png', 'folder_beside'),
  ],
)
def test_masks_whose_meaning_is_not_clear_are_said(folder, load, place, kind):
  content = io.BytesIO()
  Image.fromarray(DOT).save(content, 'PNG')
  put(folder / place, content.getvalue())
  loaded = load()
  assert kind in kinds(loaded)
  assert any(place.split('/')[0] in line for line in loaded.report.lines())
  assert not loaded.test.has_mask[loaded.test.labels].any()


def test_masks_beside_those_in_ground_truth_are_said(folder, load):
  put(folder / 'ground_truth/dent/0.png', DOT)
  put(folder / 'masks/dent/0.png', ~DOT)
  loaded = load()
  assert kinds(loaded) == {'masks_elsewhere'}
  np.testing.assert_array_equal(loaded.test.masks[0], DOT)


def jpeg(array):
  content = io.BytesIO()
  Image.fromarray(array).save(content, 'JPEG', quality=75)
  return content.getvalue()


def noisy():
  """A mask that was a JPEG once: traces around its edge are not black."""
  return np.asarray(Image.open(io.BytesIO(jpeg(DOT.astype(np.uint8) * 255))))


def painted(opacity):
  return np.dstack([np.repeat(DOT[..., None] * np.uint8(255), 3, -1), opacity])


EMPTY = np.zeros((HEIGHT, WIDTH), np.uint8)
BORDERED = np.ones((HEIGHT, WIDTH), bool)
BORDERED[20:25, 15:25] = False
SPECK = EMPTY.copy()
SPECK[5, 5:8] = 255


@pytest.mark.parametrize(
  ('suffix', 'content', 'kind', 'read'),
  [
    ('png', EMPTY, 'mask_empty', None),
    ('npy', EMPTY, 'mask_empty', None),
    ('bmp', EMPTY, 'mask_empty', None),
    ('png', painted(EMPTY), 'mask_empty', None),
    ('png', painted(EMPTY + 255) * np.uint8([0, 0, 0, 1]), 'mask_empty', None),
    ('jpg', jpeg(DOT.astype(np.uint8)), 'mask_empty', None),
    ('png', ~DOT, 'mask_inverted', ~DOT),
    ('png', BORDERED.astype(np.uint8), 'mask_inverted', BORDERED),
    ('npy', ~DOT, 'mask_inverted', ~DOT),
    ('jpg', jpeg((~DOT).astype(np.uint8) * 255), 'mask_inverted', None),
    ('png', EMPTY + 255, 'mask_full', DOT | True),
    ('png', DOT + np.uint8(1), 'mask_full', DOT | True),
    ('png', SPECK, 'mask_tiny', SPECK > 0),
    ('npy', SPECK, 'mask_tiny', SPECK > 0),
    ('png', noisy(), 'mask_grey', noisy() > 0),
    ('png', DOT * (photograph(9)[..., 0] // 3 + 1), 'mask_grey', None),
    ('jpg', jpeg(DOT.astype(np.uint8) * 255), 'mask_jpeg', DOT),
    ('png', DOT.astype(np.uint8), 'mask_labels', DOT),
    ('png', DOT.astype(np.uint8) * 3, 'mask_labels', DOT),
    ('tif', DOT.astype(np.uint16), 'mask_labels', DOT),
  ],
)
def test_odd_masks_are_read_right_or_said(folder, load, suffix, content, kind, read):
  put(folder / f'ground_truth/dent/0_mask.{suffix}', content)
  loaded = load()
  assert kind in kinds(loaded)
  [finding] = [each for each in loaded.report.findings if each.kind == kind]
  assert finding.number == 1
  assert 'dent/0' in finding.text()
  assert (finding.text() in loaded.report.lines()) == (finding.weight != 'note')
  if kind == 'mask_empty':
    assert not loaded.test.has_mask[0]
    assert loaded.report.groups[-1].masks == 0
  elif read is not None:
    np.testing.assert_array_equal(loaded.test.masks[0], read)


@pytest.mark.parametrize(
  ('suffix', 'content'),
  [
    ('png', DOT),
    ('png', DOT.astype(np.uint8) * 255),
    ('tif', DOT.astype(np.uint16) * 65535),
    ('png', painted(EMPTY + 255)),
    ('png', np.where(DOT, 255, 0).astype(np.uint8)),
    ('npy', DOT.astype(np.int64)),
    ('npy', DOT[None]),
    ('npy', DOT[..., None].astype(np.uint8) * 255),
  ],
)
def test_ordinary_masks_are_read_without_a_word(folder, load, suffix, content):
  put(folder / f'ground_truth/dent/0_mask.{suffix}', content)
  loaded = load()
  np.testing.assert_array_equal(loaded.test.masks[0], DOT)
  assert not loaded.report.findings


def test_smooth_edges_are_no_oddity(folder, load):
  large = Image.fromarray(DOT.astype(np.uint8) * 255).resize((400, 480), Image.Resampling.NEAREST)
  save(folder / 'test/dent/0.png', np.zeros((480, 400, 3), np.uint8))
  put(folder / 'ground_truth/dent/0.png', np.asarray(large.filter(ImageFilter.GaussianBlur(1))))
  assert not load().report.findings


@pytest.mark.parametrize(
  ('name', 'content', 'words'),
  [
    ('0.npy', np.zeros((HEIGHT, WIDTH)), 'holds float64'),
    ('0.npy', np.zeros((2, HEIGHT, WIDTH), bool), 'has the shape'),
    ('0.npy', np.array([{'a': 1}], dtype=object), 'no array of numpy'),
    ('0.npy', DOT.T, 'make them the same size'),
    ('0.png', DOT.T, 'make them the same size'),
    ('0.png', DOT[:-1], 'make them the same size'),
  ],
)
def test_masks_that_cannot_be_used_are_named(folder, load, name, content, words):
  put(folder / 'ground_truth/dent' / name, content)
  loaded = load()
  assert loaded.test.names == ('test/good/0.png',)
  assert words in report.unusable(loaded.report)
  assert name in report.unusable(loaded.report)


@pytest.mark.parametrize(
  'names',
  [
    ('0_mask.png', '0_mask.bmp'),
    ('0_mask.png', '0.png'),
    ('0_gt.png', '0.npy'),
    ('0.png.png', '0_mask.png'),
    ('0/0.png', '0_mask.png'),
  ],
)
def test_several_masks_are_never_chosen_of(folder, load, names):
  for name in names:
    put(folder / 'ground_truth/dent' / name, DOT)
  assert 'has several masks' in report.unusable(load().report)


def test_several_masks_in_a_folder_are_joined(folder, load):
  put(folder / 'ground_truth/dent/0/000.png', np.pad(DOT[:, :20], ((0, 0), (0, 20))))
  put(folder / 'ground_truth/dent/0/001.npy', np.pad(DOT[:, 20:], ((0, 0), (20, 0))))
  loaded = load()
  np.testing.assert_array_equal(loaded.test.masks[0], DOT)
  assert kinds(loaded) == {'masks_joined'}


def test_images_that_share_a_mask_are_said(folder, load):
  save(folder / 'test/dent/0.bmp', photograph(4))
  put(folder / 'ground_truth/dent/0_mask.png', DOT)
  assert 'mask_shared' in kinds(load())


@pytest.mark.parametrize('name', ['0_mask.png', '0_gt.png', '0-mask.tif'])
def test_masks_among_test_images_are_no_images(folder, load, name):
  put(folder / 'test/dent' / name, DOT)
  loaded = load()
  assert loaded.test.names == ('test/dent/0.png', 'test/good/0.png')
  assert f'{name}: looks like the mask of an image' in report.unusable(loaded.report)


def test_masks_that_vanish_when_they_are_resized(folder, settings):
  put(folder / 'ground_truth/dent/0_mask.png', SPECK)
  loaded = data.load(settings(root=str(folder), image_size=(6, 5)))
  assert kinds(loaded) == {'mask_tiny', 'mask_vanishes'}


@pytest.mark.parametrize('share', [0.4, 0.6])
def test_a_large_defect_that_leaves_the_border_is_not_called_inverted(share):
  side = int((share * 10000) ** 0.5)
  mask = np.zeros((100, 100), bool)
  mask[10 : 10 + side, 10 : 10 + side] = True
  assert masks.judge(mask) is None


def test_an_array_that_would_run_code_is_refused(tmp_path):
  path = tmp_path / '0.npy'
  np.save(path, np.array([print], dtype=object))
  with pytest.raises(UserError, match='no array of numpy'):
    masks.decode(path.read_bytes(), path)
