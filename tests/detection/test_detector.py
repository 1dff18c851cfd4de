"""Detectors against an encoder in numpy float64, brute-force search and maps pixel by pixel."""

import concurrent.futures
import dataclasses
import errno
import itertools
import os
import pathlib
import shutil
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from patch_svdd_jax.configs import default
from patch_svdd_jax.detection.calibration import calibrate
from patch_svdd_jax.detection.detector import (
  Detector,
  load_identified,
  load_where,
  saved_origin,
  undo,
  versions,
)
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.models import encoder
from patch_svdd_jax.models.architecture import strides_of
from patch_svdd_jax.search import memory_bank
from patch_svdd_jax.system import numbered
from patch_svdd_jax.system.digests import digest
from tests.support.runs import assert_same_bits

SIZE = (42, 49)  # neither stride divides what the patches leave: some pixels no patch covers
SCALES, STRIDES = (32, 16), (8, 4)


def tiny_config(**train):
  config = default.get_config()
  config.data.image_size = SIZE
  config.encoder.update(
    {'receptive_field': 16, 'depth': 3, 'width': 0.25, 'embed_dim': 8, 'scales': SCALES}
  )
  # Several batches, the last of which is not full.
  config.score.update({'strides': STRIDES, 'batch_size': 1})
  config.train.update(train)
  return config


def random_images(seed, count, size=SIZE):
  """u8[count, *size, 3] of coarse blocks and fine noise."""
  rng = np.random.default_rng(seed)
  blocks = rng.uniform(60, 200, (count, 8, 8, 3)).repeat(8, 1).repeat(8, 2)
  return (blocks[:, : size[0], : size[1]] + rng.normal(0, 15, (count, *size, 3))).astype(np.uint8)


def random_params(config):
  """An encoder's parameters of about unit gain, so that nothing is lost in rounding."""
  rng = np.random.default_rng(0)
  shapes = jax.eval_shape(lambda: encoder.init_encoder(config))
  return jax.tree.map(
    lambda leaf: (
      rng.normal(0, 1.5 / np.prod(leaf.shape[:-1]) ** 0.5, leaf.shape).astype(np.float32)
      if len(leaf.shape) == 4
      else rng.normal(0, 0.1, leaf.shape).astype(np.float32)
    ),
    shapes,
  )


# The oracle.


def convolve(x, layer, stride=1):
  """VALID convolution of f64[B, H, W, C] with an HWIO kernel."""
  kernel = layer['kernel'].astype(np.float64)
  windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], axis=(1, 2))
  windows = windows[:, ::stride, ::stride]
  return np.einsum('bhwcij,ijco->bhwo', windows, kernel) + layer['bias']


def leaky(x):
  return np.where(x > 0, x, 0.1 * x)


def embed_patches(patches, params):
  """f64[B, K, K, 3] to f64[B, D]: quadrant by quadrant down to 16 pixels."""
  size = patches.shape[1]
  layers = params[f'level_{size}']
  if size == 16:
    x = leaky(convolve(patches, layers['conv_0'], stride=2))
    x = leaky(convolve(x, layers['conv_1']))
    return np.tanh(convolve(x, layers['conv_2']))[:, 0, 0]
  half = size // 2
  quadrants = [
    [embed_patches(patches[:, i : i + half, j : j + half], params) for j in (0, half)]
    for i in (0, half)
  ]
  x = np.stack([np.stack(row, axis=1) for row in quadrants], axis=1)
  return np.tanh(convolve(leaky(convolve(x, layers['conv_0'])), layers['conv_1']))[:, 0, 0]


def corners(image_size, k, stride):
  axes = (range(0, extent - k + 1, stride) for extent in image_size)
  return list(itertools.product(*axes))


def expected_map(distances, image_size, k, stride):
  """The mean over the patches that cover a pixel; beyond them that of the nearest covered pixel."""
  total, count = np.zeros((2, *image_size))
  for distance, (i, j) in zip(distances, corners(image_size, k, stride), strict=True):
    total[i : i + k, j : j + k] += distance
    count[i : i + k, j : j + k] += 1
  last_row, last_column = np.argwhere(count).max(axis=0)
  expected = np.empty(image_size)
  for row, column in np.ndindex(*image_size):
    nearest = min(row, last_row), min(column, last_column)
    expected[row, column] = total[nearest] / count[nearest]
  return expected


