"""Checks whole configs before anything is read: all mistakes at once, in one line.

What single keys may be lies in tables beside the defaults; what must fit together is said here, by
functions. Types and names of keys are `configuration`'s.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import ml_collections

from patch_svdd_jax import configuration
from patch_svdd_jax.data import image_size, value_range
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.models import architecture, encoder, features, tiling
from patch_svdd_jax.models.architecture import strides_of
from patch_svdd_jax.models.geometry import shorter_side
from patch_svdd_jax.training import crops, sampling, train_step


class Rule(NamedTuple):
  """Keys that must fit together.

  Attributes:
    keys: keys or sections that it reads, the one that it blames first. Where one of them is wrong
      already, the rule is left out.
    check: raises a UserError where they do not fit.
  """

  keys: tuple[str, ...]
  check: Callable[[ml_collections.ConfigDict], object]


def read(
  name: str, overrides: Sequence[str], *, training: bool = True
) -> ml_collections.ConfigDict:
  """Reads the config FILE[:ARGUMENT] with `--config.section.key=value` overrides, and checks it.

  Raises:
    UserError: as `configuration.read`, `configuration.override` and `validate` raise it.
  """
  config = configuration.override(configuration.read(name), overrides)
  config = configuration.absolute_places(config)
  validate(config, training=training)
  return config


def validate(config: ml_collections.ConfigDict, *, training: bool = True) -> None:
  """Checks a whole config.

  Args:
    config: the whole config.
    training: whether these devices are to train with it, on images of its size.

  Raises:
    UserError: names every key that has a value it cannot have, and what it must be.
  """
  configuration.check(config, 'config')
  values = {key.removeprefix('config.'): value for key, value in configuration.flatten(config)}
  wrong = {
    key: f'config.{key}={values[key]!r}: must be {words}'
    for key, words in configuration.bad_values(values)
  }
  for rule in (*RULES, *(TRAINING if training else ())):
    if any(f'{bad}.'.startswith(f'{key}.') for bad in wrong for key in rule.keys):
      continue
    try:
      rule.check(config)
    except UserError as error:
      wrong[rule.keys[0]] = str(error)
  if wrong:
    raise UserError('; '.join(wrong.values()))


def check_strides(config: ml_collections.ConfigDict) -> None:
  """Refuses strides at which the encoder has no patches."""
  encoder.fine_strides(architecture.from_config(config.encoder), strides_of(config))


def check_compare(config: ml_collections.ConfigDict) -> None:
  """Refuses to choose among the rows of a bank that has one."""
  score = config.score
  if score.compare == 'centre' and (score.neighbours > 1 or score.coreset < 1 or score.outliers):
    raise UserError(
      "config.score.compare='centre' has one row: leave config.score.neighbours and coreset at 1, "
      'outliers at 0'
    )


def check_scale_weights(config: ml_collections.ConfigDict) -> None:
  """Refuses weights unless there is one for each scale and one of them is above 0."""
  scales, weights = config.encoder.scales, config.score.scale_weights
  if weights and (len(weights) != len(scales) or not any(weights)):
    raise UserError(
      f'config.score.scale_weights={tuple(weights)}: give one for each of '
      f'config.encoder.scales={tuple(scales)}, not all of them 0, or () for 1 each'
    )


def check_warmup(config: ml_collections.ConfigDict) -> None:
  """Refuses a warm-up that is longer than the run."""
  if config.train.warmup_steps > config.train.steps:
    raise UserError(
      f'config.train.warmup_steps={config.train.warmup_steps}: must be at most '
      f'config.train.steps={config.train.steps}'
    )


def check_contrast(config: ml_collections.ConfigDict) -> None:
  """Refuses a contrastive loss where a part of a batch has a single pair: nothing to compare."""
  train = config.train
  if train.contrast and train.batch_size // train.accumulate < 2:
    raise UserError(
      f'config.train.contrast={train.contrast:g}: compares pairs within each part of a batch: '
      f'config.train.batch_size={train.batch_size} must be at least twice '
      f'config.train.accumulate={train.accumulate}'
    )


def check_crops(config: ml_collections.ConfigDict) -> None:
  """Refuses crops among which a batch's pairs cannot be divided."""
  train = config.train
  if train.pairs == 'crops' and train.batch_size % train.crops:
    raise UserError(
      f'config.train.crops={train.crops}: must divide config.train.batch_size={train.batch_size}, '
      'the pairs drawn from all crops'
    )


def check_crop_size(config: ml_collections.ConfigDict) -> None:
  """Refuses crops from which pairs of some scale cannot be drawn."""
  if config.train.pairs != 'crops':
    return
  arch = architecture.from_config(config.encoder)
  for scale in arch.scales:
    near, far = crops.offsets(scale, arch.native_stride)
    if near > far:
      raise UserError(
        f"config.train.pairs='crops': neighbours of {scale}-pixel patches lie {3 * scale // 4} to "
        f"{scale - 1} pixels away, where no multiple of the encoder's native stride lies, which is "
        f'{arch.native_stride}: lower config.encoder.strided_layers'
      )
  largest = arch.scales[0]
  if config.train.crop_size < 2 * largest - 1:
    raise UserError(
      f'config.train.crop_size={config.train.crop_size}: pairs of {largest}-pixel patches need '
      f'{2 * largest - 1}'
    )


def check_images(config: ml_collections.ConfigDict) -> None:
  """Refuses images from which pairs of some scale cannot be drawn."""
  train, size = config.train, config.data.image_size
  largest = max(config.encoder.scales)
  if train.pairs == 'crops':
    needed = train.crop_size + sampling.neighbour_reach(largest)
    what = f'two views of a crop (config.train.crop_size={train.crop_size})'
    instead = 'make crops smaller'
  else:
    # The farthest valid neighbour starts K - 1 pixels away.
    needed = largest + 1 if train.position_pairs == 'clip' else 2 * largest - 1
    what = f'{train.position_pairs!r} pairs of {largest}-pixel patches'
    instead = 'drop the scale'
  if shorter_side(size) < needed:
    raise UserError(
      f'images of {size[0]}x{size[1]} pixels are too small for {what}, which need {needed}: '
      f'enlarge config.data.image_size or {instead}'
    )


RULES = (
  Rule(('data.image_size',), lambda config: image_size.check(config.data.image_size)),
  Rule(('data.value_range',), lambda config: value_range.check(config.data.value_range)),
  Rule(('encoder',), lambda config: architecture.from_config(config.encoder)),
  Rule(('score.strides', 'encoder'), check_strides),
  Rule(
    ('score.tile', 'score.strides', 'encoder'),
    lambda config: tiling.check(config.score.tile, strides_of(config)),
  ),
  Rule(('score.compare', 'score.neighbours', 'score.coreset', 'score.outliers'), check_compare),
  Rule(('score.features', 'encoder'), features.check),
  Rule(('score.scale_weights', 'encoder.scales'), check_scale_weights),
  Rule(('train.warmup_steps', 'train.steps'), check_warmup),
  Rule(('train.contrast', 'train.batch_size', 'train.accumulate'), check_contrast),
  Rule(('train.crop_size', 'train.pairs', 'encoder'), check_crop_size),
  Rule(('train.crops', 'train.pairs', 'train.batch_size'), check_crops),
)

TRAINING = (
  Rule(
    ('data.image_size', 'encoder', 'train.pairs', 'train.position_pairs', 'train.crop_size'),
    check_images,
  ),
  Rule(
    ('train.batch_size', 'train.pairs', 'train.crops', 'train.accumulate'),
    lambda config: train_step.check(config, jax.device_count()),
  ),
)
