"""Statistics of an encoder on normal images that were held out; `selection` judges by them.

Each is named with its scale, as 'position_accuracy/k64':

- position_loss, position_accuracy, neighbour_loss: of PAIRS pairs of single patches of the held-out
  images, drawn with training's noise and light, the same ones every time;
- distance_median, distance_99, distance_max: of the held-out images' patches, at the strides of
  scoring, to the nearest patch of some training images: the median, the 99 % quantile, the largest;
- relative_median, relative_99, relative_max: the same in units of `radius`, the root mean square
  distance of the training images' patches to their mean. A scale's embeddings may be of any size.

The cost is bounded: no more than `config.checkpoint.validation_images` images of either kind are
looked at, and of large ones only as many as have PATCHES patches at a scale together.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax import lax

from patch_svdd_jax.data.dataset import is_fixed
from patch_svdd_jax.models import architecture, embedding, geometry, judged_patches
from patch_svdd_jax.models.architecture import scale_name
from patch_svdd_jax.models.encoder import Params
from patch_svdd_jax.search import plain
from patch_svdd_jax.system.batching import evenly_spaced
from patch_svdd_jax.training import losses, objective, places
from patch_svdd_jax.training.place_tables import Places
from patch_svdd_jax.training.train_state import hyperparams

# Pairs of each kind at each scale, and how many of them are embedded at a time.
PAIRS, PAIRS_TOGETHER = 512, 64

# Of either kind of images at a scale, at most: 16 images of 1024 x 1024 pixels at a stride of 4.
PATCHES = 2**20

# Patches that are compared with all of the bank at a time.
QUERIES_TOGETHER = 128

Statistics = dict[str, float]
# Of each scale, which patches of the held-out images and of the others count, i32[Q] and i32[N].
Judged = dict[int, tuple[jax.Array, jax.Array]]
# (params, keys, held_out, images, mean, places, judged) -> metrics, and of each scale distances and
# the radius
Program = Callable[
  [Params, jax.Array, jax.Array, jax.Array, jax.Array, Places | None, Judged | None],
  tuple[dict[str, jax.Array], dict[int, jax.Array], dict[int, jax.Array]],
]


def images_looked_at(
  config: ml_collections.ConfigDict, strides: dict[int, int], size: geometry.ImageSize
) -> int:
  """Returns how many images of a size (height, width) of either kind are looked at, at most.

  Their embeddings lie on one device, and each patch is compared with each.
  """
  patches = max(geometry.patch_count(size, k, stride) for k, stride in strides.items())
  return int(min(config.checkpoint.validation_images, max(1, PATCHES // patches)))


def make_validation(
  config: ml_collections.ConfigDict,
  strides: dict[int, int],
  images: np.ndarray,
  held_out: np.ndarray,
  mean: np.ndarray,
  regions: tuple[np.ndarray, np.ndarray] | None = None,
) -> Callable[[Params], Statistics]:
  """Returns validate(params) -> the statistics; {} always where no image is held out.

  The images are put on this process's first device here, once; the program is compiled by the first
  call, and no call moves anything there.

  Args:
    config: the whole config.
    strides: of each receptive field, in pixels.
    images: u8[N, H, W, 3], the training images.
    held_out: u8[M, H, W, 3].
    mean: of `mean_image.training_mean`.
    regions: bool[N, H, W] and bool[M, H, W], of the training and of the held-out images, if any:
      pairs and patches are those that count.

  Returns:
    A function of the train state's parameters, which are replicated on any mesh.
  """
  if not len(held_out):
    return lambda _: {}
  wanted = images_looked_at(config, strides, images.shape[1:3])
  held_out, images = (part[evenly_spaced(len(part), wanted)] for part in (held_out, images))
  where, judged = None, None
  if regions is not None:
    of_images, of_held_out = (_spread(part, wanted) for part in regions)
    where = places.make(of_pairs(config), of_held_out)
    share = config.data.region_share
    judged = {
      k: tuple(
        np.flatnonzero(judged_patches.inside(part, k, stride, share)).astype(np.int32)
        for part in (of_held_out, of_images)
      )
      for k, stride in strides.items()
    }
  device = jax.local_devices()[0]
  keys = jax.random.split(jax.random.key(0), PAIRS)
  inputs = jax.device_put((keys, held_out, images, mean, where, judged), device)
  program = jax.jit(make_program(config, strides, len(held_out)))

  def validate(params: Params) -> Statistics:
    here = jax.tree.map(lambda leaf: leaf.addressable_data(0), params)
    metrics, nearest, radius = jax.device_get(program(here, *inputs))
    statistics = {name: float(value) for name, value in metrics.items()}
    for k, distances in nearest.items():
      statistics |= distance_statistics(scale_name(k), distances, float(radius[k]))
    return statistics

  return validate


def _spread(regions: np.ndarray, wanted: int) -> np.ndarray:
  """Returns the regions of the images that are looked at."""
  if is_fixed(regions):
    return regions[:wanted]
  found: np.ndarray = regions[evenly_spaced(len(regions), wanted)]
  return found


def of_pairs(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """Returns the config whose pairs the statistics are about: those of all runs are drawn alike."""
  single = config.copy_and_resolve_references()
  # However training makes its pairs, the statistics of two runs are those of the same pairs.
  single.train.pairs = 'patches'
  single.train.svdd = 'neighbour'
  # It is a statistic of a batch, not of pairs.
  single.train.contrast = 0.0
  return single


def distance_statistics(name: str, distances: np.ndarray, radius: float) -> Statistics:
  """Returns the statistics of distances f32[Q] at a scale."""
  values = np.quantile(distances.astype(np.float64), (0.5, 0.99, 1))
  quantiles = dict(zip(('median', '99', 'max'), values.tolist(), strict=True))
  # Embeddings that are all the same have no unit; no distance is then as far as can be.
  relative = {key: value / radius if radius else float('inf') for key, value in quantiles.items()}
  return (
    {f'distance_{key}/{name}': value for key, value in quantiles.items()}
    | {f'relative_{key}/{name}': value for key, value in relative.items()}
    | {f'radius/{name}': radius}
  )


def make_program(config: ml_collections.ConfigDict, strides: dict[int, int], count: int) -> Program:
  """Returns program(params, keys, held_out, images, mean, places, judged).

  It gives metrics, and of each scale the distances f32[Q] of held-out patches to the nearest of the
  images, and the radius f32[].

  Args:
    config: the whole config.
    strides: of each receptive field, in pixels.
    count: of the held-out images.
  """
  loss = objective.make_loss(of_pairs(config), count)
  arch = architecture.from_config(config.encoder)
  encode = embedding.make_encode(arch, strides, config.score.tile)

  def program(
    params: Params,
    keys: jax.Array,
    held_out: jax.Array,
    images: jax.Array,
    mean: jax.Array,
    places: Places | None,
    judged: Judged | None,
  ) -> tuple[dict[str, jax.Array], dict[int, jax.Array], dict[int, jax.Array]]:
    def of_some(keys: jax.Array) -> dict[str, jax.Array]:
      run = hyperparams(config, {})._replace(places=places)
      _, (metrics, _) = loss(params, keys, held_out, mean, run)
      return metrics

    def embed(images: jax.Array) -> dict[int, jax.Array]:
      one = lax.map(lambda image: encode(params['encoder'], mean, image[None]), images)
      return {k: grid.reshape(-1, grid.shape[-1]) for k, grid in one.items()}

    metrics = lax.map(of_some, keys.reshape(-1, PAIRS_TOGETHER))
    queries, rows = embed(held_out), embed(images)
    if judged is not None:
      queries = {k: queries[k][judged[k][0]] for k in strides}
      rows = {k: rows[k][judged[k][1]] for k in strides}
    centred = {k: (queries[k] - rows[k].mean(0)[None], centre(rows[k])) for k in strides}
    return (
      {name: value.mean() for name, value in metrics.items()},
      {k: nearest_distances(*pair) for k, pair in centred.items()},
      {k: jnp.sqrt(jnp.mean(jnp.sum(rows**2, axis=1))) for k, (_, rows) in centred.items()},
    )

  return program


def centre(rows: jax.Array) -> jax.Array:
  """Returns rows f32[N, D] minus their mean."""
  return rows - rows.mean(0)[None]


def nearest_distances(queries: jax.Array, rows: jax.Array) -> jax.Array:
  """Returns the distance of each query f32[Q, D] to the nearest of rows f32[N, D], f32[Q].

  The row is found by a product in float32, so the origin should lie among the rows; the distance to
  it is by differences. So a distance is exact, though of rows that are equally near up to rounding
  another one may be found.
  """
  blocks = plain.divide(rows)

  # The differences within the loop, too: outside, the CPU's compiler fuses them with the mean's
  # subtraction, which changes their last digits.
  def distances(queries: jax.Array) -> jax.Array:
    _, numbers = plain.nearest(queries, blocks)
    return losses.distance(queries, rows[numbers[:, 0]])

  padded = jnp.pad(queries, ((0, -len(queries) % QUERIES_TOGETHER), (0, 0)))
  together = padded.reshape(-1, QUERIES_TOGETHER, queries.shape[1])
  found: jax.Array = lax.map(distances, together).reshape(-1)[: len(queries)]
  return found
