import os
import re

import numpy as np
import pytest
from PIL import Image

from patch_svdd_jax.data import layout
from patch_svdd_jax.errors import UserError


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
  assert not found.oddities


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


@pytest.mark.parametrize('present', [[], ['train/good/notes.txt'], ['train/bad/0.png']])
def test_a_category_without_training_images(tmp_path, present):
  for name in present:
    touch(tmp_path / name)
  with pytest.raises(UserError, match=re.escape(str(tmp_path / 'train/good'))):
    layout.scan(tmp_path)


def test_two_masks_for_an_image(tmp_path):
  touch(tmp_path / 'train/good/0.png')
  touch(tmp_path / 'test/dent/0.png')
  touch(tmp_path / 'ground_truth/dent/0_mask.png')
  touch(tmp_path / 'ground_truth/dent/0_mask.bmp')
  with pytest.raises(UserError, match=r'0_mask\.bmp and .*0_mask\.png'):
    layout.scan(tmp_path)


def test_what_is_left_out_is_said(tmp_path, make_category):
  make_category(tmp_path)
  touch(tmp_path / 'train/good/.DS_Store')
  assert not layout.scan(tmp_path).oddities
  odd = ['train/good/1.webp', 'train/bad/0.png', 'test/5.png', 'ground_truth/scratch/9_mask.png']
  for name in odd:
    touch(tmp_path / name)
  oddities = '\n'.join(layout.scan(tmp_path).oddities)
  for place in ('train/good', 'train/bad', 'test', 'ground_truth/scratch/9_mask.png'):
    assert f'{tmp_path / place}:' in oddities
  assert len(layout.scan(tmp_path).oddities) == len(odd)


def test_fingerprint_changes_with_every_change(tmp_path, make_category):
  make_category(tmp_path)

  def now():
    return layout.fingerprint(layout.scan(tmp_path))

  seen = [now()]
  assert now() == seen[0]
  image = tmp_path / 'train/good/000.png'
  mask = tmp_path / 'ground_truth/scratch/000_mask.png'
  changes = [
    lambda: os.utime(image, ns=(1, 1)),
    lambda: os.utime(mask, ns=(1, 1)),
    lambda: image.write_bytes(image.read_bytes() + b' ') and os.utime(image, ns=(1, 1)),
    lambda: image.rename(image.with_name('x.png')),
    lambda: mask.unlink(),
    lambda: (tmp_path / 'test/hole/000.png').unlink(),
    lambda: Image.fromarray(np.zeros((3, 3), np.uint8)).save(tmp_path / 'test/hole/1.png'),
  ]
  for change in changes:
    change()
    seen.append(now())
  assert len(set(seen)) == len(changes) + 1