def embed_image(params, mean, k, stride):
  """Returns a function of an image f64[H, W, 3], to the embeddings of its patches."""

  def embed(image):
    x = (image.astype(np.float64) - mean) / 255
    patches = [x[i : i + k, j : j + k] for i, j in corners(x.shape[:2], k, stride)]
    return embed_patches(np.stack(patches), params)

  return embed


def expected_maps(params, train, images, mean):
  """The maps of images f64[N, H, W] of each scale, patch by patch."""
  maps = {}
  for k, stride in zip(SCALES, STRIDES, strict=True):
    embed = embed_image(params, mean, k, stride)
    bank = np.concatenate([embed(image) for image in train])
    nearest = [np.linalg.norm(embed(image)[:, None] - bank, axis=-1).min(1) for image in images]
    maps[f'k{k}'] = np.stack([expected_map(d, images.shape[1:3], k, stride) for d in nearest])
  return maps


TRAIN, TEST = random_images(1, 5), random_images(2, 6)


@pytest.fixture(scope='module')
def params():
  return random_params(tiny_config())


@pytest.fixture(scope='module')
def detector(params):
  return Detector.fit(tiny_config(), params, TRAIN, step=7)


@pytest.fixture(scope='module')
def scores(detector):
  return detector.score(TEST)


@pytest.fixture(scope='module')
def workdir(detector, tmp_path_factory):
  folder = tmp_path_factory.mktemp('run')
  detector.save(folder)
  return folder


def assert_scores_equal(actual, expected, rtol=0.0):
  assert list(actual.maps) == list(expected.maps)
  for name in expected.maps:
    np.testing.assert_allclose(actual.maps[name], expected.maps[name], rtol=rtol)
    np.testing.assert_allclose(actual.images[name], expected.images[name], rtol=rtol)


def remade(detector, **changes):
  return dataclasses.replace(detector, origin=detector.origin._replace(**changes))


def test_scores_equal_a_direct_computation(scores, params):
  expected = expected_maps(params, TRAIN, TEST, TRAIN.mean(axis=0, dtype=np.float64))
  expected['sum'] = expected['k32'] + expected['k16']
  expected['product'] = expected['k32'] * expected['k16']
  assert list(scores.maps) == list(scores.images) == list(expected)
  for name, maps in expected.items():
    assert scores.maps[name].dtype == np.float32
    np.testing.assert_allclose(scores.maps[name], maps, rtol=1e-4)
    np.testing.assert_allclose(scores.images[name], maps.max(axis=(1, 2)), rtol=1e-4)
    # The comparison means something: images differ, and none is like the training images.
    assert maps.max() > 1.2 * maps.min() > 0


def test_scores_of_the_centre_equal_a_direct_computation(params):
  config = tiny_config()
  config.score.compare = 'centre'
  scores = Detector.fit(config, params, TRAIN, step=7).score(TEST)
  embed = embed_image(params, TRAIN.mean(axis=0, dtype=np.float64), SCALES[0], STRIDES[0])
  centre = np.concatenate([embed(image) for image in TRAIN]).mean(axis=0)
  expected = [np.linalg.norm(embed(image) - centre, axis=1) for image in TEST]
  np.testing.assert_allclose(scores.distances['k32'].reshape(len(TEST), -1), expected, rtol=1e-4)


def test_scores_of_several_neighbours_are_mean_distances(params):
  config = tiny_config()
  config.score.neighbours = 3
  scores = Detector.fit(config, params, TRAIN, step=7).score(TEST)
  embed = embed_image(params, TRAIN.mean(axis=0, dtype=np.float64), SCALES[0], STRIDES[0])
  bank = np.concatenate([embed(image) for image in TRAIN])
  for image, found in zip(TEST, scores.distances['k32'], strict=True):
    distances = np.sort(np.linalg.norm(embed(image)[:, None] - bank, axis=-1), axis=1)
    np.testing.assert_allclose(found.ravel(), distances[:, :3].mean(axis=1), rtol=1e-4)


def test_training_images_are_at_distance_zero(detector, scores):
  own = detector.score(TRAIN)
  for name, maps in own.maps.items():
    assert maps.shape == (len(TRAIN), *SIZE)
    assert maps.max() < 1e-4 * scores.maps[name].min()


