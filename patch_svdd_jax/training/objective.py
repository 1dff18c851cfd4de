"""The objective of training: drawn pairs, embedded, and the losses of both tasks on all scales.

Pairs come from single patches or from densely encoded crops; the losses are the same.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import ml_collections
from jax import lax

from patch_svdd_jax.models import architecture
from patch_svdd_jax.models.architecture import scale_name
from patch_svdd_jax.models.encoder import KEPT, Encoder, Params, PositionClassifier
from patch_svdd_jax.system.sharding import DEVICES, Axis
from patch_svdd_jax.training import crops, losses, sampling, windows
from patch_svdd_jax.training.place_tables import Places
from patch_svdd_jax.training.train_state import Hyperparams

Metrics = dict[str, jax.Array]


class PairEmbeddings(NamedTuple):
  """The embeddings of one scale's pairs, f32[B, D], and i32[B] for the position pairs."""

  first: jax.Array
  second: jax.Array
  positions: jax.Array
  anchor: jax.Array
  neighbour: jax.Array


# (encoder params, keys[B], images, mean, places) -> the pairs of each scale
EmbedPairs = Callable[
  [Params, jax.Array, jax.Array, jax.Array, Places | None], dict[int, PairEmbeddings]
]

# (params, keys[B], images, mean, hyperparams) -> the loss, metrics, and embeddings f32[B, D]
Loss = Callable[
  [Params, jax.Array, jax.Array, jax.Array, Hyperparams],
  tuple[jax.Array, tuple[Metrics, dict[str, jax.Array]]],
]


class Encode(Protocol):
  """The encoder as training computes it, of patches, or of images where there are strides."""

  def __call__(self, params: Params, x: jax.Array, strides: Mapping[int, int] | None = None) -> Any:
    """Returns f32[B, D], or f32[B, rows, columns, D] of each receptive field."""


COMPUTE = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}


def encode_with(config: ml_collections.ConfigDict) -> Encode:
  """Returns encode(params, input, strides=None), the encoder as `config.train` computes it.

  Without strides the input is patches. With `config.train.rematerialise` the backward pass computes
  most activations again instead of keeping them.
  """
  encoder = Encoder(architecture.from_config(config.encoder), COMPUTE[config.train.compute])

  @jax.named_scope('encoder')
  def encode(params: Params, x: jax.Array, strides: Mapping[int, int] | None = None) -> Any:
    variables = {'params': params}
    if strides is None:
      return encoder.apply(variables, x, method='embed_patches')
    return encoder.apply(variables, x, strides)

  if not config.train.rematerialise:
    return encode
  policy = jax.checkpoint_policies.save_only_these_names(KEPT)
  return lambda params, x, strides=None: jax.checkpoint(
    functools.partial(encode, strides=strides), policy=policy
  )(params, x)


def embed_patch_pairs(
  config: ml_collections.ConfigDict, count: int, crop: windows.Crop
) -> EmbedPairs:
  """Embeds in the authors' way: every patch by itself, one pair of each kind from each key."""
  encode, train = encode_with(config), config.train
  samplers = {
    k: sampling.make_sampler(k, train.position_pairs, train.augment, count, crop)
    for k in config.encoder.scales
  }

  def embed(
    params: Params, keys: jax.Array, images: jax.Array, mean: jax.Array, places: Any = None
  ) -> dict[int, PairEmbeddings]:
    found = {}
    for k, sample in samplers.items():
      scale_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, k)
      pairs = sample(scale_keys, images, mean, places and places[k])
      patches = jnp.concatenate(
        [pairs.position_first, pairs.position_second, pairs.neighbour_first, pairs.neighbour_second]
      )
      z = encode(params, patches)
      first, second, anchor, neighbour = jnp.split(z, 4)
      found[k] = PairEmbeddings(first, second, pairs.positions, anchor, neighbour)
    return found

  return embed


