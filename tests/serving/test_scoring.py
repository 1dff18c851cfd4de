"""Which sizes batches are padded to, what is said of thresholds, and when light is warned of."""

import logging
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from patch_svdd_jax.configs import default
from patch_svdd_jax.detection import inspection
from patch_svdd_jax.detection.calibration import calibrate
from patch_svdd_jax.detection.inspection import Inspection
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.serving.scoring import DetectorScorer

SIZE = (6, 7)


@pytest.fixture
def padded(monkeypatch):
  """What batches are padded to; images are scored by their brightness."""
  sizes = []

  def inspect_padded(detector, split, limit, size):
    sizes.append(size)
    scores = split.images.mean(axis=(1, 2, 3))
    count = len(split)
    return Inspection(
      scores=scores,
      maps=np.broadcast_to(scores[:, None, None], (count, *SIZE)),
      p_values=detector.calibration.p_values(scores),
      alarms=scores > limit.image.value,
      regions=((),) * count,
      warnings=((),) * count,
      statistics={'brightness': scores},
    )

  monkeypatch.setattr(inspection, 'inspect_padded', inspect_padded)
  return sizes


def make_scorer(batch_size, brighter=0):
  config = default.get_config()
  config.data.image_size = SIZE
  config.data.light = 'kept'
  config.score.batch_size = batch_size
  scores = np.linspace(90, 110, 19) + brighter
  maps = np.repeat(scores, 42).reshape(-1, *SIZE)
  detector = SimpleNamespace(
    needs_regions=False,
    region=None,
    config=config,
    calibration=calibrate(scores, maps, {'brightness': scores}),
    origin=SimpleNamespace(step=3, images='abc'),
  )
  return DetectorScorer(detector, 'parts', 0.1, 0.01)


def prepared(scorer, levels):
  return [
    scorer.prepare(np.full((9, 8, 3), level, np.uint8), f'{number}.png')
    for number, level in enumerate(levels)
  ]


@pytest.mark.parametrize(
  ('batch_size', 'sizes'),
  [(1, [1]), (3, [1, 3]), (4, [1, 4]), (8, [1, 4, 8]), (32, [1, 4, 16, 32])],
)
def test_sizes(batch_size, sizes):
  devices = jax.local_device_count()
  assert make_scorer(batch_size).sizes() == [devices * size for size in sizes]


def test_every_batch_has_one_of_the_sizes_that_are_compiled(padded):
  scorer = make_scorer(8)
  assert scorer.batch_size == 0
  while scorer.grow():
    compiled = [*padded]
    assert scorer.batch_size == max(compiled)
    for count in range(1, scorer.batch_size + 1, 5):
      levels = 90 + np.arange(count) % 21
      before = scorer.about()['scored']
      found = scorer.score(prepared(scorer, levels))
      assert scorer.about()['scored'] == before + count
      assert padded.pop() == min(size for size in compiled if size >= count)
      assert [each.prediction.score for each in found] == levels.tolist()
      assert [each.prediction.size for each in found] == [(9, 8)] * count
      assert all((each.map == each.prediction.score).all() for each in found)
  assert compiled == scorer.sizes()


def test_what_is_said_of_it():
  scorer = make_scorer(8)
  about = scorer.about()
  assert about['threshold'] | {'value': 0} == {
    'value': 0, 'rate_asked': 0.1, 'rate': 0.1, 'ensured': True
  }  # fmt: skip
  assert not about['pixel_threshold']['ensured']
  assert about['calibration_images'] == 19
  assert len(about['warnings']) == 1
  assert sum(scorer.scale) / 2 == about['pixel_threshold']['value']


@pytest.mark.usefixtures('padded')
def test_other_light_is_logged_once_and_told_while_it_lasts(caplog):
  scorer = make_scorer(8)
  usual, dark = 90 + np.arange(20), np.full(20, 30)
  with caplog.at_level(logging.WARNING):
    scorer.score(prepared(scorer, usual))
    assert (scorer.about()['shift'], caplog.records) == ([], [])
    for _ in range(5):
      scorer.score(prepared(scorer, dark))
    (text,) = scorer.about()['shift']
    assert text.startswith('brightness of these 100 images')
    (record,) = caplog.records
    assert 'other light, camera or focus' in record.message
    for _ in range(5):
      scorer.score(prepared(scorer, usual))
    assert scorer.about()['shift'] == []


def test_another_detector_takes_over_once_it_is_compiled(padded, monkeypatch):
  scorer, other = make_scorer(8), make_scorer(8, brighter=50).detector
  for _ in range(2):
    scorer.grow()
  padded.clear()
  (before,) = scorer.score(prepared(scorer, [120]))
  seen = []
  inspect_padded = inspection.inspect_padded

  def note(detector, *arguments):
    seen.append((detector is other, scorer.detector is other))
    return inspect_padded(detector, *arguments)

  with monkeypatch.context() as patch:
    patch.setattr(inspection, 'inspect_padded', note)
    scorer.replace(other)
  assert padded == [scorer.sizes()[0], *scorer.sizes()[:2]]
  assert seen == [(True, False)] * 2
  (after,) = scorer.score(prepared(scorer, [120]))
  assert (before.prediction.alarm, after.prediction.alarm) == (True, False)
  assert scorer.about()['threshold']['value'] == 50 + make_scorer(8).about()['threshold']['value']
  with pytest.raises(UserError, match='not calibrated'):
    scorer.replace(SimpleNamespace(**vars(other) | {'calibration': None}))
  assert scorer.detector is other
