"""Deep SVDD (Ruff et al. 2018): an encoder that draws all normal images towards one centre.

The encoder has neither biases nor bounded activations, with which it could map all images to the
centre whatever they show (section 3.3); images are resized to SIDE x SIDE pixels. An image's score
is its squared distance from the centre, less the squared radius for the soft boundary.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from flax import linen as nn
from flax import traverse_util
from jax import lax

from patch_svdd_jax.baselines import patches, saved, scoring
from patch_svdd_jax.data.images import resize_image
from patch_svdd_jax.detection.scores import Scores
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.models import mean_image
from patch_svdd_jax.models.convolution import valid_conv
from patch_svdd_jax.models.encoder import Params, leaky_relu
from patch_svdd_jax.system.batching import Progress, pad_images
from patch_svdd_jax.system.sharding import PRECISION

SIDE = 64
CHANNELS = (16, 32, 64)
KERNEL = 5
EMBED_DIM = 64

# Images of a step, drawn with replacement: there may be fewer.
BATCH_SIZE = 64
# The authors': weight decay, and how far from 0 the centre's components are at least.
WEIGHT_DECAY = 1e-6
LEAST_COMPONENT = 0.1
# Of the steps: before, the soft boundary's radius stays 0 (10 of the authors' 150 epochs).
WARM_UP = 1 / 15

# Steps of a call of the train step, between which progress is shown; images embedded at a time.
STEPS_PER_CALL = 50
EMBEDDED_TOGETHER = 64


def max_pool(x: jax.Array) -> jax.Array:
  """Returns the largest of 2 x 2: f32[B, H, W, C] to f32[B, H // 2, W // 2, C].

  Written out: on CPUs a step with the gradient of XLA's windows takes more than twice as long.
  """
  batch, height, width, channels = x.shape
  even = x[:, : height // 2 * 2, : width // 2 * 2]
  return even.reshape(batch, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4))


class BiasFreeEncoder(nn.Module):
  """Convolutions of 5 x 5, leaky ReLU and 2 x 2 maximum pooling, and a linear layer."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Embeds f32[B, SIDE, SIDE, 3] to f32[B, EMBED_DIM]."""
    initializer = nn.initializers.xavier_uniform()
    for index, features in enumerate(CHANNELS):
      shape = (KERNEL, KERNEL, x.shape[-1], features)
      kernel = self.param(f'conv_{index}_kernel', initializer, shape)
      x = max_pool(leaky_relu(valid_conv(x, kernel, 1, 1)))
    x = x.reshape(len(x), -1)
    kernel = self.param('last_kernel', initializer, (x.shape[-1], EMBED_DIM))
    return jnp.dot(x, kernel, precision=PRECISION)


class DeepSvddState(NamedTuple):
  """All that changes during training.

  Attributes:
    step: i32[], steps taken.
    params: the encoder's.
    opt_state: the optimiser's.
    radius: f32[], R of the soft boundary.
    loss: f32[], of the last step.
  """

  step: jax.Array
  params: Params
  opt_state: optax.OptState
  radius: jax.Array
  loss: jax.Array


def init_encoder(seed: int) -> Params:
  """Returns the untrained encoder's parameters."""
  images = jnp.zeros((1, SIDE, SIDE, 3))
  params: Params = BiasFreeEncoder().init(jax.random.key(seed), images)['params']
  return params


def squared_distances(
  params: Params, centre: jax.Array, mean: jax.Array, images: jax.Array
) -> jax.Array:
  """Returns |phi(x) - c|^2 of images u8[B, SIDE, SIDE, 3], f32[B]."""
  z: Any = BiasFreeEncoder().apply({'params': params}, mean_image.subtract_mean(images, mean))
  return jnp.sum((z - centre[None]) ** 2, axis=1)


def one_class_loss(squared: jax.Array) -> jax.Array:
  """Returns mean_i d_i^2  (Ruff et al. 2018, eq. 4; its weight decay is the optimiser's).

  Args:
    squared: f32[B], d^2.
  """
  return jnp.mean(squared)


def soft_boundary_loss(squared: jax.Array, radius: jax.Array, nu: float) -> jax.Array:
  """Returns R^2 + 1 / (nu B) sum_i max(0, d_i^2 - R^2)  (eq. 3; the optimiser decays weights).

  Args:
    squared: f32[B], d^2.
    radius: f32[], R.
    nu: share of images that may lie outside.
  """
  return radius**2 + jnp.mean(jnp.maximum(0, squared - radius**2)) / nu


def radius_of(squared: jax.Array, nu: float) -> jax.Array:
  """Returns R, beyond which a share nu of images lie: a quantile of their distances, f32[]."""
  return jnp.quantile(jnp.sqrt(squared), 1 - nu)


def push_from_zero(centre: np.ndarray) -> np.ndarray:
  """Returns the centre f32[D] with components within .1 of 0 at +-.1.

  A component at 0 could be reached by weights of 0 (section 3.3, proposition 1).
  """
  least = np.where(centre < 0, -LEAST_COMPONENT, LEAST_COMPONENT).astype(centre.dtype)
  return np.where(np.abs(centre) < LEAST_COMPONENT, least, centre)


def resize(images: np.ndarray) -> np.ndarray:
  """Returns images u8[N, H, W, 3] as u8[N, SIDE, SIDE, 3]."""
  return np.stack([resize_image(image, (SIDE, SIDE), 'box') for image in images])


def optimiser(learning_rate: float) -> optax.GradientTransformation:
  """Returns Adam, with weight decay in the gradient, lambda / 2 |W|^2 in the loss."""
  return optax.chain(optax.add_decayed_weights(WEIGHT_DECAY), optax.adam(learning_rate))


def make_train(baseline: ml_collections.ConfigDict, seed: int) -> jax.stages.Wrapped:
  """Returns the jitted train(state, steps, images, centre, mean) -> state, which takes `steps`.

  Step n draws its batch from fold_in(seed, n). The number of steps is an argument like the others:
  one program serves all calls.

  Args:
    baseline: `config.baseline`.
    seed: of the batches.
  """
  soft = baseline.objective == 'soft_boundary'
  tx = optimiser(baseline.learning_rate)
  warm_up = round(WARM_UP * baseline.steps)

  def loss(params: Params, radius: jax.Array, *inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
    squared = squared_distances(params, *inputs)
    value = soft_boundary_loss(squared, radius, baseline.nu) if soft else one_class_loss(squared)
    return value, squared

  def step(
    state: DeepSvddState, images: jax.Array, centre: jax.Array, mean: jax.Array
  ) -> DeepSvddState:
    key = jax.random.fold_in(jax.random.key(seed), state.step)
    batch = images[jax.random.randint(key, (BATCH_SIZE,), 0, len(images))]
    gradient_of = jax.value_and_grad(loss, has_aux=True)
    (value, squared), gradient = gradient_of(state.params, state.radius, centre, mean, batch)
    updates, opt_state = tx.update(gradient, state.opt_state, state.params)
    radius = state.radius
    if soft:
      radius = jnp.where(state.step >= warm_up, radius_of(squared, baseline.nu), radius)
    params = optax.apply_updates(state.params, updates)
    return DeepSvddState(state.step + 1, params, opt_state, radius, value)

  def train(state: DeepSvddState, steps: jax.Array, *inputs: jax.Array) -> DeepSvddState:
    trained: DeepSvddState = lax.fori_loop(0, steps, lambda _, state: step(state, *inputs), state)
    return trained

  return jax.jit(train, donate_argnums=0)


def in_batches(apply: Callable[[np.ndarray], jax.Array], images: np.ndarray) -> np.ndarray:
  """Returns the results of a jitted function for images, a padded batch at a time."""
  parts = []
  for first in range(0, len(images), EMBEDDED_TOGETHER):
    part = images[first : first + EMBEDDED_TOGETHER]
    parts.append(np.asarray(apply(pad_images(part, EMBEDDED_TOGETHER)))[: len(part)])
  return np.concatenate(parts)


@jax.jit
def _embed(params: Params, mean: jax.Array, images: jax.Array) -> Any:
  return BiasFreeEncoder().apply({'params': params}, mean_image.subtract_mean(images, mean))


_squared_distances = jax.jit(squared_distances)


def initial_centre(params: Params, mean: np.ndarray, images: np.ndarray) -> np.ndarray:
  """Returns c f32[EMBED_DIM]: the images' mean embedding, pushed away from 0."""
  embeddings = in_batches(functools.partial(_embed, params, mean), images)
  return push_from_zero(embeddings.mean(axis=0, dtype=np.float64).astype(np.float32))


@dataclasses.dataclass(frozen=True)
class DeepSvdd:
  """A fitted system.

  Attributes:
    config: the whole config.
    params: the encoder's.
    mean: f32[1, 1, 3] in grey levels, subtracted from images.
    centre: f32[EMBED_DIM], c.
    radius: R of the soft boundary, beyond which a share nu of the normal images lie; 0 for one
      class.
  """

  config: ml_collections.ConfigDict
  params: Params
  mean: np.ndarray
  centre: np.ndarray
  radius: float

  @classmethod
  def fit(
    cls,
    config: ml_collections.ConfigDict,
    images: np.ndarray,
    progress: Progress = iter,
    regions: np.ndarray | None = None,
  ) -> 'DeepSvdd':
    """Trains on normal images u8[N, H, W, 3] in their regions bool[N, H, W], or all of them.

    Raises:
      UserError: the loss becomes infinite or NaN.
    """
    baseline = config.baseline
    images = resize(patches.black_outside(images, regions))
    mean = mean_image.training_mean(images, 'channel')
    params = init_encoder(config.seed)
    centre = initial_centre(params, mean, images)
    state = DeepSvddState(
      jnp.int32(0),
      params,
      optimiser(baseline.learning_rate).init(params),
      jnp.float32(0),
      jnp.float32(0),
    )
    train = make_train(baseline, config.seed)
    inputs = jax.device_put((images, centre, mean))
    for first in progress(range(0, baseline.steps, STEPS_PER_CALL)):
      steps = jnp.int32(min(STEPS_PER_CALL, baseline.steps - first))
      state = train(state, steps, *inputs)
      if not np.isfinite(state.loss):
        raise UserError(
          f'the loss of Deep SVDD became infinite or NaN: lower config.baseline.learning_rate '
          f'({baseline.learning_rate:g})'
        )
    fitted = cls(config, state.params, mean, centre, 0.0)
    if baseline.objective == 'one_class':
      return fitted
    radius = radius_of(jnp.asarray(fitted.squared_distances(images)), baseline.nu)
    return dataclasses.replace(fitted, radius=float(radius))

  def squared_distances(self, images: np.ndarray) -> np.ndarray:
    """Returns |phi(x) - c|^2 of images u8[N, SIDE, SIDE, 3], f32[N]."""
    apply = functools.partial(_squared_distances, self.params, self.centre, self.mean)
    return in_batches(apply, images)

  def score(
    self, images: np.ndarray, progress: Progress = iter, regions: np.ndarray | None = None
  ) -> Scores:
    """Scores images u8[N, H, W, 3] of any size by their regions bool[N, H, W], or all of them."""
    return scoring.score_images(
      lambda part: self.squared_distances(resize(part)) - np.float32(self.radius**2),
      images,
      batch_size=EMBEDDED_TOGETHER,
      progress=progress,
      regions=regions,
    )

  def save(self, workdir: pathlib.Path) -> None:
    """Saves it in `workdir`: config.json and model/arrays.npz."""
    params: Mapping[str, Any] = traverse_util.flatten_dict({'params': self.params}, sep='/')
    arrays = {'mean': self.mean, 'centre': self.centre, 'radius': self.radius}
    saved.write(workdir, self.config, {**params, **arrays})

  @classmethod
  def load(cls, workdir: pathlib.Path) -> 'DeepSvdd':
    """Loads what was saved in `workdir`.

    Raises:
      UserError: there is none.
    """
    config, arrays = saved.read(workdir)
    mean, centre, radius = (arrays.pop(name) for name in ('mean', 'centre', 'radius'))
    params = traverse_util.unflatten_dict(arrays, sep='/')['params']
    return cls(config, params, mean, centre, float(radius))


def patch_wise(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """Returns the config of patch-wise Deep SVDD: the package's detector, with one centre.

  The encoder is the same as Patch SVDD's, with its biases and tanh; the distance to the centre is
  its only loss, so lambda has nothing to weigh and is 1 (Yi & Yoon 2020, eq. 2).
  """
  own = config.copy_and_resolve_references()
  own.train.update(svdd='centre', position_weight=0.0, svdd_weight=1.0, contrast=0.0)
  own.train.on_collapse = 'warn'
  own.score.update(compare='centre', neighbours=1, coreset=1.0)
  own.score.update(features=('embedding',), whiten=False)  # what its loss draws to the centre
  return own