def test_stages_are_timed_and_progress_is_told(detector, scores):
  seen = []

  def progress(batches):
    for batch in batches:
      seen.append(batch)
      yield batch

  again = detector.score(TEST, progress)
  assert len(seen) == -(-len(TEST) // jax.local_device_count())
  assert again.seconds.keys() == {'embed', 'search', 'map'}
  assert all(seconds > 0 for seconds in again.seconds.values())
  assert_scores_equal(again, scores)


def test_maps_come_in_the_order_of_the_config(detector, scores):
  config = tiny_config()
  config.encoder.scales, config.score.strides = SCALES[::-1], STRIDES[::-1]
  reversed_scales = remade(detector, config=config).score(TEST[:1])
  assert list(reversed_scales.maps) == ['k16', 'k32', 'sum', 'product']
  for name, maps in reversed_scales.maps.items():
    np.testing.assert_allclose(maps, scores.maps[name][:1], rtol=1e-5)


def test_one_scale_has_only_its_own_map(detector, scores):
  config = tiny_config()
  config.encoder.scales, config.score.strides = (16,), (4,)
  one = remade(detector, config=config).score(TEST[:1])
  assert list(one.maps) == list(one.images) == ['k16']
  np.testing.assert_allclose(one.maps['k16'], scores.maps['k16'][:1], rtol=1e-5)


def test_as_many_strides_as_scales():
  config = tiny_config()
  assert strides_of(config) == {32: 8, 16: 4}
  config.score.strides = (8,)
  with pytest.raises(
    UserError, match=r'config\.score\.strides=\(8,\).*config\.encoder\.scales=\(32, 16\)'
  ):
    strides_of(config)


def test_images_of_another_size_need_a_channel_mean(detector, params):
  others = random_images(3, 2, (36, 60))
  with pytest.raises(UserError, match=r"36x60 .* 42x49: .*config\.train\.mean='channel'"):
    detector.score(others)
  channel = Detector.fit(tiny_config(mean='channel'), params, TRAIN, step=0)
  mean = TRAIN.mean(axis=(0, 1, 2), dtype=np.float64)
  for name, maps in expected_maps(params, TRAIN, others, mean).items():
    np.testing.assert_allclose(channel.score(others).maps[name], maps, rtol=1e-4)


def test_save_and_load(workdir, detector, scores):
  loaded = Detector.load(workdir)
  assert loaded.origin == detector.origin
  assert loaded.config.to_dict() == detector.config.to_dict()
  assert isinstance(loaded.config.encoder.scales, tuple)
  for k, bank in detector.banks.items():
    assert (
      loaded.banks[k].size
      == bank.size
      == len(TRAIN) * len(corners(SIZE, k, strides_of(detector.config)[k]))
    )
  assert_scores_equal(loaded.score(TEST), scores, rtol=1e-6)


def test_a_calibration_is_loaded_also_from_before_it_had_moments(detector, scores, tmp_path):
  maps = scores.maps['product']
  found = calibrate(scores.images['product'], maps, {'noise': np.ones(2)})
  calibrated = dataclasses.replace(detector, calibration=found)
  calibrated.save(tmp_path)
  loaded = Detector.load(tmp_path).calibration
  np.testing.assert_array_equal(loaded.pixel_moments, found.pixel_moments)
  fields = dataclasses.asdict(found)
  del fields['pixel_moments']
  older = SimpleNamespace(**fields)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(dataclasses, 'asdict', vars)
    dataclasses.replace(calibrated, calibration=older).save(tmp_path)
  loaded = Detector.load(tmp_path).calibration
  assert np.isnan(loaded.pixel_moments).all()
  np.testing.assert_array_equal(loaded.scores, found.scores)


ONE_DEVICE = """
import sys, pathlib, jax, numpy as np
from patch_svdd_jax.detection.detector import Detector
assert jax.local_device_count() == 1
workdir, train, test = map(pathlib.Path, sys.argv[1:])
loaded = Detector.load(workdir)
fitted = Detector.fit(loaded.config, loaded.params, np.load(train), step=7)
for name, detector in (('loaded', loaded), ('fitted', fitted)):
  np.savez(workdir / name, **detector.score(np.load(test)).maps)
"""


def test_one_device_scores_as_four_do(workdir, scores, tmp_path):
  """The saved detector of four devices, and one that was fitted on a single device."""
  assert jax.local_device_count() == 4
  np.save(tmp_path / 'train.npy', TRAIN)
  np.save(tmp_path / 'test.npy', TEST)
  arguments = [str(path) for path in (workdir, tmp_path / 'train.npy', tmp_path / 'test.npy')]
  environment = os.environ | {
    'JAX_PLATFORMS': 'cpu',
    'XLA_FLAGS': '--xla_force_host_platform_device_count=1',
  }
  subprocess.run([sys.executable, '-c', ONE_DEVICE, *arguments], env=environment, check=True)
  for name in ('loaded', 'fitted'):
    with np.load(workdir / f'{name}.npz') as maps:
      assert set(maps) == set(scores.maps)
      for key in maps:
        np.testing.assert_allclose(maps[key], scores.maps[key], rtol=1e-5)


def test_the_origin_tells_other_images(detector):
  assert digest(TRAIN) == detector.origin.images
  other = TRAIN.copy()
  other[-1, -1, -1, -1] ^= 1
  assert digest(other) != detector.origin.images


def test_a_newer_detector_replaces_the_older(detector, tmp_path):
  detector.save(tmp_path)
  for step in (9, 9, 8):  # also one of the same step and one of an earlier one
    remade(detector, step=step).save(tmp_path)
    assert Detector.load(tmp_path).origin.step == step
    assert saved_origin(tmp_path).step == step
  assert sum(folder.is_dir() for folder in (tmp_path / 'model').iterdir()) == 1


def test_versions_that_are_kept_and_going_back(detector, tmp_path):
  with pytest.raises(UserError, match=r'model has no earlier versions to go back to$'):
    undo(tmp_path)
  detector.save(tmp_path)
  with pytest.raises(UserError, match='no earlier version'):
    undo(tmp_path)
  for step in (8, 9, 10):
    remade(detector, step=step).save(tmp_path, keep=True)
  assert versions(tmp_path) == [1, 2, 3, 4]
  with pytest.raises(UserError, match='has 3 earlier versions to go back to: ask for at most 3'):
    undo(tmp_path, 4)
  assert undo(tmp_path, 2) == 2
  assert Detector.load(tmp_path).origin.step == 8
  remade(detector, step=11).save(tmp_path, keep=True)
  assert versions(tmp_path) == [1, 2, 3]
  assert Detector.load(tmp_path).origin.step == 11
  assert undo(tmp_path) == 2
  (tmp_path / 'model' / '1' / 'about' / 'metadata').write_text('other')
  with pytest.raises(UserError, match=r'model/1 is damaged \(about/metadata has changed\)'):
    undo(tmp_path)
  assert Detector.load(tmp_path).origin.step == 8
  detector.save(tmp_path)
  assert versions(tmp_path) == [3]


def test_no_more_than_some_versions_are_kept(detector, tmp_path, monkeypatch):
  monkeypatch.setattr('patch_svdd_jax.detection.detector.KEPT', 2)
  for step in range(1, 4):
    remade(detector, step=step).save(tmp_path, keep=True)
  assert versions(tmp_path) == [2, 3]


@pytest.mark.parametrize('step', [7, 8])
def test_a_full_disk_leaves_the_old_detector(detector, scores, tmp_path, monkeypatch, step):
  detector.save(tmp_path)
  newer = remade(detector, step=step)

  async def full(*_, **__):
    raise OSError(errno.ENOSPC, 'No space left on device')

  with monkeypatch.context() as disk:
    disk.setattr(ocp.JsonCheckpointHandler, 'async_save', full)
    with pytest.raises(UserError, match=r'no space left on the disk of .*model') as caught:
      newer.save(tmp_path)
  assert '\n' not in str(caught.value)
  old = Detector.load(tmp_path)
  assert old.origin.step == 7
  assert_scores_equal(old.score(TEST), scores, rtol=1e-6)
  wait_for_threads(tmp_path / 'model')
  newer.save(tmp_path)
  assert Detector.load(tmp_path).origin.step == step


def wait_for_threads(folder):
  """Waits until those of orbax have left a save that failed: they would write into the next one."""
  before = None
  while (now := sorted(folder.rglob('*'))) != before:
    before = now
    time.sleep(0.2)


def test_no_detector(tmp_path):
  missing = tmp_path / 'missing'
  assert load_where(missing, lambda _: True) is None
  assert saved_origin(missing) is None
  with pytest.raises(UserError, match=r'no fitted detector in .*missing/model: train first'):
    Detector.load(missing)
  assert not missing.exists()


def test_a_detector_is_loaded_where_its_origin_fits(detector, workdir):
  assert load_where(workdir, lambda origin: origin.step == 8) is None
  assert load_where(workdir, lambda origin: origin.step == 7).origin.images == digest(TRAIN)


def test_a_detector_is_loaded_from_a_relative_folder(workdir, monkeypatch):
  monkeypatch.chdir(workdir.parent)
  assert Detector.load(pathlib.Path(workdir.name)).origin.step == 7


def test_a_loaded_detector_is_known_by_its_contents(detector, workdir, tmp_path):
  shutil.copytree(workdir / 'model', tmp_path / 'model')
  one = load_identified(workdir)[1]
  assert load_identified(tmp_path)[1] == one
  # Of an older version, or of a process that was killed before it was sealed.
  (tmp_path / 'model' / '1' / 'digests.json').unlink()
  assert load_identified(tmp_path)[1] == one
  remade(detector, step=8).save(tmp_path)
  assert load_identified(tmp_path)[1] != one


def test_what_is_loaded_while_others_are_saved_is_whole(detector, tmp_path):
  """The older one goes, perhaps while it is read: its config never meets another's bank."""
  others = [detector, Detector.fit(detector.config, detector.params, TRAIN[:3], step=9)]
  others[0].save(tmp_path)
  expected = {each.origin.step: leaves_of(each) for each in others}
  ended = threading.Event()

  def save():
    for each in itertools.cycle(reversed(others)):
      if ended.is_set():
        return
      each.save(tmp_path)

  met, loads = set(), 0
  with concurrent.futures.ThreadPoolExecutor(1) as pool:
    saving = pool.submit(save)
    try:
      deadline = time.monotonic() + 60
      while len(met) < 2 or loads < 100:
        found = Detector.load(tmp_path)
        assert_same_bits(leaves_of(found), expected[found.origin.step])
        met.add(found.origin.step)
        loads += 1
        assert time.monotonic() < deadline
    finally:
      ended.set()
    saving.result()
  others[0].save(tmp_path)  # also what the one before left because it was being read
  assert [place.name.isdecimal() for place in (tmp_path / 'model').iterdir()] == [True]


def leaves_of(detector):
  """What a detector is made of, and what says so: the scales, digests, banks, parameters."""
  banks = {k: memory_bank.to_rows(bank) for k, bank in detector.banks.items()}
  return jax.device_get((detector.params, detector.mean, banks))


def test_what_is_saved_again_and_again_is_one_line(workdir, monkeypatch):
  numbers = itertools.count(2)
  monkeypatch.setattr(numbered, 'newest', lambda parent: parent / str(next(numbers)))
  with pytest.raises(
    UserError, match='model is being written again and again: run the same command'
  ):
    Detector.load(workdir)


def test_an_error_of_a_folder_that_stays_is_not_hidden(detector, tmp_path, monkeypatch):
  detector.save(tmp_path)

  def wrong(*_, **__):
    raise RuntimeError('a bug')

  monkeypatch.setattr(ocp.JsonCheckpointHandler, 'restore', wrong)
  with pytest.raises(RuntimeError, match='a bug'):
    Detector.load(tmp_path)


@pytest.mark.parametrize('name', ['arrays', 'about'])
def test_an_item_that_is_gone_is_one_line(detector, tmp_path, name):
  detector.save(tmp_path)
  (tmp_path / 'model' / '1' / 'digests.json').unlink()
  shutil.rmtree(tmp_path / 'model' / '1' / name)
  with pytest.raises(UserError, match=r'model/1 cannot be read \(.*build-bank` makes it anew'):
    Detector.load(tmp_path)


def test_an_open_size_is_kept_as_that_of_the_images():
  config = tiny_config()
  config.data.image_size = (0, SIZE[1])
  found = Detector.fit(config, random_params(config), random_images(0, 2), step=0)
  assert tuple(found.config.data.image_size) == SIZE
  assert tuple(config.data.image_size) == (0, SIZE[1])
