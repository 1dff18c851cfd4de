"""What is said of images that look otherwise than the normal ones."""

import numpy as np
import pytest

from patch_svdd_jax import data
from patch_svdd_jax.configs import laptop, mvtec
from patch_svdd_jax.data import appearance, textures
from patch_svdd_jax.detection import distribution_shift


def statistics(rng, count, offset=0.0):
  return {'brightness': rng.normal(180 + offset, 5, count), 'noise': rng.normal(2, 0.1, count)}


def test_an_image_outside_is_named_with_the_statistic():
  normal = statistics(np.random.default_rng(0), 100)
  found = {'brightness': np.array([180.0, 120.0, 260.0]), 'noise': np.array([2.0, 2.0, 9.0])}
  none, dark, both = distribution_shift.outside(normal, found)
  assert none == ()
  assert len(dark) == 1
  assert dark[0].startswith('brightness 120 is below that of all 100 normal images (')
  assert [text.split()[0] for text in both] == ['brightness', 'noise']
  assert 'above' in both[0]


@pytest.mark.parametrize('count', [10, 30, 300])
def test_few_normal_images_like_them_are_warned_of(count):
  rng = np.random.default_rng(1)
  warned = [
    np.mean(
      [
        bool(text)
        for text in distribution_shift.outside(statistics(rng, count), statistics(rng, 50))
      ]
    )
    for _ in range(40)
  ]
  # Without the margin 4 / (n + 1) would be expected.
  assert np.mean(warned) < 3.5 / (count + 1)


def test_the_range_is_kept_of_constant_images():
  normal = {'noise': np.zeros(5)}
  assert distribution_shift.outside(normal, {'noise': np.array([0.0, 1e-3])})[0] == ()
  assert distribution_shift.outside(normal, {'noise': np.array([0.0, 1e-3])})[1] != ()


def test_a_batch_is_compared_as_a_whole():
  rng = np.random.default_rng(2)
  normal = statistics(rng, 200)
  assert distribution_shift.of_batch(normal, statistics(rng, 40)) == []
  # 5 grey levels: hardly an image is outside, the batch is.
  (text,) = distribution_shift.of_batch(normal, statistics(rng, 40, offset=-5))
  assert text.startswith('brightness of these 40 images (median 17')
  assert (
    distribution_shift.of_batch(normal, statistics(rng, distribution_shift.BATCH - 1, offset=-50))
    == []
  )
  assert 'other light, camera or focus' in distribution_shift.warn([text])


def test_batches_like_the_normal_images_are_seldom_warned_of():
  rng = np.random.default_rng(3)
  warned = [
    bool(distribution_shift.of_batch(statistics(rng, 100), statistics(rng, 30))) for _ in range(500)
  ]
  assert np.mean(warned) < 0.01


def test_normal_images_that_drift_among_themselves_excuse_others_that_do_not_more():
  rng = np.random.default_rng(4)
  drifting = {'brightness': np.sort(rng.normal(180, 5, 100))}
  shuffled = {'brightness': rng.permutation(drifting['brightness'])}
  one_lamp = {'brightness': rng.normal(184, 1, 40)}
  assert distribution_shift.of_batch(drifting, one_lamp) == []
  assert len(distribution_shift.of_batch(shuffled, one_lamp)) == 1
  # What no normal image is, is said whatever their drift.
  assert len(distribution_shift.of_batch(drifting, {'brightness': rng.normal(230, 1, 40)})) == 1


def test_the_drift_is_that_of_the_run_that_is_farthest_from_the_others():
  normal = np.array([1.0, 2, 1, 2, 1, 2, 3, 9, 1, 2])
  # Of the pair (3, 9) against eight values of 1 or 2 the distribution functions differ by all.
  assert distribution_shift.drift(normal) == 1
  alike = np.tile([1.0, 2], 5)
  assert distribution_shift.drift(alike) == 0
  assert distribution_shift.drift(alike[:1]) == 0


@pytest.mark.parametrize('category', textures.CATEGORIES)
def test_the_middle_of_a_photograph_is_in_no_other_light_than_its_sides(category, tmp_path):
  config = laptop.get_config(category).data
  config.update(prepared=str(tmp_path))
  dataset = data.load(config)
  normal, found = (
    dict(zip(appearance.NAMES, split.appearance.T, strict=True))
    for split in (dataset.train, dataset.test)
  )
  assert distribution_shift.of_batch(normal, found) == []


@pytest.mark.slow
def test_screw_s_good_test_images_are_darker(shared_data, tmp_path):
  config = mvtec.get_config('screw').data
  config.update(root=str(shared_data / 'mvtec_ad'), prepared=str(tmp_path), image_size=(256, 256))
  dataset = data.load(config)
  good = dataset.test.take(np.flatnonzero(~dataset.test.labels))
  normal, found = (
    dict(zip(appearance.NAMES, split.appearance.T, strict=True)) for split in (dataset.train, good)
  )
  assert 10 < np.mean(normal['brightness']) - np.mean(found['brightness']) < 20
  texts = distribution_shift.of_batch(normal, found)
  assert texts[0].startswith('brightness of these 41 images (median 17')
  dark = [
    texts for texts in distribution_shift.outside(normal, found) if 'brightness' in ''.join(texts)
  ]
  assert len(dark) > 10
  assert all(text.startswith('brightness 1') and 'is below' in text for text, *_ in dark)


def test_the_latest_images_are_compared_from_time_to_time():
  rng = np.random.default_rng(5)
  window = distribution_shift.Window(statistics(rng, 100))
  compared = [window.take(statistics(rng, 4)) for _ in range(25)]
  assert [place for place, did in enumerate(compared) if did] == [*range(2, 24, 3)]
  assert window.texts == []
  for _ in range(10):  # 100 images of a darker lamp
    window.take(statistics(rng, 10, offset=-20))
  assert len(window.texts) == 1
  assert window.texts[0].startswith('brightness of these 100 images (median 1')
  for _ in range(10):  # and the old one again: the darker ones are forgotten
    window.take(statistics(rng, 10))
  assert window.texts == []
