"""Images that are added to a detector, against one of all images and brute force in float64."""

import dataclasses

import jax
import numpy as np
import pytest

from patch_svdd_jax.detection import additions, calibration_scores, recalibration
from patch_svdd_jax.detection.detector import Addition, Detector, load_identified
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.models.architecture import strides_of
from patch_svdd_jax.models.encoder import init_encoder
from patch_svdd_jax.search import memory_bank
from tests.detection.test_calibration_scores import SIZE, split_of
from tests.support.runs import tiny_config

TRAIN, HELD_OUT, NEW = split_of(0, 9), split_of(1, 3), split_of(2, 4)
ADDITIONS = tuple(Addition(name, str(i), 'today') for i, name in enumerate(NEW.names))
REGION = np.zeros(SIZE, bool)
REGION[:, 6:] = True


def config_of(**score):
  config = tiny_config(image_size=SIZE, mean='channel')
  config.encoder.depth = 3
  config.score.update({'strides': (8, 4), 'batch_size': 2} | score)
  return config


def fitted(region=None, **score):
  config = config_of(**score)
  if region is not None:
    config.data.region = 'region.png'
  train, held_out = (with_region(split, region) for split in (TRAIN, HELD_OUT))
  detector = Detector.fit(config, init_encoder(config), train.images, step=0, regions=train.regions)
  return calibration_scores.calibrate(detector, train, held_out)


def with_region(split, region):
  regions = None if region is None else np.broadcast_to(region, (len(split), *SIZE))
  return dataclasses.replace(split, regions=regions)


@pytest.fixture(scope='module', params=['all', 'described', 'region'])
def detector(request):
  described = {'features': ('embedding', 'thumbnail'), 'whiten': True, 'components': 20}
  return {
    'all': fitted,
    'described': lambda: fitted(**described),
    'region': lambda: fitted(REGION),
  }[request.param]()


@pytest.fixture(scope='module')
def added(detector):
  return additions.add(detector, with_region(NEW, detector.region), ADDITIONS, 0.1)


def rows_of(detector, split):
  return calibration_scores.embeddings(detector, split.images, None)


def test_the_banks_are_bit_for_bit_those_of_all_images(detector, added):
  grown, _ = added
  everything = np.concatenate([TRAIN.images, NEW.images])
  for k, rows in calibration_scores.embeddings(detector, everything, None).items():
    np.testing.assert_array_equal(memory_bank.to_rows(grown.banks[k]), rows)
  for before, after in zip(
    jax.tree.leaves(detector.params), jax.tree.leaves(grown.params), strict=True
  ):
    assert before is after
  assert grown.origin == detector.origin._replace(additions=ADDITIONS)


def test_the_calibration_is_that_of_brute_force(detector, added):
  """Each image by its fold's bank and the added images, each added one by all others."""
  grown, moved = added
  new = rows_of(detector, NEW)
  distances = {}
  for k in strides_of(detector.config):
    before = detector.evidence.distances[f'k{k}'].astype(np.float64)
    inside = ~np.isnan(before[0])
    own = np.concatenate([rows_of(detector, split)[k] for split in (TRAIN, HELD_OUT)])
    # The images are in the order of their names, in which those of TRAIN come first.
    calibrating = own.reshape(12, -1, own.shape[1])
    added = new[k].reshape(4, -1, own.shape[1])
    after = np.concatenate([before, np.full((4, *before.shape[1:]), np.nan)])
    for index, queries in enumerate(calibrating):
      after[index, inside] = np.minimum(before[index, inside], nearest(queries, new[k]))
    for index, queries in enumerate(added):
      others = [memory_bank.to_rows(detector.banks[k]), *np.delete(added, index, 0)]
      after[12 + index, inside] = nearest(queries, np.concatenate(others))
    distances[f'k{k}'] = after.astype(np.float32)
    np.testing.assert_allclose(grown.evidence.distances[f'k{k}'], after, rtol=1e-5)
  maps = detector.main_maps(distances, SIZE)
  np.testing.assert_allclose(grown.calibration.scores, np.sort(maps.max((1, 2))), rtol=1e-4)
  assert (moved.images, grown.calibration.images) == ((12, 16), 16)
  assert moved.threshold == (detector.calibration.threshold(0.1), grown.calibration.threshold(0.1))
  for name, values in grown.calibration.statistics.items():
    np.testing.assert_array_equal(values[:12], detector.calibration.statistics[name])
    assert len(values) == 16
  np.testing.assert_array_equal(
    grown.calibration.statistics['brightness'][12:], NEW.appearance[:, 0]
  )


