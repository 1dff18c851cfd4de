"""Calibration of a detector: which images, scored by what, and that it is saved with the model."""

import dataclasses

import numpy as np
import pytest

from patch_svdd_jax.data import Split, appearance
from patch_svdd_jax.detection import anomaly_map, calibration_scores
from patch_svdd_jax.detection.detector import Detector
from patch_svdd_jax.models import architecture, embedding, features
from patch_svdd_jax.models.architecture import strides_of
from patch_svdd_jax.models.encoder import init_encoder
from patch_svdd_jax.search import memory_bank
from patch_svdd_jax.system import batching
from tests.support.runs import tiny_config

SIZE = (24, 32)


def split_of(seed, count):
  images = np.random.default_rng(seed).integers(0, 256, (count, *SIZE, 3), np.uint8)
  return Split(
    images=images,
    masks=np.zeros((count, *SIZE), bool),
    has_mask=np.ones(count, bool),
    labels=np.zeros(count, bool),
    defects=('good',) * count,
    names=tuple(f'{seed}/{i}.png' for i in range(count)),
    sizes=np.full((count, 2), SIZE),
    appearance=np.stack([appearance.image_statistics(image) for image in images]),
    digests=('',) * count,
  )


TRAIN, HELD_OUT = split_of(0, 9), split_of(1, 4)


# How patches are described: by the embedding, and by all there is.
DESCRIBED = {
  'embedding': {},
  'all': {'features': ('embedding', 'hidden', 'thumbnail'), 'whiten': True, 'components': 20},
}


@pytest.fixture(scope='module', params=DESCRIBED)
def detector(request):
  config = tiny_config(image_size=SIZE, mean='channel')
  config.encoder.depth = 3
  config.score.update({'strides': (8, 4), 'batch_size': 2} | DESCRIBED[request.param])
  return Detector.fit(config, init_encoder(config), TRAIN.images, step=0)


@pytest.fixture(scope='module')
def calibrated(detector):
  return calibration_scores.calibrate(detector, TRAIN, HELD_OUT)


def test_each_image_is_scored_without_its_fold(detector, calibrated):
  found = calibrated.calibration
  both = np.concatenate([TRAIN.images, HELD_OUT.images])
  fold = np.repeat(np.arange(5), [3, 3, 2, 3, 2])
  assert found.images == 13
  # Runs of 3, 3, 2, 3, 2 images: every bank has 10.
  expected = []
  for k in range(5):
    others = np.flatnonzero(fold != k)
    others = others[batching.evenly_spaced(len(others), 10)]
    expected.append(scores_without(detector, both[fold == k], both[others]))
  np.testing.assert_allclose(found.scores, np.sort(np.concatenate(expected)), rtol=1e-4)
  # By banks with these images in them the scores would be nearly nothing.
  own = detector.score(TRAIN.images).images['product']
  assert own.max() < 0.1 * found.scores.min()


