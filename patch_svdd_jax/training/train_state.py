"""All that changes during training, and how it begins."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from patch_svdd_jax.models.architecture import scale_name
from patch_svdd_jax.models.encoder import Params, PositionClassifier, init_encoder
from patch_svdd_jax.training import optimizer
from patch_svdd_jax.training.place_tables import Places


class TrainState(NamedTuple):
  """All that changes during training.

  Attributes:
    step: i32[], steps taken.
    params: 'encoder' and 'classifiers', the latter by scale ('k64', ...).
    opt_state: the optimiser's.
  """

  step: jax.Array
  params: Params
  opt_state: optax.OptState


class Hyperparams(NamedTuple):
  """What may differ between runs of one program.

  Attributes:
    key: the run's; step n draws its keys from fold_in(key, n).
    svdd_weight: f32[], lambda.
    learning_rate: f32[], the peak of the schedule.
    centres: f32[D] of each scale's name, of `deep_svdd_centre.initial`; none for the neighbour
      loss.
    places: of `places.make`, where pairs are drawn; None where they are drawn everywhere.
  """

  key: jax.Array
  svdd_weight: jax.Array
  learning_rate: jax.Array
  centres: Mapping[str, jax.Array]
  places: Places | None = None


def init_state(config: ml_collections.ConfigDict) -> TrainState:
  """Returns the state before the first step."""
  embedding = jnp.zeros((1, config.encoder.embed_dim))
  classifier = PositionClassifier(config.train.train_last_layer)
  key = jax.random.fold_in(jax.random.key(config.seed), 1)
  params = {
    'encoder': init_encoder(config),
    'classifiers': {
      scale_name(k): classifier.init(jax.random.fold_in(key, k), embedding, embedding)['params']
      for k in config.encoder.scales
    },
  }
  return TrainState(jnp.int32(0), params, optimizer.from_config(config.train).init(params))


def hyperparams(
  config: ml_collections.ConfigDict, centres: Mapping[str, np.ndarray | jax.Array]
) -> Hyperparams:
  """Returns the config's hyperparameters, with the centre of `deep_svdd_centre.initial`."""
  return Hyperparams(
    jax.random.key(config.seed),
    jnp.float32(config.train.svdd_weight),
    jnp.float32(optimizer.peak_learning_rate(config.train)),
    {name: jnp.asarray(value) for name, value in centres.items()},
  )
