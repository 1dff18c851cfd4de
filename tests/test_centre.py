"""The centre that patch-wise Deep SVDD starts from."""

import numpy as np
import pytest

from patch_svdd_jax import architecture, centre, train_state
from patch_svdd_jax.encoders import Encoder
from tests.runs import IMAGE_SIZE, IMAGES, MEAN, tiny_config
from tests.test_detector import corners

pytestmark = pytest.mark.usefixtures('quick_compilation')


def test_the_centre_is_the_mean_embedding_of_an_untrained_encoder():
  config = tiny_config(seed=3, svdd='centre', scales=(8,))
  found = centre.initial(config, IMAGES, MEAN)
  encoder = Encoder(architecture.from_config(config.encoder))
  params = {'params': train_state.init_encoder(config)}
  standardised = (IMAGES - MEAN) / 255
  patches = [standardised[:, i : i + 8, j : j + 8] for i, j in corners(IMAGE_SIZE, 8, 4)]
  expected = encoder.apply(params, np.concatenate(patches), method='embed_patches')
  np.testing.assert_allclose(found['k8'], np.asarray(expected).mean(axis=0), rtol=1e-4)
  assert {k: value.shape for k, value in centre.zeros(config).items()} == {'k8': (8,)}


def test_the_neighbour_loss_has_no_centre():
  assert centre.initial(tiny_config(), IMAGES, MEAN) == centre.zeros(tiny_config()) == {}
