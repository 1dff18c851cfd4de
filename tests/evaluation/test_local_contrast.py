"""Local contrast against windows one by one, AUROC within groups against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from patch_svdd_jax.evaluation import local_contrast


def test_the_standard_deviation_is_that_of_each_window():
  images = np.random.default_rng(0).integers(0, 256, (2, 9, 11, 3), dtype=np.uint8)
  images[1] = 250 + images[1] % 5  # bright and flat
  found = local_contrast.standard_deviation(images, 4)
  assert found.dtype == np.float32
  grey = np.pad(images.astype(np.float64).mean(-1), ((0, 0), (2, 1), (2, 1)), 'symmetric')
  windows = np.lib.stride_tricks.sliding_window_view(grey, (4, 4), axis=(1, 2))
  np.testing.assert_allclose(found, windows.std(axis=(-2, -1)), rtol=1e-5, atol=1e-5)


def test_a_flat_image_has_no_contrast():
  flat = np.full((1, 8, 8, 3), 77, np.uint8)
  np.testing.assert_array_equal(local_contrast.standard_deviation(flat, 4), 0)


def test_auroc_within_groups_is_the_mean_of_scikit_learns():
  rng = np.random.default_rng(1)
  contrast = rng.normal(size=(3, 9, 7))  # 189 pixels: groups of 19 and 18
  masks = rng.random(contrast.shape) < 0.1 + 0.4 * (contrast > 0)
  masks[contrast < np.quantile(contrast, 0.1)] = False  # a group of normal pixels alone
  maps = np.round(rng.normal(size=contrast.shape) + masks, 1)  # with ties
  total, count = 0.0, 0
  for group in np.array_split(np.argsort(contrast.ravel()), 10):
    labels = masks.ravel()[group]
    if labels.any() and not labels.all():
      total += labels.sum() * roc_auc_score(labels, maps.ravel()[group])
      count += labels.sum()
  assert count < contrast.size
  found = local_contrast.auroc_within_groups(contrast, masks, maps)
  assert found == pytest.approx(total / count, abs=1e-12)


def test_contrast_itself_does_not_help_within_groups():
  rng = np.random.default_rng(2)
  contrast = rng.random((4, 50, 50))
  masks = rng.random(contrast.shape) < contrast  # defects lie where contrast is
  assert roc_auc_score(masks.ravel(), contrast.ravel()) > 0.8
  assert local_contrast.auroc_within_groups(contrast, masks, contrast) < 0.6


def test_one_class_has_no_auroc():
  contrast = np.arange(40.0).reshape(1, 5, 8)
  nowhere = np.zeros(contrast.shape, bool)
  assert np.isnan(local_contrast.auroc_within_groups(contrast, nowhere, contrast))