def embed_crop_pairs(
  config: ml_collections.ConfigDict, count: int, crop: windows.Crop
) -> EmbedPairs:
  """Returns pairs as points of densely encoded crops, many from each key; see `crops`."""
  encode = encode_with(config)
  arch = architecture.from_config(config.encoder)
  sample = crops.make_sampler(arch, config.train, count, crop)
  strides = dict.fromkeys(arch.scales, arch.native_stride)

  @jax.named_scope('sampling')
  def pick(maps: jax.Array, points: jax.Array) -> jax.Array:
    """Returns embeddings f32[C * P, D] at points i32[C, P, 2] of maps f32[C, h, w, D]."""
    each = jax.vmap(lambda grid, at: grid[at[:, 0], at[:, 1]])(maps, points)
    picked: jax.Array = each.reshape(-1, each.shape[-1])
    return picked

  def embed(
    params: Params, keys: jax.Array, images: jax.Array, mean: jax.Array, places: Any = None
  ) -> dict[int, PairEmbeddings]:
    views = sample(keys, images, mean, places)
    maps = encode(params, jnp.concatenate([views.first, views.second]), strides)
    found = {}
    for k, points in views.points.items():
      one, other = jnp.split(maps[k], 2)
      found[k] = PairEmbeddings(
        pick(one, points.first),
        pick(other, points.second),
        points.positions.reshape(-1),
        pick(one, points.anchor),
        pick(other, points.anchor),
      )
    return found

  return embed


PAIRS: dict[str, Callable[[ml_collections.ConfigDict, int, windows.Crop], EmbedPairs]] = {
  'patches': embed_patch_pairs,
  'crops': embed_crop_pairs,
}


def make_loss(
  config: ml_collections.ConfigDict,
  count: int,
  crop: windows.Crop = windows.crop,
  axis: Axis = DEVICES,
) -> Loss:
  """Returns loss(params, keys, images, mean, hyperparams) -> (L_Patch SVDD, (metrics, anchors)).

  L = sum over scales of  L_SSL + lambda L_SVDD'  (Yi & Yoon 2020, eq. 6), where the config gives
  L_SSL a weight other than 1, or takes L_SVDD for L_SVDD', in ablations. All values are means over
  pairs, so that those of equal parts of a batch average to the batch's. `anchors` has embeddings
  f32[B, D] of random patches for each scale's name, for statistics that are no such means.

  `config.train.contrast` adds so many times `losses.contrast_loss`, which compares each pair with
  the others of its part of the batch on all devices; the loss then needs the mapped axis.

  Args:
    config: the whole config.
    count: of the training images.
    crop: crops windows out of them.
    axis: the mapped axis of all devices.
  """
  embed = PAIRS[config.train.pairs](config, count, crop)
  classifier = PositionClassifier(config.train.train_last_layer)

  @jax.named_scope('losses')
  def compare(
    params: Params, embedded: Mapping[int, PairEmbeddings], hyperparams: Hyperparams
  ) -> tuple[jax.Array, tuple[Metrics, dict[str, jax.Array]]]:
    total = jnp.float32(0)
    metrics: Metrics = {}
    anchors: dict[str, jax.Array] = {}
    for k, pairs in embedded.items():
      name = scale_name(k)
      head = {'params': params['classifiers'][name]}
      logits: Any = classifier.apply(head, pairs.first, pairs.second)
      position = losses.position_loss(logits, pairs.positions)
      if config.train.svdd == 'centre':
        svdd = losses.centre_loss(pairs.anchor, hyperparams.centres[name])
      else:
        svdd = losses.neighbour_loss(pairs.anchor, pairs.neighbour)
      metrics |= {
        f'position_loss/{name}': position,
        f'position_accuracy/{name}': losses.position_accuracy(logits, pairs.positions),
        f'{config.train.svdd}_loss/{name}': svdd,
      }
      anchors[name] = lax.stop_gradient(pairs.anchor)
      total += config.train.position_weight * position + hyperparams.svdd_weight * svdd
      if config.train.contrast:
        contrast = losses.contrast_loss(
          pairs.anchor, pairs.neighbour, config.train.contrast_temperature, axis
        )
        metrics[f'contrast_loss/{name}'] = contrast
        total += config.train.contrast * contrast
    return total, ({'loss': total} | metrics, anchors)

  def loss(
    params: Params, keys: jax.Array, images: jax.Array, mean: jax.Array, hyperparams: Hyperparams
  ) -> tuple[jax.Array, tuple[Metrics, dict[str, jax.Array]]]:
    embedded = embed(params['encoder'], keys, images, mean, hyperparams.places)
    return compare(params, embedded, hyperparams)

  return loss


def examples(config: ml_collections.ConfigDict) -> int:
  """Returns the number of examples that a step draws from a key each: pairs, or crops."""
  return int(config.train.crops if config.train.pairs == 'crops' else config.train.batch_size)
