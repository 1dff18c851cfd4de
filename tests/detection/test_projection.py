"""The projection of features against numpy float64 and scikit-learn."""

import numpy as np
import pytest
import sklearn.decomposition

from patch_svdd_jax.detection import projection
from patch_svdd_jax.detection.detector import Detector
from patch_svdd_jax.models import architecture, embedding, features
from patch_svdd_jax.models.architecture import strides_of
from patch_svdd_jax.search import memory_bank
from patch_svdd_jax.system.sharding import replicate
from tests.detection.test_detector import (
  TEST,
  TRAIN,
  expected_map,
  random_params,
  tiny_config,
)
from tests.support.runs import assert_same_bits

# Of an encoder of three layers, one is a hidden one that counts.
WIDTHS = [8, 32, 48]
ALL = ('embedding', 'hidden', 'thumbnail')


def config_of(names=ALL, whiten=True, components=1000, **score):
  config = tiny_config()
  config.score.update(features=names, whiten=whiten, components=components, **score)
  return config


def fit(config, images=TRAIN):
  return Detector.fit(config, random_params(config), images, step=7)


def raw_rows(config, images=TRAIN):
  """f64[N, P, F] of each scale."""
  params = random_params(config)
  mean = TRAIN.mean(axis=0, dtype=np.float64).astype(np.float32)
  found = embedding.embed_to_host(
    architecture.from_config(config.encoder),
    *replicate((params, mean)),
    images,
    strides_of(config),
    batch_size=2,
    features=features.from_config(config.score).raw,
  )
  return {
    k: rows.astype(np.float64).reshape(len(images), -1, sum(WIDTHS)) for k, rows in found.items()
  }


def scaled(rows):
  """Rows f64[N, F], centred, each block of total variance one."""
  centred = rows - rows.mean(axis=0)
  blocks = np.split(centred, np.cumsum(WIDTHS)[:-1], axis=1)
  return np.concatenate([block / np.sqrt(block.var(axis=0).sum()) for block in blocks], axis=1)


def principal(rows):
  """The principal components f64[N, C] of rows f64[N, F], shrunk, and the variances that they have.

  Of fewer rows than numbers there are fewer components.
  """
  found = sklearn.decomposition.PCA(svd_solver='full').fit(scaled(rows))
  # It divides by one less.
  variances = found.explained_variance_ * (len(rows) - 1) / len(rows)
  shrunk = variances + variances.sum() / sum(WIDTHS)
  return found.transform(scaled(rows)) / np.sqrt(shrunk), variances / shrunk


@pytest.fixture(scope='module')
def detector():
  return fit(config_of())


@pytest.fixture(scope='module')
def raw(detector):
  return raw_rows(detector.config)


@pytest.mark.parametrize('k', [32, 16])
def test_the_bank_s_rows_are_those_of_scikit_learn(detector, raw, k):
  found = memory_bank.to_rows(detector.banks[k]).astype(np.float64)
  expected, variances = principal(raw[k].reshape(-1, sum(WIDTHS)))
  assert found.shape == (len(expected), sum(WIDTHS))
  count = len(variances)
  np.testing.assert_allclose(
    np.cov(found.T, bias=True)[:count, :count], np.diag(variances), atol=1e-4
  )
  np.testing.assert_allclose(found[:, count:], 0, atol=1e-2)
  np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-5)
  # Components have no sign, and alike ones no order: distances have all that counts.
  np.testing.assert_allclose(gram(found), gram(expected), atol=1e-3)


def gram(rows):
  return rows @ rows.T


def test_the_largest_components_are_kept(detector):
  few = fit(config_of(components=5))
  for k, bank in few.banks.items():
    assert bank.dim == 5
    first = memory_bank.to_rows(detector.banks[k])[:, :5]
    np.testing.assert_allclose(memory_bank.to_rows(bank), first, atol=1e-5)
    matrix = np.asarray(few.params['projection'][f'k{k}']['matrix'])
    assert matrix.shape == (sum(WIDTHS), 5)


@pytest.mark.parametrize('names', [ALL, ALL[1:]])
def test_without_whitening_each_block_has_a_total_variance_of_one(names):
  for bank in fit(config_of(names, whiten=False)).banks.values():
    widths = WIDTHS[-len(names) :]
    blocks = np.split(memory_bank.to_rows(bank), np.cumsum(widths)[:-1], axis=1)
    for block in blocks:
      np.testing.assert_allclose(block.mean(axis=0), 0, atol=1e-5)
      np.testing.assert_allclose(block.var(axis=0).sum(), 1, rtol=1e-4)


