"""Regions of interest, from the memory bank to the verdict, by brute force in float64."""

import dataclasses

import jax
import numpy as np
import pytest

from patch_svdd_jax import data
from patch_svdd_jax.data import Split, lighting
from patch_svdd_jax.detection import (
  anomaly_map,
  calibration,
  calibration_scores,
  exported_score,
  inspection,
  region_of_interest,
)
from patch_svdd_jax.detection.detector import Detector, digest_normal
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.evaluation import separation
from patch_svdd_jax.evaluation.evaluate import defects_outside, evaluate
from patch_svdd_jax.models import geometry
from patch_svdd_jax.search import coreset, memory_bank
from tests.detection.test_detector import (
  SCALES,
  SIZE,
  STRIDES,
  corners,
  embed_image,
  random_images,
  random_params,
  tiny_config,
)
from tests.support.runs import assert_same_bits

NORMAL, TEST = random_images(1, 5), random_images(2, 3)
GRIDS = dict(zip(SCALES, STRIDES, strict=True))


def random_regions(seed, count):
  """Of each image a rectangle, less some pixels; the last one is empty."""
  rng = np.random.default_rng(seed)
  regions = np.zeros((count, *SIZE), bool)
  for region in regions[:-1]:
    top, left = rng.integers(0, 8, 2)
    region[top : top + rng.integers(28, 40), left : left + rng.integers(30, 44)] = True
    region &= rng.random(SIZE) < 0.9
  return regions


def counting(region, k, stride):
  """Whether each patch counts, in the order of `corners`."""
  return np.array(
    [2 * region[i : i + k, j : j + k].sum() >= k * k for i, j in corners(SIZE, k, stride)]
  )


def map_inside(distances, region, k, stride):
  """The mean over the patches that count and cover a pixel, pixel by pixel."""
  total, count, covered = np.zeros((3, *SIZE))
  counted = counting(region, k, stride)
  for distance, counts, (i, j) in zip(distances, counted, corners(SIZE, k, stride), strict=True):
    covered[i : i + k, j : j + k] += 1
    if counts:
      total[i : i + k, j : j + k] += distance
      count[i : i + k, j : j + k] += 1
  last_row, last_column = np.argwhere(covered).max(axis=0)
  expected = np.zeros(SIZE)
  for row, column in np.argwhere(region):
    nearest = min(row, last_row), min(column, last_column)
    if count[nearest]:
      expected[row, column] = total[nearest] / count[nearest]
  return expected


def expected_maps(params, regions, test_regions):
  mean = NORMAL.mean(axis=0, dtype=np.float64)
  maps = {}
  for k, stride in GRIDS.items():
    embed = embed_image(params, mean, k, stride)
    bank = np.concatenate(
      [
        embed(image)[counting(region, k, stride)]
        for image, region in zip(NORMAL, regions, strict=True)
      ]
    )
    maps[f'k{k}'] = np.stack(
      [
        map_inside(np.linalg.norm(embed(image)[:, None] - bank, axis=-1).min(1), region, k, stride)
        for image, region in zip(TEST, test_regions, strict=True)
      ]
    )
  return maps | {'sum': sum(maps.values()), 'product': np.prod(list(maps.values()), axis=0)}


@pytest.fixture(scope='module')
def params():
  return random_params(tiny_config())


def fit(params, regions, images=NORMAL, **score):
  config = tiny_config()
  config.score.update(score)
  return Detector.fit(config, params, images, step=0, regions=regions)


REGIONS, TEST_REGIONS = random_regions(3, 5), random_regions(4, 3)
FIXED = np.broadcast_to(REGIONS[0], (5, *SIZE))


@pytest.fixture(scope='module')
def fixed(params):
  return fit(params, FIXED)


@pytest.mark.parametrize('regions', [REGIONS, FIXED], ids=['own', 'fixed'])
def test_scores_equal_a_direct_computation(regions, params, fixed):
  is_fixed = regions is FIXED
  detector = fixed if is_fixed else fit(params, regions)
  test_regions = FIXED[:3] if is_fixed else TEST_REGIONS
  scores = detector.score(TEST, regions=None if is_fixed else test_regions)
  expected = expected_maps(params, regions, test_regions)
  for name, maps in expected.items():
    np.testing.assert_allclose(scores.maps[name], maps, rtol=2e-4, atol=1e-7)
    assert (scores.maps[name][~test_regions] == 0).all()
    top = [each[region].max(initial=0) for each, region in zip(maps, test_regions, strict=True)]
    np.testing.assert_allclose(scores.images[name], top, rtol=2e-4)
  counted = region_of_interest.counted_patches(detector.config, test_regions)
  for k in SCALES:
    assert (np.isnan(scores.distances[f'k{k}']) == ~counted[k]).all()
    embed = embed_image(params, NORMAL.mean(axis=0, dtype=np.float64), k, GRIDS[k])
    inside = embed(TEST[0])[counted[k][0].ravel()]
    norm = np.linalg.norm(inside, axis=1).mean()
    np.testing.assert_allclose(scores.norms[f'embedding norm k{k}'][0], norm, rtol=1e-4)


