import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from patch_svdd_jax import data
from patch_svdd_jax.data import report
from patch_svdd_jax.errors import UserError


def stored(path):
  return np.asarray(Image.open(path))


def test_a_folder_becomes_arrays(tmp_path, make_category, settings):
  root = make_category(tmp_path / 'nuts')
  loaded = data.load(settings(root=str(root)))
  assert loaded.name == 'folder/nuts'
  train, test = loaded.train, loaded.test
  assert (train.images.shape, train.images.dtype) == ((3, 12, 10, 3), np.uint8)
  assert (test.masks.shape, test.masks.dtype) == ((5, 12, 10), bool)
  for split in (train, test):
    for image, name in zip(split.images, split.names, strict=True):
      np.testing.assert_array_equal(image, stored(root / name))
  assert test.defects == ('good', 'good', 'hole', 'scratch', 'scratch')
  np.testing.assert_array_equal(test.labels, [False, False, True, True, True])
  np.testing.assert_array_equal(test.has_mask, [True, True, False, True, True])
  assert not train.labels.any()
  assert train.has_mask.all()
  assert not train.masks.any()
  assert not test.masks[:3].any()
  for i in range(2):
    truth = stored(root / f'ground_truth/scratch/{i:03}_mask.png') > 0
    np.testing.assert_array_equal(test.masks[3 + i], truth)


def test_category_names_a_sub_folder(tmp_path, make_category, settings):
  make_category(tmp_path / 'parts' / 'nuts')
  loaded = data.load(settings(root=str(tmp_path / 'parts'), category='nuts'))
  assert loaded.name == 'folder/nuts'
  assert len(loaded.train) == 3


def test_sizes_may_differ_and_are_resized_when_loading(tmp_path, settings):
  shapes = [(12, 10), (30, 20), (7, 40)]
  for i, (height, width) in enumerate(shapes):
    folder = tmp_path / 'nuts/train/good'
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(i).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / f'{i}.png')
  times = []
  for size, resample in [((8, 16), 'lanczos'), ((5, 5), 'nearest')]:
    loaded = data.load(settings(root=str(tmp_path / 'nuts'), image_size=size, resize=resample))
    for i, image in enumerate(loaded.train.images):
      picture = Image.open(folder / f'{i}.png')
      expected = picture.resize(size[::-1], Image.Resampling[resample.upper()])
      np.testing.assert_array_equal(image, np.asarray(expected))
    times.append({p: p.stat().st_mtime_ns for p in (tmp_path / 'prepared').rglob('*array_record*')})
  assert times[0] == times[1], 'prepared again for another size'


def test_no_test_images(tmp_path, settings, make_category):
  root = make_category(tmp_path / 'nuts')
  (root / 'test').rename(tmp_path / 'elsewhere')
  (root / 'ground_truth').rename(tmp_path / 'elsewhere_too')
  test = data.load(settings(root=str(root))).test
  assert len(test) == 0
  assert test.images.shape == (0, 12, 10, 3)
  assert test.masks.shape == (0, 12, 10)
  assert test.labels.shape == test.has_mask.shape == (0,)
  assert test.names == test.defects == ()


def test_changed_files_are_prepared_again(tmp_path, settings, make_category):
  root = make_category(tmp_path / 'nuts')
  config = settings(root=str(root))
  data.load(config)
  new = np.full((12, 10, 3), 5, np.uint8)
  Image.fromarray(new).save(root / 'train/good/001.png')
  np.testing.assert_array_equal(data.load(config).train.images[1], new)
  (root / 'train/good/000.png').unlink()
  assert data.load(config).train.names == ('train/good/001.png', 'train/good/002.png')
  Image.fromarray(new).save(root / 'test/hole/0.jpg')
  assert 'test/hole/0.jpg' in data.load(config).test.names
  assert len(list((tmp_path / 'prepared').rglob('*train.array_record*'))) == 4


def test_folders_of_the_same_name_do_not_mix(tmp_path, settings, make_category):
  first, second = make_category(tmp_path / 'a/nuts'), make_category(tmp_path / 'b/nuts')
  Image.fromarray(np.zeros((12, 10, 3), np.uint8)).save(second / 'train/good/000.png')
  for root in (first, second, first):
    image = data.load(settings(root=str(root))).train.images[0]
    np.testing.assert_array_equal(image, stored(root / 'train/good/000.png'))


