"""What training gained is measured once for each detector."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from patch_svdd_jax.detection.detector import Origin
from patch_svdd_jax.evaluation import training_gain
from patch_svdd_jax.evaluation.training_gain import TrainingGain
from patch_svdd_jax.experiments import gain_record
from tests.support.runs import tiny_config

GAIN = TrainingGain(
  2,
  {
    'trained': {'image_auroc': 1 / 3, 'pixel_auroc': 0.8},
    'untrained': {'image_auroc': 0.5, 'pixel_auroc': 0.9},
  },
  {'trained': {'stain': {'image_auroc': 0.1}}, 'untrained': {}},
  {'untrained': (-1 / 6, 0.01)},
)


@dataclasses.dataclass
class FakeDetector:
  """What a record knows of a detector."""

  origin: Origin


def detector(step=3, images='a', **score):
  config = tiny_config()
  config.score.update(score)
  return FakeDetector(Origin(config, step, images))


def dataset(seed=0):
  images = np.random.default_rng(seed).integers(0, 256, (2, 40, 48, 3), dtype=np.uint8)
  return SimpleNamespace(
    train=SimpleNamespace(images=images, regions=None),
    held_out=SimpleNamespace(images=images, regions=None),
  )


@pytest.fixture
def measured(monkeypatch):
  """The detectors that were measured."""
  found = []

  def measure(detector, *_):
    found.append(detector)
    return GAIN

  monkeypatch.setattr(training_gain, 'measure', measure)
  return found


def measure(workdir, detector, data):
  return gain_record.measure(detector, workdir, data, lambda _: iter)


def test_the_same_detector_is_measured_once(tmp_path, measured):
  for _ in range(2):
    found = measure(tmp_path, detector(), dataset())
    assert found.figures == GAIN.figures
    assert found.per_kind == GAIN.per_kind
    assert found.summary() == GAIN.summary()
    assert found.warning() == GAIN.warning()
  assert len(measured) == 1


def test_what_an_older_version_has_measured_is_measured_anew(tmp_path, measured, monkeypatch):
  measure(tmp_path, detector(), dataset())
  monkeypatch.setitem(gain_record.TITLES, 'another', 'another figure')
  measure(tmp_path, detector(), dataset())
  assert len(measured) == 2


@pytest.mark.parametrize(
  ('other', 'data'),
  [
    (detector(step=4), dataset()),
    (detector(images='b'), dataset()),
    (detector(neighbours=2), dataset()),
    (detector(), dataset(1)),
  ],
)
def test_another_detector_is_measured_anew(tmp_path, measured, other, data):
  measure(tmp_path, detector(), dataset())
  measure(tmp_path, other, data)
  assert len(measured) == 2


@pytest.mark.parametrize('contents', ['', '[]', '{"of": 1}', '{"images": 2}', 'null'])
def test_a_damaged_record_is_measured_anew(tmp_path, measured, contents):
  (tmp_path / gain_record.FILE).write_text(contents)
  assert measure(tmp_path, detector(), dataset()) == GAIN
  assert len(measured) == 1


def test_a_record_that_lacks_a_part_is_measured_anew(tmp_path, measured):
  measure(tmp_path, detector(), dataset())
  path = tmp_path / gain_record.FILE
  path.write_text(path.read_text().replace('"gains"', '"others"'))
  assert measure(tmp_path, detector(), dataset()) == GAIN
  assert len(measured) == 2


def test_nothing_is_kept_where_nothing_can_be_told(tmp_path, monkeypatch):
  monkeypatch.setattr(training_gain, 'measure', lambda *_: None)
  assert measure(tmp_path, detector(), dataset()) is None
  assert not list(tmp_path.iterdir())