def scores_without(detector, images, others):
  """By brute force in float64, from embeddings of a detector's own."""
  arch = architecture.from_config(detector.config.encoder)
  strides = strides_of(detector.config)
  grids, rows = (
    embedding.embed_to_host(
      arch,
      detector.params,
      detector.mean,
      part,
      strides,
      batch_size=len(part),
      features=features.from_config(detector.config.score),
    )
    for part in (images, others)
  )
  maps = []
  for k, stride in strides.items():
    queries, bank = grids[k].astype(np.float64), rows[k].astype(np.float64)
    nearest = np.array([np.sqrt(((bank - query) ** 2).sum(1).min()) for query in queries])
    side = [(length - k) // stride + 1 for length in SIZE]
    maps.append(
      anomaly_map.upsample(
        nearest.reshape(len(images), *side).astype(np.float32),
        image_size=SIZE,
        receptive_field=k,
        stride=stride,
      )
    )
  return np.prod(maps, axis=0).max((1, 2))


def test_enough_held_out_images_are_scored_by_the_detector_itself(detector, monkeypatch):
  monkeypatch.setattr(calibration_scores, 'ENOUGH', 4)
  found = calibration_scores.calibrate(detector, TRAIN, HELD_OUT).calibration
  expected = detector.score(HELD_OUT.images)
  np.testing.assert_array_equal(found.scores, np.sort(expected.images['product']))
  assert found.levels[-1] == expected.maps['product'].max()
  assert found.levels[0] == expected.maps['product'].min()


def test_outliers_are_dropped_from_the_bank_without_the_fold(detector):
  """As they are from the detector's own: of the same rows the same are dropped."""
  config = detector.config.copy_and_resolve_references()
  config.score.outliers = 0.2
  dropping = Detector.fit(config, detector.params, TRAIN.images, step=0)
  rows = {k: memory_bank.to_rows(bank) for k, bank in detector.banks.items()}
  counts = {k: np.full(9, len(of_scale) // 9) for k, of_scale in rows.items()}
  found = calibration_scores.refit(dropping, rows, np.arange(9), counts)
  for k, bank in dropping.banks.items():
    assert bank.size == len(rows[k]) - round(0.2 * len(rows[k]))
    np.testing.assert_array_equal(memory_bank.to_rows(found.banks[k]), memory_bank.to_rows(bank))


def test_statistics_are_those_of_all_normal_images(detector, calibrated):
  found = calibrated.calibration.statistics
  grey = np.concatenate([TRAIN.images, HELD_OUT.images]).mean(-1)
  np.testing.assert_allclose(found['brightness'], grey.mean((1, 2)), rtol=1e-5)
  norms = {'embedding norm k16', 'embedding norm k8'}
  assert set(found) == {*appearance.NAMES, *norms, 'aspect ratio'}
  scores = detector.score(TRAIN.images)
  assert scores.norms['embedding norm k8'].shape == (9,)
  assert np.isin(np.float32(scores.norms['embedding norm k8']), found['embedding norm k8']).any()


def test_no_more_images_than_asked_for_are_scored(detector):
  few = detector.config.copy_and_resolve_references()
  few.calibration.images = 3
  origin = detector.origin._replace(config=few)
  found = calibration_scores.calibrate(
    dataclasses.replace(detector, origin=origin), TRAIN, HELD_OUT
  )
  assert found.calibration.images == 3


def test_folds_are_runs_of_files_in_their_order():
  names = ['train/good/2.png', 'train/good/10.png', 'train/good/1.png']
  found = calibration_scores.in_file_order(dataclasses.replace(split_of(2, 3), names=tuple(names)))
  assert found.names == ('train/good/1.png', 'train/good/2.png', 'train/good/10.png')
  np.testing.assert_array_equal(found.images, split_of(2, 3).images[[2, 0, 1]])


def test_none_are_asked_for(detector):
  none = detector.config.copy_and_resolve_references()
  none.calibration.images = 0
  asked = dataclasses.replace(detector, origin=detector.origin._replace(config=none))
  assert calibration_scores.calibrate(asked, TRAIN, HELD_OUT).calibration is None


def test_a_single_image_calibrates_nothing(detector):
  one = TRAIN.take(np.arange(1))
  assert calibration_scores.calibrate(detector, one, TRAIN.take(np.arange(0))).calibration is None


def test_it_is_saved_with_the_model(detector, calibrated, tmp_path):
  detector.save(tmp_path)
  assert Detector.load(tmp_path).calibration is None
  assert Detector.load(tmp_path).dropped is None
  dropped = np.linspace(0, 1, 9)
  dataclasses.replace(calibrated, dropped=dropped).save(tmp_path)
  loaded, expected = Detector.load(tmp_path), calibrated.calibration
  np.testing.assert_array_equal(loaded.dropped, dropped)
  found = loaded.calibration
  for name in ('scores', 'levels', 'shares'):
    assert getattr(found, name).dtype == np.float64
    np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
  assert found.statistics.keys() == expected.statistics.keys()
  for name, values in expected.statistics.items():
    np.testing.assert_array_equal(found.statistics[name], values)
