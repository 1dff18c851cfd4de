"""The files of a submission: encoded exactly, read by others, and refused by each rule."""

import tarfile

import numpy as np
import pytest
import tifffile
from PIL import Image

from patch_svdd_jax.data import private_splits
from patch_svdd_jax.detection import calibration
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.evaluation import submission
from patch_svdd_jax.evaluation.submission import MAPS, THRESHOLDED
from tests.data import downloads
from tests.support.categories import HEIGHT, WIDTH

LEVEL = 0.5
LARGEST = float(np.finfo(np.float16).max)


def calibrated(highest):
  maps = np.linspace(0, highest, 50, dtype=np.float32).reshape(2, 5, 5)
  return calibration.calibrate(maps.max(axis=(1, 2)), maps, {})


@pytest.mark.parametrize('highest', [3e-9, 0.7, 1.0, 123.0, 4e12])
def test_normal_values_fill_the_range_of_float16(highest):
  scale, level = submission.encoding(calibrated(highest), 0.9 * highest)
  assert 0.5 <= scale * np.float32(highest) < 1
  assert np.frexp(scale)[0] == 0.5  # a power of two: multiplying by it rounds nothing
  # No float16 lies between the level and the threshold.
  assert (
    np.float16(level)
    == level
    <= scale * 0.9 * highest
    < np.nextafter(np.float16(level), np.float16(1))
  )


def test_maps_of_nothing_are_not_scaled():
  assert submission.encoding(calibrated(0.0), 0.0) == (1.0, 0.0)


def test_order_and_verdicts_survive_float16():
  rng = np.random.default_rng(0)
  values = rng.lognormal(0, 3, (40, 50)).astype(np.float32)
  found = submission.encoding(calibrated(7.0), 5.0)
  encoded = submission.encode(values, values.shape, found.scale)
  assert encoded.dtype == np.float16
  order = np.argsort(values, axis=None)
  assert (np.diff(encoded.ravel()[order]) >= 0).all()
  # But for values that float16 cannot tell from the threshold.
  apart = np.abs(values / 5.0 - 1) > 2.0**-11
  np.testing.assert_array_equal((encoded > np.float16(found.level))[apart], (values > 5.0)[apart])


def test_what_float16_cannot_hold_becomes_its_largest_value():
  values = np.array([[1.0, 6e4], [7e4, 3e38]], np.float32)
  expected = np.array([[1.0, 6e4], [LARGEST, LARGEST]], np.float16)
  np.testing.assert_array_equal(submission.encode(values, (2, 2), 1.0), expected)


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(value):
  with pytest.raises(UserError, match='not finite'):
    submission.encode(np.full((2, 2), value, np.float32), (4, 4), 1.0)


def test_maps_are_resized_as_opencv_does():
  cv2 = pytest.importorskip('cv2')
  values = np.random.default_rng(1).random((8, 6), np.float32)
  encoded = submission.encode(values, (40, 30), 1.0)
  expected = cv2.resize(values, (30, 40), interpolation=cv2.INTER_LINEAR)
  np.testing.assert_allclose(encoded, expected, atol=2e-3)


@pytest.fixture
def written(tmp_path, monkeypatch):
  """A whole category, and its images."""
  monkeypatch.setitem(private_splits.COUNTS, 'vial', 2)
  download = downloads.mvtec_ad_2(tmp_path / 'official')
  sources = private_splits.find(download.root, 'vial')
  folder = tmp_path / 'submission'
  for number, source in enumerate(sources):
    values = np.random.default_rng(number).random((24, 20), np.float32)
    encoded = submission.encode(values, (HEIGHT, WIDTH), 1.0)
    submission.write(folder, 'vial', source.name, encoded, LEVEL)
  return folder, sources


def check(written):
  return submission.check(written[0], 'vial', written[1], LEVEL)


def test_files_are_what_the_server_asks_for(written):
  folder, sources = written
  assert check(written) == []
  for source in sources:
    stem = source.name.removesuffix('.png')
    values = tifffile.imread(folder / f'anomaly_images/vial/{stem}.tiff')
    assert (values.dtype, values.shape) == (np.float16, (HEIGHT, WIDTH))
    with Image.open(folder / f'anomaly_images_thresholded/vial/{stem}.png') as image:
      assert (image.format, image.mode, image.size) == ('PNG', 'L', (WIDTH, HEIGHT))
      mask = np.asarray(image)
    np.testing.assert_array_equal(mask, np.where(values > LEVEL, 255, 0))
    assert set(np.unique(mask)) == {0, 255}