def rows_inside(params, regions):
  """The rows of each scale that count, f32[M, D], as the detector embeds them."""
  everywhere = fit(params, None)
  rows = {k: memory_bank.to_rows(bank) for k, bank in everywhere.banks.items()}
  counted = region_of_interest.counted_patches(everywhere.config, regions)
  return {k: rows[k][counted[k].ravel()] for k in SCALES}


def test_what_is_kept_of_the_rows_that_count(params):
  rows = rows_inside(params, REGIONS)
  for k, bank in fit(params, REGIONS, coreset=0.2).banks.items():
    chosen = coreset.select(rows[k], round(0.2 * len(rows[k])), seed=tiny_config().seed)
    np.testing.assert_array_equal(memory_bank.to_rows(bank), rows[k][np.sort(chosen)])
  for k, bank in fit(params, REGIONS, compare='centre').banks.items():
    centre = rows[k].mean(axis=0, dtype=np.float64, keepdims=True)
    np.testing.assert_allclose(memory_bank.to_rows(bank), centre, rtol=1e-6)
  dropping = fit(params, REGIONS, outliers=0.1)
  total = 0
  for k, bank in dropping.banks.items():
    found = {row.tobytes() for row in memory_bank.to_rows(bank)}
    assert found <= {row.tobytes() for row in rows[k]}
    assert bank.size == len(rows[k]) - round(0.1 * len(rows[k]))
    total += round(0.1 * len(rows[k]))
  counts = sum(
    each.sum(axis=(1, 2))
    for each in region_of_interest.counted_patches(tiny_config(), REGIONS).values()
  )
  np.testing.assert_allclose((dropping.dropped * counts).sum(), total)
  assert dropping.dropped[-1] == 0  # it has no patch


def test_a_fixed_region_is_saved_with_the_detector(fixed, tmp_path):
  fixed.save(tmp_path)
  loaded = Detector.load(tmp_path)
  np.testing.assert_array_equal(loaded.region, REGIONS[0])
  assert_same_bits(loaded.score(TEST).maps, fixed.score(TEST, regions=FIXED[:3]).maps)
  assert loaded.origin.images == digest_normal(NORMAL, FIXED, 0.5)
  others = [(NORMAL, None, 0.5), (NORMAL, REGIONS, 0.5), (NORMAL, FIXED, 0.6), (TEST, FIXED, 0.5)]
  assert loaded.origin.images not in [digest_normal(*other) for other in others]


def test_what_does_not_fit_is_refused(fixed, params):
  with pytest.raises(UserError, match=r'regions \[2, 42, 49\] do not fit images \[3, 42, 49\]'):
    fixed.score(TEST, regions=REGIONS[:2])
  with pytest.raises(
    UserError, match=r'no patch of 32 pixels has 0\.5 of its pixels in the region'
  ):
    fit(params, np.zeros_like(REGIONS))
  own = fit(params, REGIONS)
  own.config.data.region = 'roi'
  with pytest.raises(UserError, match='region of each image that is its own'):
    own.score(TEST)
  with pytest.raises(UserError, match='an exported program does not take'):
    exported_score.make_score(own, None)


def test_pixels_that_are_covered_by_no_patch_that_counts_have_nothing():
  counted, distances = np.zeros((2, 1, 3, 3), bool)[0], np.full((1, 3, 3), np.nan, np.float32)
  counted[0, 0, 0], distances[0, 0, 0] = True, 2.0
  options = {'image_size': (8, 8), 'receptive_field': 4, 'stride': 2}
  found = anomaly_map.upsample_inside(distances, counted, np.ones((1, 8, 8), bool), **options)
  expected = np.zeros((1, 8, 8))
  expected[0, :4, :4] = 2
  np.testing.assert_array_equal(found, expected)


# Calibration, and what happens outside.


