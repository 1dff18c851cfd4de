"""The Python interface: the documented example runs, and what it says of images is true."""

import ast
import importlib
import pathlib
import re
import threading

import numpy as np
import pytest

import patch_svdd_jax
from patch_svdd_jax import PatchSVDD, configuration
from patch_svdd_jax.detection import distribution_shift, inspection
from patch_svdd_jax.errors import UserError
from tests.support.runs import tiny_config

DOCUMENT = pathlib.Path(__file__).parents[1] / 'docs' / 'python.md'


def quick_config(image_size=(128, 128)):
  config = tiny_config(image_size=image_size, mean='channel', steps=2, every=2)
  config.data.update(light='standardised', held_out=0.1, resize='box')
  config.score.update(strides=(16, 8), batch_size=4)
  config.calibration.folds = 2
  return config


@pytest.fixture(scope='module')
def example(tmp_path_factory):
  """What the names of the documented example stand for after it has run."""
  code = re.search(r'```python\n(.*?)```', DOCUMENT.read_text(), re.DOTALL)[1]
  names: dict = {}
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(tmp_path_factory.mktemp('example'))
    # Its own settings take minutes.
    patch.setattr(configuration, 'read', {'laptop': quick_config()}.__getitem__)
    exec(code, names)
    names['folder'] = pathlib.Path('runs/python').absolute()
  return names


def test_the_documented_example_runs(example):
  found = example['found']
  assert found.scores.shape == found.p_values.shape == found.alarms.shape == (2,)
  assert found.maps.shape == (2, 128, 128)
  assert found.scores[1] > found.scores[0]
  assert len(found.regions) == len(found.warnings) == 2


def test_p_values_and_alarms_follow_from_the_normal_images(example):
  detector, found = example['detector'].detector, example['found']
  normal = detector.calibration.scores
  assert len(normal) == 52
  expected = [(1 + np.sum(normal >= score)) / 53 for score in found.scores]
  np.testing.assert_allclose(found.p_values, expected)
  np.testing.assert_array_equal(found.alarms, found.p_values <= 0.05)


def test_regions_are_where_the_map_is_high_and_only_of_alarms(example):
  detector, found = example['detector'], example['found']
  limit = inspection.limits(detector.detector, 0.05, 0.01)
  for alarm, regions, values in zip(found.alarms, found.regions, found.maps, strict=True):
    assert bool(regions) <= bool(alarm)
    if alarm:
      assert sum(region.area for region in regions) == np.sum(values > limit.pixel.value)
      assert regions[0].score == values.max()


def test_darker_images_are_warned_of_by_name(example):
  detector = example['detector']
  normal_image = example['normal'][5]
  found = detector.predict([normal_image, (normal_image * 0.5).astype(np.uint8)])
  assert found.warnings[0] == ()
  assert found.warnings[1][0].startswith('brightness')
  normal = detector.detector.calibration.statistics
  assert distribution_shift.outside(normal, found.statistics) == list(found.warnings)


def test_a_batch_of_any_sizes_is_scored_as_its_images_are_alone(example):
  detector, bad = example['detector'], example['bad']
  large = np.kron(bad, np.ones((2, 3), np.uint8))
  together = detector.predict([bad, large])
  np.testing.assert_allclose(together.scores, together.scores[0], rtol=1e-4)
  box, wide = together.regions[0][:1], together.regions[1][:1]
  for one, other in zip(box, wide, strict=True):
    assert other.box == tuple(np.multiply(one.box, (3, 2, 3, 2)))
    assert other.area == 6 * one.area


def test_the_same_call_goes_on_in_its_workdir(example):
  # Finished: nothing is trained, though a thread without signals asks.
  again = []
  thread = threading.Thread(
    target=lambda: again.append(
      PatchSVDD.fit(example['normal'], quick_config(), workdir=example['folder'])
    )
  )
  thread.start()
  thread.join()
  np.testing.assert_array_equal(
    again[0].predict([example['bad']]).scores, example['found'].scores[1:]
  )


def test_good_images_are_added_without_training(example, tmp_path):
  detector = PatchSVDD.load(example['folder'])
  before = detector.predict([example['bad']], false_alarm_rate=0.05)
  moved = detector.add([example['bad']], names=['odd'], false_alarm_rate=0.05)
  assert moved.scores[0] == pytest.approx(before.scores[0], rel=1e-5)
  assert moved.images == (52, 53)
  assert detector.predict([example['bad']]).scores[0] < 1e-3 * before.scores[0]
  detector.save(tmp_path)
  (added,) = PatchSVDD.load(tmp_path).detector.origin.additions
  assert (added.name, added.file) == ('odd', '')


def test_what_it_refuses(example, tmp_path):
  detector = example['detector']
  with pytest.raises(UserError, match=r'image 0 is float64\[5, 5\]'):
    detector.predict([np.zeros((5, 5))])
  with pytest.raises(UserError, match=r'false-alarm rate 1'):
    detector.predict([example['bad']], false_alarm_rate=1.0)
  with pytest.raises(UserError, match='no fitted detector'):
    PatchSVDD.load(tmp_path)
  for images in ([], example['good'], example['good'][..., None], 'part.png'):
    line = 'no images|may be one image, or several|of type str'
    with pytest.raises(UserError, match=line):
      PatchSVDD.fit(images, quick_config())
    with pytest.raises(UserError, match=line):
      detector.predict(images)
  with pytest.raises(UserError, match='1 names for 2 images'):
    detector.predict([example['good'], example['bad']], names=['good'])
  for config in (None, {}, 7):
    with pytest.raises(UserError, match='config is of type'):
      PatchSVDD.fit([example['good']], config)
  for workdir in ('', None, 7):
    with pytest.raises(UserError, match='is no path'):
      detector.save(workdir)


def test_a_setting_that_was_changed_since_is_checked_again(example, tmp_path):
  example['detector'].save(tmp_path)
  for key, value in {'batch_size': 0, 'strides': (0, 4), 'tile': -1}.items():
    detector = PatchSVDD.load(tmp_path)
    detector.config.score[key] = value
    with pytest.raises(UserError, match=rf'config\.score\.{key}='):
      detector.predict([example['bad']])


def test_more_neighbours_than_rows_are_refused_before_training(example, tmp_path):
  config = quick_config()
  config.score.update(neighbours=100_000, coreset=0.01)
  with pytest.raises(UserError, match=r'^config\.score\.neighbours=100000: the memory bank of K='):
    PatchSVDD.fit(example['normal'], config, workdir=tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


def test_what_is_offered_is_there_and_type_checkers_see_it():
  tree = ast.parse(pathlib.Path(patch_svdd_jax.__file__).read_text())
  imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
  checked = {alias.name: node.module for node in imports[1:] for alias in node.names}
  assert {*checked, '__version__'} == set(patch_svdd_jax.__all__) <= set(dir(patch_svdd_jax))
  for name, module in checked.items():
    assert getattr(patch_svdd_jax, name) is getattr(importlib.import_module(module), name)
  with pytest.raises(AttributeError, match='no attribute'):
    patch_svdd_jax.Nothing  # noqa: B018
