"""Which normal images are held out: how many, where, and what is refused."""

import numpy as np
import pytest

from patch_svdd_jax import data
from patch_svdd_jax.data import Split, held_out
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system import batching


def split_of(count):
  """A split of so many images, all of whose values tell which one it is."""
  numbers = np.arange(count)
  return Split(
    images=np.broadcast_to(numbers[:, None, None, None].astype(np.uint8), (count, 2, 3, 3)),
    masks=np.broadcast_to((numbers % 2 == 1)[:, None, None], (count, 2, 3)),
    has_mask=numbers % 3 == 0,
    labels=numbers % 5 == 0,
    defects=tuple(f'defect {number}' for number in numbers),
    names=tuple(f'train/good/{number:03}.png' for number in numbers),
    sizes=np.stack([numbers + 1, numbers + 2], axis=1),
    appearance=np.repeat(numbers[:, None], 4, axis=1).astype(np.float32),
    digests=tuple(f'digest {number}' for number in numbers),
  )


def numbers_of(split):
  """Which images they are, if all that is known about each belongs together."""
  numbers = split.images[:, 0, 0, 0].astype(int)
  np.testing.assert_array_equal(split.masks[:, 0, 0], numbers % 2 == 1)
  np.testing.assert_array_equal(split.has_mask, numbers % 3 == 0)
  np.testing.assert_array_equal(split.labels, numbers % 5 == 0)
  assert split.defects == tuple(f'defect {number}' for number in numbers)
  assert split.names == tuple(f'train/good/{number:03}.png' for number in numbers)
  np.testing.assert_array_equal(split.sizes, np.stack([numbers + 1, numbers + 2], axis=1))
  np.testing.assert_array_equal(split.appearance, np.repeat(numbers[:, None], 4, axis=1))
  return numbers.tolist()


@pytest.mark.parametrize(
  ('count', 'share', 'expected'),
  [
    (20, 0.1, [5, 15]),
    (10, 0.3, [1, 5, 8]),
    (3, 0.5, [0, 2]),  # 1.5, rounded up
    (4, 0.1, [2]),  # 0.4: at least one
    (2, 0.1, [1]),
    (7, 0.0, []),
  ],
)
def test_where_the_held_out_images_lie(count, share, expected):
  train, held = held_out.divide(split_of(count), share)
  assert numbers_of(held) == expected
  assert numbers_of(train) == [number for number in range(count) if number not in expected]


@pytest.mark.parametrize('count', [11, 230, 320])
@pytest.mark.parametrize('share', [0.05, 0.1, 0.37, 0.9])
def test_they_are_spread_over_the_set(count, share):
  train, held = map(numbers_of, held_out.divide(split_of(min(count, 256)), share))
  count = min(count, 256)
  assert sorted(train + held) == list(range(count))
  assert len(held) == max(1, round(share * count + 1e-9))
  # Every stretch of the set holds as many of them, up to one.
  for start in range(0, count, 10):
    inside = [number for number in held if start <= number < start + 10]
    assert abs(len(inside) - len(held) * len(range(start, min(start + 10, count))) / count) <= 1


@pytest.mark.parametrize(
  ('count', 'share', 'words'),
  [
    (10, 0.99, r'config\.data\.held_out=0\.99 of 10 normal images leaves none to train on'),
    (1, 0.1, r'config\.data\.held_out=0\.1 of 1 normal image leaves none to train on'),
  ],
)
def test_shares_that_leave_nothing_are_refused(count, share, words):
  with pytest.raises(UserError, match=words) as raised:
    held_out.divide(split_of(count), share)
  assert '\n' not in str(raised.value)


@pytest.mark.parametrize(('count', 'wanted'), [(10, 3), (3, 10), (1, 1), (0, 4), (16, 16)])
def test_evenly(count, wanted):
  found = batching.evenly_spaced(count, wanted).tolist()
  runs = min(count, wanted)
  assert found == [int((index + 0.5) * count / runs) for index in range(runs)]
  assert len(set(found)) == runs


def test_a_data_set_without_its_held_out_images(settings, make_category, tmp_path):
  root = str(make_category(tmp_path / 'nuts'))
  whole = data.load(settings(root=root))
  assert len(whole.held_out) == 0
  for _ in range(2):
    parts = data.load(settings(root=root, held_out=0.4))
    assert parts.held_out.names == whole.train.names[1:2]
    assert parts.train.names == whole.train.names[:1] + whole.train.names[2:]
    np.testing.assert_array_equal(parts.held_out.images, whole.train.images[1:2])
    assert parts.test.names == whole.test.names


def test_fewer_images_to_learn_from(settings, make_category, tmp_path):
  root = str(make_category(tmp_path / 'nuts'))
  whole = data.load(settings(root=root, held_out=0.4))
  fewer = data.load(settings(root=root, held_out=0.4, normal_images=1))
  assert fewer.held_out.names == whole.held_out.names
  assert fewer.train.names == whole.train.names[1:]
  assert len(data.load(settings(root=root, normal_images=99)).train) == 3