def split_of(images, regions, masks=None, names='normal'):
  count = len(images)
  masks = np.zeros(images.shape[:3], bool) if masks is None else masks
  labels = masks.any(axis=(1, 2))
  return Split(
    images=images,
    masks=masks,
    has_mask=np.ones(count, bool),
    labels=labels,
    defects=tuple('hole' if label else 'good' for label in labels),
    names=tuple(f'{names}/{index}.png' for index in range(count)),
    sizes=np.full((count, 2), SIZE),
    appearance=np.zeros((count, 4), np.float32),
    digests=('',) * count,
    regions=regions,
  )


def paint(images, regions, distance, seed=9):
  """Noise wherever a pixel is farther than that from the region, along either axis."""
  rng = np.random.default_rng(seed)
  painted = images.copy()
  for image, region in zip(painted, regions, strict=True):
    near = np.zeros(SIZE, bool)
    for row, column in np.argwhere(region):
      low = max(0, row - distance), max(0, column - distance)
      near[low[0] : row + distance + 1, low[1] : column + distance + 1] = True
    image[~near] = rng.integers(0, 256, (np.count_nonzero(~near), 3))
  assert (painted != images).any()
  return painted


CORNER = np.zeros(SIZE, bool)
CORNER[3:24, 2:25] = True
MASKS = np.zeros((3, *SIZE), bool)
MASKS[1, 15:25, 5:30] = MASKS[2, 30:36, 30:40] = True

WHITENED = {'features': ('embedding', 'hidden', 'thumbnail'), 'whiten': True, 'components': 12}


def everything(params, train, held_out, test, share, **score):
  """All figures of a detector that is fitted, calibrated and measured, as a tree of arrays."""
  config = tiny_config(mean='channel')
  config.encoder.scales, config.score.strides = (16,), (4,)
  config.data.region_share = share
  config.data.light = 'standardised'
  config.score.update(score)
  train, held_out, test = (data.light(split, config.data) for split in (train, held_out, test))
  detector = Detector.fit(config, params, train.images, step=0, regions=train.regions)
  detector = calibration_scores.calibrate(detector, train, held_out)
  measured = evaluate(detector, test)
  limit = inspection.limits(detector, 0.2, 0.2)
  judged = inspection.judge(detector, measured.scores, test, limit)
  examples = separation.make_examples(held_out.images, held_out.regions)
  separated = separation.separate(detector, examples)
  return {
    'banks': {str(k): memory_bank.to_rows(bank) for k, bank in detector.banks.items()},
    'calibration': dataclasses.asdict(detector.calibration),
    'scores': [measured.scores.maps, measured.scores.images, measured.scores.norms],
    'fallback': measured.scores.fallback_fraction,
    'metrics': [measured.maps, measured.per_defect, measured.aupimo],
    'judged': [judged.p_values, judged.alarms, [r.score for each in judged.regions for r in each]],
    'warnings': [hash(text) for each in judged.warnings for text in each],
    'separation': [separated.figures, separated.per_kind, separated.influences],
  }


@pytest.mark.parametrize(
  ('share', 'score'),
  [(1.0, {}), (0.5, WHITENED), (0.5, {'outliers': 0.1, 'coreset': 0.5})],
)
def test_noise_outside_of_the_region_changes_no_bit(share, score, params):
  """Of what is fitted to the images, too; where a part of a patch is enough, noise is far away."""
  distance = 0 if share == 1 else 16
  regions = np.broadcast_to(CORNER, (5, *SIZE))
  params = {'level_16': params['level_16']}

  def run(change):
    return everything(
      params,
      split_of(change(NORMAL, 1), regions),
      split_of(change(random_images(5, 3), 2), regions[:3], names='held'),
      split_of(change(TEST, 3), regions[:3], MASKS, 'test'),
      share,
      **score,
    )

  plain = run(lambda images, _: images)
  noisy = run(lambda images, seed: paint(images, regions[: len(images)], distance, seed))
  assert_same_bits(noisy, plain)


def test_a_defect_outside_of_the_region_is_told(params):
  split = split_of(TEST, np.broadcast_to(CORNER, (3, *SIZE)), MASKS)
  assert defects_outside(split) == ['normal/2.png']
  assert defects_outside(dataclasses.replace(split, regions=None)) == []


def test_an_image_whose_region_holds_no_patch_is_told_apart(params):
  """Its score is 0: without a word it would pass."""
  small = np.zeros((2, *SIZE), bool)
  small[0, :20, :20] = small[1, :4, :4] = True  # patches of 16 pixels at most, and none
  detector = fit(params, REGIONS)
  assert inspection.unjudged(detector, small) == [
    ('no patch of 32 pixels counts in its region: it was not judged',),
    tuple(f'no patch of {k} pixels counts in its region: it was not judged' for k in (32, 16)),
  ]
  assert inspection.unjudged(detector, REGIONS[:1]) == [()]
  assert inspection.unjudged(detector, None) == []


