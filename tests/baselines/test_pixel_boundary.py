"""OC-SVM and SVDD on pixels against scikit-learn's own PCA and decision function."""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.svm import OneClassSVM

from patch_svdd_jax.baselines import patches
from patch_svdd_jax.baselines.pixel_boundary import PixelBoundary
from patch_svdd_jax.configs import default
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.models import geometry

SIZE, K, STRIDE = (20, 27), 8, 5
IMAGES = np.random.default_rng(0).integers(0, 256, (24, *SIZE, 3), dtype=np.uint8)
QUERIES = np.random.default_rng(1).integers(0, 256, (5, *SIZE, 3), dtype=np.uint8)
KERNELS = {'rbf': 'rbf', 'linear': 'linear', 'polynomial': 'poly'}


def tiny_config(**baseline):
  config = default.get_config()
  config.encoder.receptive_field = K
  config.score.batch_size = 3
  config.baseline.update({'components': 6, 'stride': STRIDE, 'nu': 0.3} | baseline)
  return config


def patch_rows(images):
  """All patches as rows, one by one."""
  rows = [
    image[top : top + K, left : left + K].ravel() / 255
    for image in images
    for top in range(0, SIZE[0] - K + 1, STRIDE)
    for left in range(0, SIZE[1] - K + 1, STRIDE)
  ]
  return np.array(rows)


def decisions(train, queries, kernel):
  """Scikit-learn's, in float64; its signs and scale."""
  pca = PCA(6, svd_solver='full').fit(train)
  train, queries = pca.transform(train), pca.transform(queries)
  machine = OneClassSVM(kernel=KERNELS[kernel], nu=0.3, gamma='scale', degree=2, coef0=1)
  if kernel == 'linear':
    # The kernel's scale, which scikit-learn has none of, is that of its dual variables' tolerance.
    scale = (6 * train.var()) ** -0.5
    train, queries = train * scale, queries * scale
  return -machine.fit(train).decision_function(queries)


@pytest.mark.parametrize('kernel', KERNELS)
def test_ocsvm_image(kernel, tmp_path):
  system = PixelBoundary.fit('ocsvm_image', tiny_config(kernel=kernel), IMAGES)
  rows, queries = (images.reshape(len(images), -1) / 255 for images in (IMAGES, QUERIES))
  expected = decisions(rows, queries, kernel)
  system.save(tmp_path)
  for each in (system, PixelBoundary.load(tmp_path)):
    scores = each.score(QUERIES)
    np.testing.assert_allclose(scores.images['image'], expected, rtol=2e-3, atol=2e-3)
    # Constant over an image.
    assert scores.maps['image'].shape == (5, *SIZE)
    assert (scores.maps['image'] == scores.images['image'][:, None, None]).all()


def test_ocsvm_patch(tmp_path):
  system = PixelBoundary.fit('ocsvm_patch', tiny_config(), IMAGES)
  grid = geometry.grid_shape(SIZE, K, STRIDE)
  expected = decisions(patch_rows(IMAGES), patch_rows(QUERIES), 'rbf').reshape(5, *grid)
  system.save(tmp_path)
  for each in (system, PixelBoundary.load(tmp_path)):
    scores = each.score(QUERIES)
    np.testing.assert_allclose(scores.distances['k8'], expected, rtol=2e-2, atol=2e-2)
    weights = [geometry.coverage_weights(extent, K, STRIDE) for extent in SIZE]
    maps = np.einsum('hr,brc,wc->bhw', weights[0], scores.distances['k8'], weights[1])
    np.testing.assert_allclose(scores.maps['k8'], maps, atol=1e-4)
    np.testing.assert_array_equal(scores.images['k8'], scores.maps['k8'].max(axis=(1, 2)))
    assert scores.seconds.keys() == {'score', 'map'}


@pytest.mark.parametrize('name', ['svdd_image', 'svdd_patch'])
def test_svdd_with_rbf_orders_as_ocsvm(name, tmp_path):
  system = PixelBoundary.fit(name, tiny_config(), IMAGES)
  other = PixelBoundary.fit(name.replace('svdd', 'ocsvm'), tiny_config(), IMAGES)
  system.save(tmp_path)
  found = next(iter(PixelBoundary.load(tmp_path).score(QUERIES).distances.values()))
  expected = next(iter(other.score(QUERIES).distances.values()))
  scale = 2 / other.boundary.coefficients.sum()
  np.testing.assert_allclose(found, scale * expected, rtol=1e-4, atol=1e-6)


def test_nothing_that_is_saved_is_code(tmp_path):
  PixelBoundary.fit('svdd_image', tiny_config(), IMAGES).save(tmp_path)
  names = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob('*') if path.is_file()}
  assert names == {'config.json', 'model/arrays.npz'}
  with np.load(tmp_path / 'model/arrays.npz', allow_pickle=False) as arrays:
    assert all(array.dtype != object for array in arrays.values())


def test_errors(tmp_path):
  with pytest.raises(UserError, match=r'no fitted baseline in .*model: run'):
    PixelBoundary.load(tmp_path)
  system = PixelBoundary.fit('ocsvm_image', tiny_config(), IMAGES)
  with pytest.raises(UserError, match='images of 20x20 pixels are not of the size'):
    system.score(QUERIES[:, :, :20])
  system.save(tmp_path)
  (tmp_path / 'model/arrays.npz').write_bytes(b'PK\x03\x04 cut short')
  with pytest.raises(UserError, match=r'arrays\.npz cannot be read'):
    PixelBoundary.load(tmp_path)


# Patches.


def test_rows_are_the_patches():
  rows = patches.patch_rows(QUERIES, K, STRIDE)
  assert rows.shape[:3] == (5, *geometry.grid_shape(SIZE, K, STRIDE))
  np.testing.assert_allclose(rows.reshape(-1, K * K * 3), patch_rows(QUERIES), rtol=1e-6)
  np.testing.assert_allclose(patches.image_rows(QUERIES), QUERIES.reshape(5, -1) / 255, rtol=1e-6)


def test_a_sample_has_different_patches_of_a_seed():
  everything = patches.sample_rows(QUERIES, K, STRIDE, 10_000, 0)
  np.testing.assert_allclose(everything, patch_rows(QUERIES), rtol=1e-6)
  few, again, other = (patches.sample_rows(QUERIES, K, STRIDE, 7, seed) for seed in (0, 0, 1))
  assert few.shape == (7, K * K * 3)
  np.testing.assert_array_equal(few, again)
  assert (few != other).any()
  known = {row.tobytes() for row in everything}
  assert len({row.tobytes() for row in few} & known) == 7


def test_images_smaller_than_a_patch():
  with pytest.raises(UserError, match='cannot hold a 8-pixel patch'):
    patches.patch_rows(QUERIES[:, :5], K, STRIDE)
