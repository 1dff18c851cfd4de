"""The page of a prediction: the highest scores, however many images there are."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from patch_svdd_jax.configs import default
from patch_svdd_jax.data import image_stream
from patch_svdd_jax.detection.calibration import Threshold
from patch_svdd_jax.detection.prediction import Prediction
from patch_svdd_jax.detection.regions import Region
from patch_svdd_jax.reporting.html import predicted, render
from patch_svdd_jax.reporting.predictions import Failure

THRESHOLD = Threshold(0.45, 0.02, ensured=True)


@pytest.fixture
def sources(tmp_path):
  for i in range(3):
    Image.fromarray(np.full((40, 48, 3), 60 * i, np.uint8)).save(tmp_path / f'{i}.png')
  return image_stream.find([tmp_path])


def line(name, score):
  alarm = score > THRESHOLD.value
  regions = (Region((1, 2, 3, 4), 9, score),) * alarm
  return Prediction(name, score, 0.25, alarm, (40, 48), regions, ('noise 9',))


def make(lines, highest, sources, **options):
  config = default.get_config()
  config.data.image_size = (20, 24)
  return predicted.make(
    lines, highest, sources, config, title='parts', map_name='k32', threshold=THRESHOLD, **options
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


def test_the_page_counts_all_and_shows_the_highest(sources):
  lines = [line(f'{i}.png', i / 4) for i in range(3)]
  unreadable = Failure('cut.png', 'cut short')
  page = make(
    [*lines, unreadable], predicted.HighestScores((0, 1)), sources, most=2, warnings=['dark']
  )
  assert [item.name for item in page.items] == ['2.png', '1.png']
  assert sorted(page.scores['images']) == [0, 0.25, 0.5]
  assert page.warnings == ['dark', '1 file could not be read: results.csv says why']
  first, second = page.items
  assert (first.alarm, second.alarm, first.p_value, first.size) == (True, False, 0.25, (40, 48))
  assert first.regions == (((1, 2, 3, 4), 9, 0.5),)
  assert (second.regions, first.warnings) == ((), ('noise 9',))


def test_an_image_that_was_scored_before_a_stop_is_read_again(sources):
  page = make([line('1.png', 0.5)], predicted.HighestScores((0, 1)), sources)
  [item] = page.items
  image, instead = item.views()
  assert (image.height, image.width) == (213, 256)  # of 20 x 24
  assert instead.text == 'scored before the run was stopped'
  sources[1].path.unlink()
  [lost] = item.views()
  assert '1.png' in lost.text
  page = make([line('gone.png', 0.5)], predicted.HighestScores((0, 1)), sources)
  assert page.items[0].views()[0].text == 'not among the images any more'
  assert 'not among the images any more' in render(page)


def test_without_a_readable_image_there_is_a_page(sources):
  page = make([Failure('a', 'b')], predicted.HighestScores((0, 1)), sources)
  assert 'could not be read' in render(page)