def test_a_corrupt_file_is_named_and_leaves_nothing(tmp_path, settings, make_category):
  root = make_category(tmp_path / 'nuts')
  victim = root / 'train/good/001.png'
  good = victim.read_bytes()
  victim.write_bytes(good[: len(good) // 2])
  with pytest.raises(UserError, match=f'{root}: train/good/001.png: is '):
    data.load(settings(root=str(root)))
  assert not list((tmp_path / 'prepared').rglob('*array_record*'))
  victim.write_bytes(good)
  assert len(data.load(settings(root=str(root))).test) == 5


def test_a_mask_of_another_size_is_named_with_its_image(tmp_path, settings, make_category):
  root = make_category(tmp_path / 'nuts')
  mask = root / 'ground_truth/scratch/001_mask.png'
  Image.fromarray(np.zeros((10, 12), np.uint8)).save(mask)
  loaded = data.load(settings(root=str(root)))
  assert 'test/scratch/001.png' not in loaded.test.names
  pattern = 'ground_truth/scratch/001_mask.png: is 12 x 10 .*test/scratch/001.png is 10 x 12'
  assert re.search(pattern, report.unusable(loaded.report))


def test_a_good_image_may_have_an_empty_mask_only(tmp_path, settings, make_category):
  root = make_category(tmp_path / 'nuts')
  mask = root / 'ground_truth/good/000_mask.png'
  mask.parent.mkdir()
  Image.fromarray(np.zeros((12, 10), np.uint8)).save(mask)
  assert len(data.load(settings(root=str(root))).test) == 5
  Image.fromarray(np.ones((12, 10), np.uint8)).save(mask)
  loaded = data.load(settings(root=str(root)))
  assert len(loaded.test) == 4
  assert 'stands among the good ones' in report.unusable(loaded.report)


@pytest.mark.parametrize(
  ('changes', 'words'),
  [
    ({'root': ''}, 'config.data.root is empty'),
    ({'root': '/nowhere/at/all'}, '/nowhere/at/all'),
    ({'name': 'cifar'}, "config.data.name='cifar'"),
    ({'name': 'mvtec', 'category': 'screws'}, "'screws'.*screw"),
    ({'name': 'textures', 'category': 'sand'}, 'brick, grass, gravel'),
  ],
)
def test_wrong_settings_are_named(settings, changes, words):
  config = settings()
  with config.ignore_type():
    config.update(changes)
  with pytest.raises(UserError, match=words):
    data.load(config)


def test_an_unwritable_prepared_folder(tmp_path, settings, make_category):
  (tmp_path / 'file').write_text('')
  config = settings(root=str(make_category(tmp_path / 'n')), prepared=str(tmp_path / 'file' / 'x'))
  with pytest.raises(UserError, match=r'cannot be written.*config\.data\.prepared'):
    data.load(config)


def test_a_full_disk(tmp_path, make_category):
  """A file size limit stands in for the end of the disk."""
  root = make_category(tmp_path / 'nuts')
  code = f"""
import resource, signal, ml_collections
from patch_svdd_jax import data, errors
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
config = ml_collections.ConfigDict(dict(name='folder', category='', root={str(root)!r},
  prepared={str(tmp_path / 'prepared')!r}, image_size=(12, 10), resize='bicubic', light='kept',
  value_range=(), region='', region_share=0.5,
  cache_gib=1.0, normal_images=0, held_out=0.0, contamination=0.0, contamination_overlap=False))
try:
  data.load(config)
except errors.UserError as error:
  print(error)
"""
  run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
  assert 'cannot be written' in run.stdout
  assert not list((tmp_path / 'prepared').rglob('*array_record*'))


def test_neither_tensorflow_nor_chatter_and_a_quick_import(tmp_path, make_category):
  root = make_category(tmp_path / 'nuts')
  code = f"""
import sys
from patch_svdd_jax import data
from patch_svdd_jax.data import report
assert 'tensorflow_datasets' not in sys.modules and 'jax' not in sys.modules
import ml_collections
config = ml_collections.ConfigDict(dict(name='folder', category='', root={str(root)!r},
  prepared={str(tmp_path / 'prepared')!r}, image_size=(12, 10), resize='bicubic', light='kept',
  value_range=(), region='', region_share=0.5,
  cache_gib=1.0, normal_images=0, held_out=0.0, contamination=0.0, contamination_overlap=False))
for _ in range(2):
  assert len(data.load(config).train) == 3
assert not {{'tensorflow', 'torch', 'cv2'}} & set(sys.modules)
"""
  # Stubs that refuse to be imported, in case they are installed.
  for name in ('tensorflow', 'cv2'):
    (tmp_path / f'{name}.py').write_text('raise ImportError("not at run time")')
  path = os.pathsep.join([str(tmp_path), *sys.path])
  run = subprocess.run(
    [sys.executable, '-W', 'error', '-c', code],
    env={**os.environ, 'PYTHONPATH': path},
    capture_output=True,
    text=True,
    check=False,
  )
  assert run.returncode == 0, run.stderr
  assert run.stdout == ''
  assert 'Preparing folder train: 100%' in run.stderr
  assert 'WARNING' not in run.stderr


def test_cookies(shared_data, settings):
  config = settings(
    root=str(shared_data / 'lookout_cookie'), category='cookie', image_size=(48, 64)
  )
  loaded = data.load(config)
  assert loaded.name == 'folder/cookie'
  assert len(loaded.train) == 31
  counts = {kind: loaded.test.defects.count(kind) for kind in loaded.test.defects}
  assert counts == {'good': 14, 'anomaly': 32, 'anomaly_nomask': 8}
  unknown = np.array([defect == 'anomaly_nomask' for defect in loaded.test.defects])
  np.testing.assert_array_equal(loaded.test.has_mask, ~unknown)
  marked = loaded.test.masks.any(axis=(1, 2))
  assert not marked[unknown].any()
  assert not marked[~loaded.test.labels].any()
  assert marked[loaded.test.labels & ~unknown].all()
