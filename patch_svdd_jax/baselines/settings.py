"""What `config.baseline` may be."""

import math

import ml_collections

from patch_svdd_jax.errors import UserError

KERNELS = ('rbf', 'linear', 'polynomial')
# The dimensions that the search takes.
MOST_COMPONENTS = 1024
OBJECTIVES = ('one_class', 'soft_boundary')


def check(baseline: ml_collections.ConfigDict) -> None:
  """Refuses settings with which nothing can be fitted.

  Raises:
    UserError: names the key and what it may be.
  """
  for name in ('components', 'stride', 'fitted_patches', 'steps'):
    if baseline[name] < 1:
      raise UserError(f'config.baseline.{name}={baseline[name]}: give at least 1')
  if baseline.components > MOST_COMPONENTS:
    raise UserError(
      f'config.baseline.components={baseline.components}: give at most {MOST_COMPONENTS}'
    )
  if not 0 < baseline.nu <= 1:
    raise UserError(f'config.baseline.nu={baseline.nu}: a share, above 0, at most 1')
  if not 0 <= baseline.gamma < math.inf:
    raise UserError(f'config.baseline.gamma={baseline.gamma}: give a positive number, or 0')
  if not 0 < baseline.learning_rate < math.inf:
    raise UserError(f'config.baseline.learning_rate={baseline.learning_rate}: must be positive')
  for name, values in (('kernel', KERNELS), ('objective', OBJECTIVES)):
    if baseline[name] not in values:
      names = ', '.join(map(repr, values))
      raise UserError(f'config.baseline.{name}={baseline[name]!r}: give one of {names}')