def test_scores_equal_a_direct_computation(detector, raw):
  """Distances between whitened rows in float64, of which the maps are weighed."""
  config = config_of(scale_weights=(0.5, 2))
  scores = fit(config).score(TEST)
  queries, maps = raw_rows(config, TEST), []
  for k, stride in strides_of(config).items():
    rows = raw[k].reshape(-1, sum(WIDTHS))
    blocks = np.split(rows - rows.mean(axis=0), np.cumsum(WIDTHS)[:-1], axis=1)
    scales = np.repeat([block.var(axis=0).sum() ** -0.5 for block in blocks], WIDTHS)
    covariance = np.cov(rows.T, bias=True) * scales[:, None] * scales
    values, vectors = np.linalg.eigh(covariance)
    matrix = scales[:, None] * vectors / np.sqrt(values + values.mean())
    bank = rows @ matrix
    nearest = [np.linalg.norm((q @ matrix)[:, None] - bank, axis=-1).min(1) for q in queries[k]]
    maps.append([expected_map(each, TEST.shape[1:3], k, stride) for each in nearest])
    np.testing.assert_allclose(scores.maps[f'k{k}'], maps[-1], rtol=1e-3)
  expected = np.sqrt(maps[0]) * np.square(maps[1])
  np.testing.assert_allclose(scores.maps['product'], expected, rtol=2e-3)
  assert scores.main_map == 'product'


def test_it_is_saved_with_the_encoder_and_fitted_anew_or_dropped(detector, tmp_path):
  detector.save(tmp_path)
  loaded = Detector.load(tmp_path)
  assert_same_bits(loaded.params, detector.params)
  np.testing.assert_allclose(
    loaded.score(TEST).maps['product'], detector.score(TEST).maps['product'], rtol=1e-5
  )
  again = Detector.fit(detector.config, loaded.params, TRAIN, step=7)
  assert_same_bits(again.params, detector.params)
  other = Detector.fit(detector.config, loaded.params, TEST, step=7)
  matrices = (each.params['projection']['k16']['matrix'] for each in (detector, other))
  assert np.abs(np.subtract(*matrices)).max() > 0.1
  plain = tiny_config()
  dropped = Detector.fit(plain, loaded.params, TRAIN, step=7)
  assert 'projection' not in dropped.params
  assert dropped.banks[16].dim == 8


def test_a_reduced_bank(raw):
  """Coreset and outliers choose among projected rows."""
  reduced = fit(config_of(coreset=0.2, outliers=0.1))
  for k, bank in reduced.banks.items():
    count = raw[k].shape[0] * raw[k].shape[1]
    assert bank.size == round(0.2 * (count - round(0.1 * count)))
  assert reduced.score(TEST).images['product'].min() > 0


def test_the_centre_is_that_of_projected_rows():
  """Which is zero: they are centred."""
  centre = fit(config_of(compare='centre'))
  for bank in centre.banks.values():
    np.testing.assert_allclose(memory_bank.to_rows(bank), 0, atol=1e-5)


def test_images_are_evenly_spread(monkeypatch):
  monkeypatch.setattr(projection, 'IMAGES', 2)
  config = config_of()
  params, mean = replicate((random_params(config), TRAIN.mean(axis=0).astype(np.float32)))
  found = projection.fit(config, params, mean, TRAIN)
  assert_same_bits(found, projection.fit(config, params, mean, TRAIN[[1, 3]]))


@pytest.mark.parametrize('whiten', [False, True])
def test_constant_images_have_no_scale(whiten):
  config = config_of(whiten=whiten)
  grey = np.full_like(TRAIN, 99)
  detector = fit(config, grey)
  for bank in detector.banks.values():
    assert not memory_bank.to_rows(bank).any()
  assert not detector.score(TEST).maps['product'].any()


def test_a_constant_block_does_not_count():
  rng = np.random.default_rng(0)
  rows = np.concatenate([np.full((50, 2), 0.7), rng.normal(size=(50, 3))], axis=1)
  covariance = np.cov(rows.T, bias=True)
  covariance[0, 0] = 1e-16  # of rounding
  for components in (0, 5):
    found = projection.solve(rows.mean(axis=0), covariance, [2, 3], components)
    expected = projection.solve(rows.mean(axis=0)[2:], covariance[2:, 2:], [3], 0)
    assert not found['matrix'][:2].any()
    if not components:
      np.testing.assert_array_equal(found['matrix'][2:, 2:], expected['matrix'])
    assert np.isfinite(found['matrix']).all()


def test_moments_of_parts_are_those_of_all():
  # A mean that is large beside the deviations.
  rows = np.random.default_rng(0).normal(1000, 0.01, (400, 7)).astype(np.float32)
  moments = projection.Moments()
  for part in np.split(rows, [100, 101, 250]):
    moments.add(part)
  exact = rows.astype(np.float64)
  np.testing.assert_allclose(moments.mean, exact.mean(axis=0), rtol=1e-12)
  expected = np.cov(exact.T, bias=True)
  np.testing.assert_allclose(moments.covariance, expected, rtol=0, atol=1e-9 * expected.max())
