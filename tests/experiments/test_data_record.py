"""What is said of data that are others."""

import types

import numpy as np
import pytest

from patch_svdd_jax.configs import default
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.experiments import data_record
from patch_svdd_jax.system import distributed


def of(**digests):
  return {'train': digests}


@pytest.mark.parametrize(
  ('before', 'after', 'words'),
  [
    (None, of(a='1'), None),
    (of(a='1', b='2'), of(b='2', a='1'), None),
    (of(a='1'), of(a='2'), '1 replaced: a'),
    (of(a='1'), of(b='1'), '1 added: b; 1 removed: a'),
    (of(a='1', b='1', c='1'), of(), '3 removed: a, ...'),
    # What only one of them has is not compared.
    (of(a='1'), of(a='1') | {'test': {'x': '3'}}, None),
    (of(a='1') | {'test': {'x': '2'}}, of(a='1') | {'test': {'x': '3'}}, '1 replaced: x'),
  ],
)
def test_a_difference_in_words(before, after, words):
  assert data_record.difference(before, after) == words


def test_what_is_kept_is_kept_by_key(tmp_path):
  data_record.begin(tmp_path, 'one', of(a='1'))
  data_record.begin(tmp_path, 'two', of(a='2'))
  data_record.begin(tmp_path, 'one', of(a='1'))
  assert data_record.read(tmp_path) == {'one': of(a='1'), 'two': of(a='2')}
  with pytest.raises(UserError, match='1 replaced: a'):
    data_record.begin(tmp_path, 'two', of(a='1'))
  data_record.keep(tmp_path, 'two', of(a='1'))
  data_record.begin(tmp_path, 'two', of(a='1'))


@pytest.mark.parametrize('others', [[0], [-1], [1, 0], [0, -1]])
def test_processes_with_other_data_are_refused(tmp_path, monkeypatch, others):
  """Of so many other processes, whose digests are larger or smaller by so much."""

  def maximum(value):
    sign = int(np.sign(value))
    return max(value, *(value + sign * other for other in others), -(2**31))

  monkeypatch.setattr(distributed, 'maximum', maximum)
  if any(others):
    with pytest.raises(UserError, match='the processes read different data'):
      data_record.begin(tmp_path, 'one', of(a='1'))
    assert not list(tmp_path.iterdir())
  else:
    data_record.begin(tmp_path, 'one', of(a='1'))


def test_sets_in_several_folders_are_kept_apart(tmp_path):
  config = default.get_config().data
  kept = {}
  for name, digest in (('', '1'), ('a', '2'), ('b', '3')):
    parts = types.SimpleNamespace(names=('x',), digests=(digest,), regions=None)
    sets = types.SimpleNamespace(train=parts, held_out=parts, test=parts)
    data_record.begin_experiment(tmp_path, config, sets, name)
    data_record.begin_experiment(tmp_path, config, sets, name)
    kept[data_record.key_of(config, name)] = {'x': digest}
  assert {key: each['test'] for key, each in data_record.read(tmp_path).items()} == kept
  with pytest.raises(UserError, match='1 replaced: x'):
    data_record.begin_experiment(tmp_path, config, sets, 'a')
