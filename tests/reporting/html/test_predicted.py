"""The page of a prediction: the highest scores, however many images there are."""

import dataclasses

import numpy as np

from patch_svdd_jax.configs import default
from patch_svdd_jax.detection.calibration import Threshold
from patch_svdd_jax.detection.prediction import Prediction
from patch_svdd_jax.detection.regions import Region
from patch_svdd_jax.reporting.html import predicted, render
from patch_svdd_jax.reporting.prediction_lines import Failure

THRESHOLD = Threshold(0.45, 0.02, ensured=True)


def line(name, score):
  alarm = score > THRESHOLD.value
  regions = (Region((1, 2, 3, 4), 9, score),) * alarm
  return Prediction(name, score, 0.25, alarm, (40, 48), regions, ('noise 9',))


def make(lines, highest, **options):
  config = default.get_config()
  return predicted.make(
    lines,
    highest,
    config,
    title='parts',
    map_name='k32',
    threshold=THRESHOLD,
    **options,
  )


def test_pictures_of_the_highest_scores_are_kept(split, found):
  highest = predicted.HighestScores((0, 1), most=3)
  for first in range(0, len(split), 4):
    some = np.arange(first, min(first + 4, len(split)))
    part = {name: getattr(found, name)[some] for name in ('scores', 'maps')}
    highest.take(split.take(some), dataclasses.replace(found, **part))
  order = np.argsort(found.scores)[::-1]
  assert set(highest.views) == {split.names[i] for i in order[:3]}
  views = highest.views[split.names[order[0]]]
  assert [view.name for view in views] == ['image', 'anomaly map', 'overlay']


def test_the_page_counts_all_and_shows_the_highest():
  lines = [line(f'{i}.png', i / 4) for i in range(3)]
  unreadable = Failure('cut.png', 'cut short')
  page = make([*lines, unreadable], predicted.HighestScores((0, 1)), most=2, warnings=['dark'])
  assert [item.name for item in page.items] == ['2.png', '1.png']
  assert sorted(page.scores['images']) == [0, 0.25, 0.5]
  assert page.warnings == ['dark', '1 file could not be read: results.csv says why']
  first, second = page.items
  assert (first.alarm, second.alarm, first.p_value, first.size) == (True, False, 0.25, (40, 48))
  assert first.regions == (((1, 2, 3, 4), 9, 0.5),)
  assert (second.regions, first.warnings) == ((), ('noise 9',))


def test_an_image_that_cannot_be_read_any_more_has_no_picture():
  page = make([line('gone.png', 0.5)], predicted.HighestScores((0, 1)))
  assert 'cannot be read any more' in render(page)


def test_without_a_readable_image_there_is_a_page():
  page = make([Failure('a', 'b')], predicted.HighestScores((0, 1)))
  assert 'could not be read' in render(page)
