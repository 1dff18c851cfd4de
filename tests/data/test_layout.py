import os
import re
import shutil

import pytest

from patch_svdd_jax.data import layout


def touch(path, content=b'x'):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(content)
  return path


def test_items_of_a_category(tmp_path, make_category):
  found = layout.scan(make_category(tmp_path))
  assert [i.name for i in found.train] == [f'train/good/{i:03}.png' for i in range(3)]
  assert [i.name for i in found.test] == [
    'test/good/000.png',
    'test/good/001.png',
    'test/hole/000.png',
    'test/scratch/000.png',
    'test/scratch/001.png',
  ]
  assert [i.defect for i in found.test] == ['good', 'good', 'hole', 'scratch', 'scratch']
  truth = tmp_path / 'ground_truth/scratch'
  assert [i.masks for i in found.test[:3]] == [()] * 3
  assert [i.masks for i in found.test[3:]] == [
    (truth / '000_mask.png',),
    (truth / '001_mask.png',),
  ]
  assert not found.findings


def test_natural_order_of_all_suffixes(tmp_path):
  names = ['a10.PNG', 'a2.jpg', 'a1.tiff', 'b.jpeg', 'a02.bmp', 'A3.tif']
  for name in names:
    touch(tmp_path / 'train/good' / name)
  found = [item.image.name for item in layout.scan(tmp_path).train]
  assert found == ['A3.tif', 'a1.tiff', 'a02.bmp', 'a2.jpg', 'a10.PNG', 'b.jpeg']


def test_masks_by_any_suffix_with_or_without_mask(tmp_path):
  touch(tmp_path / 'train/good/0.png')
  for stem in 'abc':
    touch(tmp_path / f'test/dent/{stem}.jpg')
  expected = {
    'a': (touch(tmp_path / 'ground_truth/dent/a_mask.bmp'),),
    'b': (touch(tmp_path / 'ground_truth/dent/b.tif'),),
    'c': (),
  }
  found = layout.scan(tmp_path).test
  assert {item.image.stem: item.masks for item in found} == expected


def test_test_images_are_optional(tmp_path):
  touch(tmp_path / 'train/good/0.png')
  found = layout.scan(tmp_path)
  assert len(found.train) == 1
  assert found.test == ()


def of_kind(found, kind):
  return [case for each in found.findings if each.kind == kind for case in each.cases]


@pytest.mark.parametrize('present', [[], ['train/good/notes.txt'], ['train/bad/0.png']])
def test_a_category_without_training_images(tmp_path, present):
  for name in present:
    touch(tmp_path / name)
  [case] = of_kind(layout.scan(tmp_path), 'no_training_images')
  assert case.detail.startswith('train/good: has no images; put normal images there')


def test_two_masks_for_an_image(tmp_path):
  touch(tmp_path / 'train/good/0.png')
  touch(tmp_path / 'test/dent/0.png')
  touch(tmp_path / 'ground_truth/dent/0_mask.png')
  touch(tmp_path / 'ground_truth/dent/0_mask.bmp')
  [item] = layout.scan(tmp_path).test
  assert re.search(r'0_mask\.bmp and .*0_mask\.png', item.problem)


def fingerprint(folder):
  return layout.fingerprint(layout.scan(folder))


def replace(path, other):
  """Puts another file's content in place of one, of the same size and times."""
  size, stat = path.stat().st_size, path.stat()
  content = other.read_bytes()
  path.write_bytes(content[:size].ljust(size, b'\0'))
  os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def swap(one, other):
  between = one.with_name('between')
  one.rename(between)
  other.rename(one)
  between.rename(other)


IMAGE, OTHER = 'train/good/000.png', 'train/good/001.png'
MASK, OTHER_MASK = (f'ground_truth/scratch/00{i}_mask.png' for i in range(2))
CHANGES = {
  'an image is replaced': lambda at: replace(at / IMAGE, at / OTHER),
  'a mask is replaced': lambda at: replace(at / MASK, at / OTHER_MASK),
  'an image grows': lambda at: (at / IMAGE).write_bytes((at / IMAGE).read_bytes() + b' '),
  'an image is renamed': lambda at: (at / IMAGE).rename(at / 'train/good/x.png'),
  'two images change names': lambda at: swap(at / IMAGE, at / OTHER),
  'two masks change names': lambda at: swap(at / MASK, at / OTHER_MASK),
  'a mask is gone': lambda at: (at / MASK).unlink(),
  'an image is gone': lambda at: (at / IMAGE).unlink(),
  'an image is added': lambda at: shutil.copy(at / IMAGE, at / 'test/hole/1.png'),
  'a type is renamed': lambda at: (at / 'test/hole').rename(at / 'test/pit'),
  'a test image is trained on': lambda at: (at / 'test/good/000.png').rename(
    at / 'train/good/003.png'
  ),
  'a defect is called good': lambda at: (at / 'test/hole/000.png').rename(at / 'test/good/002.png'),
}


@pytest.mark.parametrize('change', CHANGES)
def test_the_fingerprint_changes_with_every_change(tmp_path, make_category, change):
  make_category(tmp_path)
  before = fingerprint(tmp_path)
  assert fingerprint(tmp_path) == before
  CHANGES[change](tmp_path)
  assert fingerprint(tmp_path) != before


def test_the_fingerprint_is_of_what_is_there_not_where_or_since_when(tmp_path, make_category):
  place = make_category(tmp_path / 'nuts')
  before = fingerprint(place)
  os.utime(place / IMAGE, ns=(1, 1))
  assert fingerprint(place) == before
  assert fingerprint(shutil.copytree(place, tmp_path / 'bolts')) == before
  assert fingerprint(place.rename(tmp_path / 'elsewhere')) == before
  (tmp_path / 'link').symlink_to(tmp_path / 'elsewhere')
  assert fingerprint(tmp_path / 'link') == before