def test_calibration_is_by_the_pixels_of_the_regions(params, monkeypatch):
  detector = fit(params, REGIONS)
  train = split_of(NORMAL, REGIONS)
  held_out = split_of(random_images(5, 4), random_regions(6, 4), names='other')
  monkeypatch.setattr(calibration_scores, 'ENOUGH', 3)
  found = calibration_scores.calibrate(detector, train, held_out).calibration
  # One image has no patch that counts: it has no score.
  scores = detector.score(held_out.images[:3], regions=held_out.regions[:3])
  np.testing.assert_array_equal(found.scores, np.sort(scores.images['product']))
  check_pixels(found, scores.maps['product'], held_out.regions[:3])


def check_pixels(found, maps, regions):
  inside = [each[region] for each, region in zip(maps, regions, strict=True)]
  assert found.levels[[0, -1]].tolist() == [
    min(each.min() for each in inside),
    max(each.max() for each in inside),
  ]
  expected = [np.mean([(each >= level).mean() for each in inside]) for level in found.levels]
  np.testing.assert_allclose(found.shares, expected, rtol=1e-12)
  mean = np.mean([each.mean(dtype=np.float64) for each in inside])
  variance = np.mean([np.square(each.astype(np.float64) - mean).mean() for each in inside])
  np.testing.assert_allclose(found.pixel_moments, [mean, np.sqrt(variance)], rtol=1e-5)


def test_each_image_is_scored_without_its_fold(params):
  detector = fit(params, REGIONS)
  detector.config.calibration.folds = 2
  train = split_of(NORMAL, REGIONS)
  found = calibration_scores.calibrate(detector, train, split_of(TEST[:0], REGIONS[:0])).calibration
  # Of the four images that have patches, the halves.
  expected = np.zeros(4)
  for own, others in ((slice(0, 2), slice(2, 4)), (slice(2, 4), slice(0, 2))):
    banks = {}
    for k, bank in detector.banks.items():
      counts = region_of_interest.rows_of_images(
        region_of_interest.counted_patches(detector.config, REGIONS)[k]
      )
      of_images = np.split(memory_bank.to_rows(bank), np.cumsum(counts)[:-1])
      banks[k] = memory_bank.from_rows(np.concatenate(of_images[others]))
    without = dataclasses.replace(detector, banks=banks)
    expected[own] = without.score(NORMAL[own], regions=REGIONS[own]).images['product']
  np.testing.assert_array_equal(found.scores, np.sort(expected))


def test_the_exported_program_looks_at_the_region(fixed):
  found = jax.jit(exported_score.make_score(fixed, None))(TEST)
  expected = fixed.score(TEST)
  np.testing.assert_allclose(found['map'], expected.maps['product'], rtol=1e-4, atol=1e-7)
  np.testing.assert_allclose(found['score'], expected.images['product'], rtol=1e-4)


def test_the_exported_program_takes_the_light_of_the_region():
  found = exported_score.standardise_light(jax.numpy.asarray(TEST), CORNER)
  expected = lighting.standardise(TEST, np.broadcast_to(CORNER, (3, *SIZE)))
  difference = np.abs(np.asarray(found).astype(int) - expected)
  assert difference.max() <= 1
  assert (difference > 0).mean() < 0.01
  inside = expected[:, CORNER].astype(float)
  np.testing.assert_allclose(inside.mean(axis=(1, 2)), 128, atol=1)


def test_searched_patches_are_few_programs():
  counts = set()
  for count in range(1, 200):
    counted = np.zeros((2, 10, 10), bool)
    counted.ravel()[:count] = True
    places = region_of_interest.searched(counted)
    assert np.unique(places).tolist() == list(range(count))
    counts.add(len(places))
  assert len(counts) <= 4 * 8
  assert len(region_of_interest.searched(np.zeros((1, 4, 4), bool))) == 1
  one = np.broadcast_to(geometry.patches_inside(CORNER, 16, 4, 0.5), (3, 7, 9))
  assert len(region_of_interest.searched(one)) == one.sum()


def test_pixels_of_equal_regions_are_counted_together():
  maps = np.random.default_rng(0).random((4, *SIZE)).astype(np.float32)
  regions = np.broadcast_to(CORNER, maps.shape)
  found = calibration.calibrate(maps.max((1, 2)), maps, {}, regions)
  check_pixels(found, maps, regions)
