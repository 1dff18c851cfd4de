"""How training begins, and what a config asks of a run."""

import jax
import numpy as np
import pytest

from patch_svdd_jax.models import architecture, encoder
from patch_svdd_jax.training import train_state
from tests.support.runs import assert_same_bits, leaves, moved, on_host, tiny_config


def test_initial_parameters_depend_on_the_seed_alone():
  states = [
    on_host(train_state.init_state(config))
    for config in (
      tiny_config(),
      tiny_config(svdd_weight=1.0, learning_rate=1.0, batch_size=16, pairs='crops'),
      tiny_config(seed=1),
    )
  ]
  assert_same_bits(states[0], states[1])
  assert all(moved(states[0].params, states[2].params).values())
  assert_same_bits(states[0].params['encoder'], on_host(encoder.init_encoder(tiny_config())))
  assert states[0].step == 0
  assert states[0].params['classifiers'].keys() == {'k16', 'k8'}
  drawn = leaves(states[0].params)
  # Of as many features as inputs, no two modules begin alike.
  classifiers = [drawn[f'classifiers/{k}/dense_1_kernel'] for k in ('k16', 'k8')]
  assert not np.any(classifiers[0] == classifiers[1])


@pytest.mark.parametrize('optimizer', ['lamb', 'lars'])
def test_every_optimiser_has_its_state(optimizer):
  state = jax.eval_shape(lambda: train_state.init_state(tiny_config(optimizer=optimizer)))
  moments = {'lamb': 2, 'lars': 1}[optimizer]
  shapes = sorted(leaf.shape for leaf in jax.tree.leaves(state.params))
  found = sorted(leaf.shape for leaf in jax.tree.leaves(state.opt_state) if leaf.shape)
  assert found == sorted(moments * shapes)


def test_a_setting_is_what_the_config_names():
  config = tiny_config(
    seed=3, svdd_weight=1e-3, learning_rate=2e-4, batch_size=256, learning_rate_scaling='sqrt'
  )
  centre = np.arange(4, dtype=np.float32)
  found = train_state.hyperparams(config, {'k16': centre})
  assert jax.random.key_data(found.key).tolist() == jax.random.key_data(jax.random.key(3)).tolist()
  assert found.svdd_weight == np.float32(1e-3)
  assert found.learning_rate == np.float32(4e-4)
  assert {leaf.shape for leaf in (found.key, found.svdd_weight, found.learning_rate)} == {()}
  np.testing.assert_array_equal(found.centres['k16'], centre)


def test_the_name_of_a_scale():
  assert architecture.scale_name(64) == 'k64'