def nearest(queries, rows):
  difference = queries.astype(np.float64)[:, None] - rows.astype(np.float64)[None]
  return np.sqrt(np.square(difference).sum(-1)).min(1)


def test_maps_of_distances_are_those_of_the_calibration(detector):
  maps = detector.main_maps(detector.evidence.distances, SIZE)
  np.testing.assert_allclose(np.sort(maps.max((1, 2))), detector.calibration.scores, rtol=1e-5)


def test_one_by_one_is_as_all_at_once(detector, added):
  one_by_one = detector
  for index in range(len(NEW)):
    split = with_region(NEW.take(np.array([index])), detector.region)
    one_by_one, _ = additions.add(one_by_one, split, ADDITIONS[index : index + 1], 0.1)
  grown, _ = added
  assert one_by_one.origin == grown.origin
  np.testing.assert_array_equal(one_by_one.calibration.scores, grown.calibration.scores)


def test_it_is_saved_and_goes_on(detector, added, tmp_path):
  grown, _ = added
  grown.save(tmp_path)
  loaded, _ = load_identified(tmp_path)
  assert loaded.origin == grown.origin
  split = with_region(NEW.take(np.array([0])), detector.region)
  further = [additions.add(each, split, ADDITIONS[:1], 0.1)[0] for each in (grown, loaded)]
  np.testing.assert_array_equal(*[each.calibration.scores for each in further])
  scores = [each.score(NEW.images).images[each.main_map] for each in further]
  np.testing.assert_array_equal(*scores)


def test_an_image_that_is_there_already_scores_nothing(added):
  grown, _ = added
  scores = grown.score(NEW.images).images[grown.main_map]
  assert scores.max() < 0.1 * grown.calibration.scores.min()


def test_a_defect_is_told(detector):
  bad = with_region(split_of(3, 1), detector.region)
  bad = dataclasses.replace(
    bad, images=np.where(np.arange(32)[:, None] % 8 < 4, 255, 0) * np.ones_like(bad.images)
  )
  _, moved = additions.add(detector, bad, ADDITIONS[:1], 0.1)
  assert moved.alarms.all()


@pytest.mark.parametrize(
  ('score', 'reason'),
  [
    ({'coreset': 0.5}, 'score.coreset=0.5 keeps a part'),
    ({'outliers': 0.1}, 'score.outliers=0.1 drops'),
    ({'compare': 'centre'}, "score.compare='centre' keeps a mean"),
    ({'neighbours': 2}, 'score.neighbours=2 takes means'),
  ],
)
def test_banks_that_are_no_whole_ones_take_no_images(score, reason):
  assert reason in recalibration.obstacle(config_of(**score), needs_regions=False)
  with pytest.raises(UserError, match=r'no images can be added .* run `patch-svdd build-bank`'):
    additions.evidence_of(fitted(**score))


def test_a_detector_of_an_older_version_takes_no_images(detector):
  with pytest.raises(UserError, match='an earlier version of this package calibrated it'):
    additions.evidence_of(dataclasses.replace(detector, evidence=None))
  with pytest.raises(UserError, match='is not calibrated'):
    additions.evidence_of(dataclasses.replace(detector, calibration=None))
