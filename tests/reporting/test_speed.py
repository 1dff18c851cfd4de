"""Lines about speed, and the rate of batches, against sums by hand."""

import re

import pytest

from patch_svdd_jax.detection.scores import STAGES
from patch_svdd_jax.reporting import speed

SECONDS = {'verdict': 0.0001, 'decode': 0.00123456, 'search': 1.5, 'embed': 0.03125, 'map': 0.002}


def test_a_line_has_the_stages_in_their_order():
  assert speed.summary(6.5123, SECONDS) == (
    '6.51 images/s; milliseconds an image: decode 1.23, embed 31.2, search 1,500, map 2, '
    'verdict 0.1'
  )


def test_what_was_not_measured_is_left_out():
  assert speed.summary(1234.5, {'embed': 0.5}) == (
    '1,234 images/s; milliseconds an image: embed 500'
  )


def test_stages_one_after_another():
  assert speed.one_after_another({'embed': 0.1, 'search': 0.4}) == pytest.approx(2)
  assert speed.to_json(2.0, {'embed': 0.1}) == {
    'images_per_s': 2.0,
    'seconds_per_image': {'embed': 0.1},
  }


@pytest.fixture
def clock(monkeypatch):
  """A function that sets the time."""
  now = [100.0]
  monkeypatch.setattr(speed.time, 'perf_counter', lambda: now[0])

  def set_to(seconds):
    now[0] = 100.0 + seconds

  return set_to


def stages(scale):
  return {name: scale * (1 + place) for place, name in enumerate(STAGES[1:])}


def milliseconds(line):
  found = re.findall(r'(?:, |: |; )(?:(\w+) )?([\d.,]+\d)(?: in all)?', line)
  return {name or 'all': float(text.replace(',', '')) for name, text in found}


def test_the_batch_that_compiles_is_not_counted(clock):
  rate = speed.Rate()
  rate.decode(4, 0.4)
  clock(27)
  rate.score(4, stages(1.0))
  for end, scale, images in ((28, 0.01, 4), (30, 0.04, 2)):
    rate.decode(images, 0.2)
    clock(end)
    rate.score(images, stages(scale))
  clock(33)
  rate.end()
  line = rate.summary()
  # Six images in 33 - 27 seconds, at 10 and 40 ms for four and two of them.
  assert line.startswith('1 images/s; ')
  assert 'took 27 s and is not counted' in line
  found = milliseconds(line)
  assert found['decode'] == pytest.approx(1e3 * 0.8 / 10)
  for place, name in enumerate(STAGES[1:]):
    assert found[name] == pytest.approx((1 + place) * (4 * 10 + 2 * 40) / 6)
  assert found['all'] == pytest.approx(1000)


def test_one_batch_alone_counts(clock):
  rate = speed.Rate()
  assert rate.summary() == ''
  rate.decode(3, 0.3)
  assert rate.summary() == ''  # no image could be read
  clock(6)
  rate.score(2, stages(0.5))
  rate.end()
  line = rate.summary()
  assert line.startswith('0.333 images/s; milliseconds an image: decode 100, embed 500, ')
  assert line.endswith(
    '3,000 in all, with decoding and pictures meanwhile (the first batch, which '
    'compiles, is all there is)'
  )
