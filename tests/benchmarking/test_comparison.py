"""Files of two machines side by side, and which are refused."""

import copy
import json

import pytest

from patch_svdd_jax.benchmarking import comparison, record
from patch_svdd_jax.errors import UserError
from tests.support.runs import tiny_config


def train_row(devices, batch, pairs_per_s):
  why_not = '' if pairs_per_s else 'does not fit'
  share = pairs_per_s and pairs_per_s / 1e3
  return {
    'devices': devices,
    'batch': batch,
    'why_not': why_not,
    'pairs_per_s': pairs_per_s,
    'utilisation': share,
    'memory': pairs_per_s and 2_000_000,
  }


def predict_row(contender, size, p50):
  alone = {'total': {'p50': p50, 'p95': 2 * p50, 'p99': 3 * p50}}
  return {
    'contender': contender,
    'size': size,
    'bank_rows': 1000,
    'images_per_s': 1 / p50,
    'alone': alone,
    'peak_memory': 2**30,
  }


def contents(benchmark, rows, device='here', **train):
  return record.contents(benchmark, device, tiny_config(**train), rows)


@pytest.fixture
def compare(tmp_path):
  """Compares two files of contents."""

  def write(name, values):
    path = tmp_path / name
    path.write_text(values if isinstance(values, str) else json.dumps(values))
    return path

  return lambda one, other: comparison.compare(write('a.json', one), write('b.json', other))


def cells(shown):
  lines = [line for line in shown.splitlines() if line.startswith('|')]
  _, _, *rows = ([cell.strip() for cell in line.split('|')[1:-1]] for line in lines)
  return rows


def test_the_train_step(compare, tmp_path):
  one = contents(
    'train', [train_row(1, 64, 100.0), train_row(2, 64, 150.0), train_row(2, 128, None)]
  )
  other = contents('train', [train_row(1, 64, 250.0), train_row(2, 128, 9.0)], 'there')
  # Where data lies is the machine's own.
  other['config']['data']['root'] = '/elsewhere'
  shown = compare(one, other)
  assert cells(shown) == [
    ['1', '64', '100', '250', '2.5', '10.0%', '25.0%', '2.5', '2', '2', '1'],
    ['2', '64', '150', '-', '-', '15.0%', '-', '-', '2', '-', '-'],
    ['2', '128', '-', '9', '-', '-', '0.9%', '-', '-', '2', '-'],
  ]
  assert f'A: {tmp_path / "a.json"}, here, patch_svdd_jax ' in shown
  assert f'B: {tmp_path / "b.json"}, there, patch_svdd_jax ' in shown


def test_a_detector(compare):
  one = contents('predict', [predict_row('faiss', [128, 128], 0.02)])
  rows = [predict_row('faiss', size, 0.01) for size in ([128, 128], [128, 256])]
  other = contents('predict', rows)
  other['config']['data']['image_size'] = [128, 256]
  first, second = cells(compare(one, other))
  assert first[:3] == ['faiss', '128', '1,000']
  assert first[3:9] == ['50', '100', '2', '20', '10', '0.5']
  assert first[9:] == ['40', '20', '0.5', '1,024', '1,024', '1']
  assert second[:6] == ['faiss', '128 x 256', '1,000', '-', '100', '-']


TRAIN = contents('train', [train_row(1, 64, 100.0)])


def changed(change):
  found = copy.deepcopy(TRAIN)
  change(found)
  return found


@pytest.mark.parametrize(
  ('other', 'line'),
  [
    (
      contents('predict', [predict_row('faiss', [128, 128], 0.02)]),
      r'a\.json is of `benchmark train`, \S*b\.json is of `benchmark predict`: give two of one',
    ),
    (
      contents('train', [train_row(1, 64, 100.0)], batch_size=16, compute='bfloat16'),
      r"\(config\.train\.batch_size: 8 and 16; config\.train\.compute: 'float32' and 'bfloat16'\)",
    ),
    (
      changed(lambda found: found['config']['train'].pop('contrast')),
      r"config\.train\.contrast: 0\.0 and 'absent'",
    ),
    (contents('train', [train_row(2, 64, 1.0)]), r'have no devices, batch in common'),
    (
      contents('sleep', []),
      r"b\.json is of the benchmark 'sleep': give files of train or predict or runtime",
    ),
    (changed(lambda found: found['rows'][0].pop('memory')), r"is damaged: KeyError\('memory'\)"),
    (changed(lambda found: found.update(rows=3)), r'is damaged: TypeError'),
    (changed(lambda found: found.update(config=3)), r'is damaged'),
    (changed(lambda found: found.pop('versions')), r'b\.json is no file of `patch-svdd benchmark'),
    ('[1, 2]', r'b\.json is no file of `patch-svdd benchmark'),
    ('{"a": ', r'b\.json is no JSON file: '),
  ],
)
def test_what_cannot_be_compared_is_refused(compare, other, line):
  with pytest.raises(UserError, match=line):
    compare(TRAIN, other)


def test_a_file_that_is_not_there(tmp_path):
  with pytest.raises(UserError, match=r'nothing\.json: No such file'):
    comparison.compare(tmp_path / 'nothing.json', tmp_path)