MAP = f'{MAPS}/vial/test_private/001_regular.tiff'
MASK = f'{THRESHOLDED}/vial/test_private_mixed/000_mixed.png'


def save_map(values):
  return lambda path: tifffile.imwrite(path, values, photometric='minisblack')


def save_mask(values):
  return lambda path: Image.fromarray(values).save(path)


@pytest.mark.parametrize(
  ('name', 'change', 'words'),
  [
    (MAP, lambda path: path.unlink(), 'test_private: 1 missing (001_regular.tiff)'),
    (MASK, lambda path: path.unlink(), 'test_private_mixed: 1 missing (000_mixed.png)'),
    (
      MAP,
      lambda path: path.rename(path.with_name('1_regular.tiff')),
      '1 missing (001_regular.tiff), 1 too many (1_regular.tiff)',
    ),
    (MASK, lambda path: (path.parent / 'notes.txt').touch(), '1 too many (notes.txt)'),
    (MAP, lambda path: (path.parents[1] / 'test_public').mkdir(), 'vial: 1 too many (test_public)'),
    (MAP, save_map(np.zeros((HEIGHT, WIDTH), np.float32)), 'holds float32, not float16'),
    (MAP, save_map(np.zeros((WIDTH, HEIGHT), np.float16)), 'is 10 x 12, its image 12 x 10'),
    (MAP, save_map(np.zeros((3, HEIGHT, WIDTH), np.float16)), 'is 3 x 12 x 10, its image'),
    (MAP, save_map(np.full((HEIGHT, WIDTH), np.nan, np.float16)), 'values that are not finite'),
    (MAP, lambda path: path.write_bytes(path.read_bytes()[:40]), '001_regular.tiff: is damaged ('),
    (MASK, lambda path: path.write_bytes(path.read_bytes()[:40]), '000_mixed.png: is damaged ('),
    (MASK, save_mask(np.zeros((HEIGHT, WIDTH, 3), np.uint8)), 'is 12 x 10 x 3, its image'),
    (MASK, save_mask(np.zeros((HEIGHT, WIDTH), bool)), 'holds bool, not uint8'),
    (MASK, save_mask(np.zeros((HEIGHT, WIDTH + 1), np.uint8)), 'is 12 x 11, its image 12 x 10'),
    (MASK, save_mask(np.ones((HEIGHT, WIDTH), np.uint8)), 'has other values than 0 and 255'),
    (MASK, save_mask(np.zeros((HEIGHT, WIDTH), np.uint8)), 'is not the map above 0.5'),
  ],
)
def test_what_breaks_a_rule_is_named(written, name, change, words):
  change(written[0] / name)
  [line] = check(written)
  assert words in line
  assert str(written[0]) in line


def test_other_categories_and_files_are_named(written):
  folder, _ = written
  others = sorted(private_splits.COUNTS.keys() - {'vial'})
  for kind in (MAPS, THRESHOLDED):
    for category in others:
      (folder / kind / category).mkdir()
  assert submission.check_categories(folder) == []
  (folder / 'log.txt').touch()
  (folder / MAPS / 'bottle').mkdir()
  (folder / THRESHOLDED / 'can').rmdir()
  assert submission.check_categories(folder) == [
    f'{folder}: 1 too many (log.txt)',
    f'{folder / MAPS}: 1 too many (bottle)',
    f'{folder / THRESHOLDED}: 1 missing (can)',
  ]


def test_the_archive_has_every_file_below_the_name_of_the_folder(written, tmp_path):
  folder, _ = written
  submission.pack(folder, tmp_path / 'submission.tar.gz')
  with tarfile.open(tmp_path / 'submission.tar.gz', 'r:gz') as tar:
    members = {member.name: member for member in tar}
    files = {path.relative_to(tmp_path).as_posix(): path for path in folder.rglob('*.*')}
    assert members.keys() == files.keys()
    assert 'submission/anomaly_images/vial/test_private/000_regular.tiff' in members
    for name, path in files.items():
      assert tar.extractfile(members[name]).read() == path.read_bytes()
    assert {(member.uname, member.uid) for member in members.values()} == {('', 0)}
  assert not list(tmp_path.glob('*.tmp'))
