"""Figures of contenders whose times and scores are known."""

import functools

import numpy as np
import pytest
from PIL import Image

from patch_svdd_jax.benchmarking import contenders, measuring
from patch_svdd_jax.benchmarking.contenders import Answer, Contender, Once
from patch_svdd_jax.configs import default
from patch_svdd_jax.data.file_search import Source
from patch_svdd_jax.errors import UserError

SIZE = (6, 8)
# By the grey level of the image.
LEVELS = (10, 50, 90)
SETTINGS = {'size': SIZE, 'bank_rows': 7, 'batch': 2, 'rounds': 6, 'seconds': 60.0}


def test_percentiles_are_those_of_numpy():
  samples = np.random.default_rng(0).gamma(2.0, size=101)
  found = measuring.percentiles(samples)
  # Of 101 samples the percentiles are samples themselves.
  ranked = sorted(samples)
  assert found == {'p50': ranked[50], 'p95': ranked[95], 'p99': ranked[99]}
  few = [4.0, 1.0, 3.0]
  expected = np.quantile(few, [0.5, 0.95, 0.99])
  assert list(measuring.percentiles(few).values()) == pytest.approx(expected)


def test_each_stage_has_its_own():
  images = [Once(10.0 + i, {'decode': 1.0 * i, 'search': 5.0 - i}, 0.0) for i in range(5)]
  found = measuring.of_each_stage(images)
  assert {stage: figures['p50'] for stage, figures in found.items()} == {
    'total': 12.0,
    'decode': 2.0,
    'search': 3.0,
  }


@pytest.fixture
def files(tmp_path):
  sources = []
  for level in LEVELS:
    path = tmp_path / f'{level}.png'
    Image.fromarray(np.full((12, 16, 3), level, np.uint8)).save(path)
    sources.append(Source(path.name, path))
  return sources


@pytest.fixture
def seen():
  """Who scored what, in order: (name, the levels of the images, what they were padded to)."""
  return []


def ask_of(name, seen, scale=1.0):
  """A contender that scores an image by its grey level, at 1 and 2 ms an image."""
  data = default.get_config().data
  data.image_size = SIZE

  def inspect(split, size):
    assert split.images.shape[1:3] == SIZE
    scores = split.images.mean(axis=(1, 2, 3), dtype=np.float32)
    seen.append((name, [int(score) for score in scores], size))
    return Answer(scale * scores, {'embed': 0.001, 'search': 0.002})

  contender = Contender(inspect, data, alone=1, batch=2)
  return lambda function, *arguments: function(contender, *arguments)


def test_all_score_the_same_files_in_turns(files, seen):
  asks = {name: ask_of(name, seen) for name in (measuring.OURS, 'other')}
  rows, ours = measuring.measure(asks, files, **SETTINGS)
  np.testing.assert_array_equal(ours, LEVELS[:2])
  singles = [(name, *levels) for name, levels, size in seen if size == 1]
  # The first image of each compiles; then rounds, every other one backwards, over all files.
  assert singles[:2] == [(measuring.OURS, 10), ('other', 10)]
  assert singles[2:8] == [
    *((measuring.OURS, 10), ('other', 10)),
    *(('other', 50), (measuring.OURS, 50)),
    *((measuring.OURS, 90), ('other', 90)),
  ]
  assert len(singles) == 2 * (1 + SETTINGS['rounds'])
  batches = [levels for name, levels, size in seen if (name, size) == ('other', 2)]
  # Two of them are compared; then all are streamed.
  assert batches == [[10, 50], *[[10, 50], [90]] * measuring.PASSES]
  assert [row.contender for row in rows] == list(asks)
  for row in rows:
    assert (row.rounds, row.passes, row.files, row.size, row.bank_rows) == (6, 3, 3, SIZE, 7)
    assert row.score_difference == 0
    assert list(row.alone) == ['total', 'decode', 'embed', 'search']
    assert row.alone['embed'] == pytest.approx({'p50': 0.001, 'p95': 0.001, 'p99': 0.001})
    assert row.seconds_per_image['search'] == pytest.approx(0.002)
    assert row.seconds_per_image['decode'] > 0
    assert row.images_per_s > 0
    assert row.peak_memory > 2**20


def test_a_pass_that_would_take_too_long_is_of_one_batch(files, seen):
  asks = {measuring.OURS: ask_of('ours', seen)}
  ((row,), _) = measuring.measure(asks, files, **SETTINGS | {'seconds': 1e-9})
  assert (row.rounds, row.passes, row.files) == (measuring.FEWEST, 1, 2)
  assert seen[-1] == ('ours', [10, 50], 2)


@pytest.mark.parametrize('scale', [1.002, 0.998, np.nan])
def test_who_disagrees_is_refused_before_anybody_is_timed(files, seen, scale):
  asks = {measuring.OURS: ask_of('ours', seen), 'other': ask_of('other', seen, scale)}
  with pytest.raises(UserError, match=r'^other gives image [01] the score .*: nothing was timed$'):
    measuring.measure(asks, files, **SETTINGS)
  assert len(seen) == 4


def test_a_small_difference_is_told(files, seen):
  asks = {measuring.OURS: ask_of('ours', seen), 'other': ask_of('other', seen, 1.0005)}
  rows, _ = measuring.measure(asks, files, **SETTINGS)
  assert rows[1].score_difference == pytest.approx(5e-4, rel=0.01)


def test_one_alone_is_compared_with_what_was_scored_before(files, seen):
  asks = {'other': ask_of('other', seen)}
  wrong = np.array([10.0, 51.0], np.float32)
  with pytest.raises(UserError, match=r'^other gives image 1 the score 50 where .* gives 51,'):
    measuring.measure(asks, files, ours=wrong, **SETTINGS)
  rows, _ = measuring.measure(asks, files, ours=wrong - [0, 1], **SETTINGS)
  assert [row.contender for row in rows] == ['other']


def test_rounds_end_in_time(monkeypatch):
  now = iter(range(100))
  monkeypatch.setattr(measuring.time, 'perf_counter', lambda: float(next(now)))
  assert list(measuring.until(range(50), 10.5, 2)) == list(range(12))
  assert list(measuring.until(range(50), 0.5, 3)) == [0, 1, 2]
  assert list(measuring.until(range(4), 100.0, 1)) == [0, 1, 2, 3]


def test_a_file_that_cannot_be_read_is_named(files, seen):
  files[1].path.write_bytes(b'no image')
  ask = functools.partial(ask_of('ours', seen), contenders.stream)
  with pytest.raises(UserError, match=r'50\.png'):
    ask(files)
