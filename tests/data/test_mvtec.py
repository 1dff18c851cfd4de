import io
import pathlib
import shutil
import tarfile

import numpy as np
import pytest
from PIL import Image

from patch_svdd_jax import data
from patch_svdd_jax.data import mvtec
from patch_svdd_jax.errors import UserError


@pytest.fixture
def official(tmp_path, make_category):
  """The official folder with two of its categories, all tiny."""
  root = tmp_path / 'mvtec_anomaly_detection'
  for category in ('screw', 'pill'):
    make_category(root / category)
  (root / 'readme.txt').write_text('read me')
  return root


def pack(root: pathlib.Path, prefix='', suffix='tar.xz') -> pathlib.Path:
  path = root.parent / f'mvtec_anomaly_detection.{suffix}'
  with tarfile.open(path, f'w:{suffix.partition(".")[2]}') as tar:
    for member in sorted(root.rglob('*')):
      tar.add(member, f'{prefix}{member.relative_to(root)}', recursive=False)
  return path


@pytest.fixture
def load(settings):
  def load(root, **changes):
    return data.load(
      settings(**{'name': 'mvtec', 'category': 'screw', 'root': str(root), **changes})
    )

  return load


def assert_same(a, b):
  np.testing.assert_array_equal(a.images, b.images)
  np.testing.assert_array_equal(a.masks, b.masks)
  np.testing.assert_array_equal(a.has_mask, b.has_mask)
  assert a.names == b.names
  assert a.defects == b.defects


def test_official_counts_add_up():
  """Bergmann et al. 2021: 3629 training and 1725 test images, 1258 of them defective."""
  assert len(mvtec.COUNTS) == len(mvtec.Mvtec.BUILDER_CONFIGS) == 15
  assert np.sum(list(mvtec.COUNTS.values()), axis=0).tolist() == [3629, 467, 1258, 0]


def test_extracted_folder(official, load):
  loaded = load(official)
  assert loaded.name == 'mvtec/screw'
  assert (len(loaded.train), len(loaded.test)) == (3, 5)
  np.testing.assert_array_equal(
    loaded.train.images[1], np.asarray(Image.open(official / 'screw/train/good/001.png'))
  )


@pytest.mark.parametrize(
  ('prefix', 'suffix'),
  [('', 'tar.xz'), ('./', 'tar.xz'), ('mvtec_anomaly_detection/', 'tar.gz'), ('', 'tar')],
)
def test_archive_equals_folder(official, load, tmp_path, prefix, suffix):
  from_folder = load(official, prepared=str(tmp_path / 'one'))
  from_archive = load(pack(official, prefix, suffix), prepared=str(tmp_path / 'two'))
  assert_same(from_archive.train, from_folder.train)
  assert_same(from_archive.test, from_folder.test)
  left = {path.suffix for path in (tmp_path / 'two').rglob('*') if path.is_file()}
  assert '.png' not in left, 'extracted images were left behind'


def test_root_is_needed_once(official, load):
  first = load(pack(official))
  shutil.rmtree(official.parent / 'mvtec_anomaly_detection')
  (official.parent / 'mvtec_anomaly_detection.tar.xz').unlink()
  assert_same(load('').test, first.test)
  with pytest.raises(UserError, match=r'tar\.xz: does not exist'):
    load(official.parent / 'mvtec_anomaly_detection.tar.xz')
  with pytest.raises(UserError, match=rf'not prepared yet.*{mvtec.HOMEPAGE}.*config\.data\.root'):
    load('', category='pill')


def test_another_source_is_prepared_anew(official, load, tmp_path):
  load(official)
  other = tmp_path / 'resized'
  shutil.copytree(official, other)
  image = np.full((12, 10, 3), 9, np.uint8)
  Image.fromarray(image).save(other / 'screw/train/good/000.png')
  np.testing.assert_array_equal(load(other).train.images[0], image)
  np.testing.assert_array_equal(load('').train.images[0], image)
  assert (load(official).train.images[0] != image).any()


def test_counts_that_differ_are_said_each_time(official, load):
  for _ in range(2):
    [line] = load(official).report.lines()
    assert 'found 3 training, 2 good test, 3 defective test images' in line
    assert 'has 320 training, 41 good test, 119 defective test, ' in line


def test_the_categories_of_an_archive_are_those_of_the_folder(official):
  (official / 'marble/train/good').mkdir(parents=True)
  assert mvtec.Mvtec.present(official) == ['pill', 'screw']
  for prefix in ('', './', 'mvtec_anomaly_detection/'):
    assert mvtec.Mvtec.present(pack(official, prefix)) == ['pill', 'screw']
  # The official archive of one category.
  assert mvtec.Mvtec.present(pack(official / 'screw', 'screw/')) == ['screw']


def test_roots_that_do_not_hold_the_category(official, load, tmp_path):
  with pytest.raises(UserError, match="has no folder 'wood'"):
    load(official, category='wood')
  with pytest.raises(UserError, match="holds no folder 'wood'"):
    load(pack(official), category='wood')
  shutil.rmtree(official / 'screw/train')
  with pytest.raises(UserError, match='no normal training images'):
    load(official)


@pytest.mark.parametrize('part', [0.0, 0.3, 0.9])
def test_a_damaged_archive_is_named(official, load, part):
  archive = pack(official)
  content = archive.read_bytes()
  archive.write_bytes(content[: int(len(content) * part)])
  for read in (load, mvtec.Mvtec.present):
    with pytest.raises(UserError, match=rf'{archive}: is no tar archive or is damaged'):
      read(archive)


def test_a_cut_archive_does_not_pass_for_a_whole_one(official):
  archive = pack(official, suffix='tar.gz')
  content = archive.read_bytes()
  for size in range(0, len(content) * 9 // 10, 41):
    archive.write_bytes(content[:size])
    with pytest.raises(UserError, match='is no tar archive or is damaged'):
      mvtec.Mvtec.present(archive)


@pytest.mark.parametrize('kind', ['outside', 'link', 'device'])
def test_a_hostile_archive_is_refused(tmp_path, load, kind):
  archive = tmp_path / 'evil.tar'
  with tarfile.open(archive, 'w') as tar:
    member = tarfile.TarInfo('screw/train/../../../../../escaped.png')
    member.size = 4
    if kind == 'link':
      member = tarfile.TarInfo('screw/train/good')
      member.type, member.linkname = tarfile.SYMTYPE, str(tmp_path)
    if kind == 'device':
      member = tarfile.TarInfo('screw/train/good/0.png')
      member.type = tarfile.CHRTYPE
    tar.addfile(member, io.BytesIO(b'evil'))
  with pytest.raises(UserError, match=rf'{archive}: refused'):
    load(archive)
  assert not list(tmp_path.rglob('escaped.png'))


def test_real_screws(shared_data, load):
  loaded = load(shared_data / 'mvtec_ad', image_size=(32, 32))
  assert not loaded.report.findings
  assert len(loaded.train) == 320
  assert (loaded.test.labels.sum(), (~loaded.test.labels).sum()) == (119, 41)
  assert loaded.test.has_mask.all()
  assert len(set(loaded.test.defects)) == 6
  assert loaded.train.names[0] == 'train/good/000.png'
