"""The centre that patch-wise Deep SVDD starts from."""

import numpy as np

from patch_svdd_jax.models import architecture
from patch_svdd_jax.models.encoder import Encoder, init_encoder
from patch_svdd_jax.training import deep_svdd_centre
from tests.detection.test_detector import corners
from tests.support.runs import IMAGE_SIZE, IMAGES, MEAN, tiny_config


def test_the_centre_is_the_mean_embedding_of_an_untrained_encoder():
  config = tiny_config(seed=3, svdd='centre', scales=(8,))
  found = deep_svdd_centre.initial(config, IMAGES, MEAN)
  encoder = Encoder(architecture.from_config(config.encoder))
  params = {'params': init_encoder(config)}
  normalised = (IMAGES - MEAN) / 255
  patches = [normalised[:, i : i + 8, j : j + 8] for i, j in corners(IMAGE_SIZE, 8, 4)]
  expected = encoder.apply(params, np.concatenate(patches), method='embed_patches')
  np.testing.assert_allclose(found['k8'], np.asarray(expected).mean(axis=0), rtol=1e-4)
  assert {k: value.shape for k, value in deep_svdd_centre.zeros(config).items()} == {'k8': (8,)}


def test_the_neighbour_loss_has_no_centre():
  assert (
    deep_svdd_centre.initial(tiny_config(), IMAGES, MEAN)
    == deep_svdd_centre.zeros(tiny_config())
    == {}
  )
