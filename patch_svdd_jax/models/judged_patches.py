"""Which patches count where a region of interest says where images are judged.

A patch counts where at least `config.data.region_share` of its pixels lie in the region.
"""

import ml_collections
import numpy as np

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.models import geometry
from patch_svdd_jax.models.architecture import strides_of


def counts(config: ml_collections.ConfigDict, regions: np.ndarray) -> dict[int, int]:
  """Returns how many patches of each scale count at its stride, in the images of all regions.

  Args:
    config: the whole config.
    regions: bool[N, H, W].
  """
  share = config.data.region_share
  return {
    k: sum(
      int(geometry.patches_inside(region, k, stride, share).sum()) for region in _distinct(regions)
    )
    for k, stride in strides_of(config).items()
  }


def inside(regions: np.ndarray, k: int, stride: int, share: float) -> np.ndarray:
  """Returns which of all patches of all images count, bool[N * rows * columns], in reading order.

  Args:
    regions: bool[N, H, W].
    k: receptive field, in pixels.
    stride: in pixels.
    share: config.data.region_share.

  Raises:
    UserError: none counts.
  """
  found = geometry.patches_inside(regions, k, stride, share)
  if not found.any():
    raise UserError(_none(k, share))
  return found.reshape(-1)


def check(config: ml_collections.ConfigDict, regions: np.ndarray) -> None:
  """Refuses regions bool[N, H, W] in which no patch of some scale counts, in any image.

  Raises:
    UserError: names the scale.
  """
  for k, count in counts(config, regions).items():
    if not count:
      raise UserError(_none(k, config.data.region_share))


def _none(k: int, share: float) -> str:
  return (
    f'no patch of K={k} has {_percent(share)} of its pixels in the region: lower '
    'config.data.region_share, enlarge the region or config.data.image_size, or drop the scale of '
    'config.encoder.scales'
  )


def unjudged(config: ml_collections.ConfigDict, regions: np.ndarray) -> dict[int, float]:
  """Returns the share of the regions' pixels that lie in no patch that counts, of each scale.

  Args:
    config: the whole config.
    regions: bool[N, H, W], not all False.
  """
  share, distinct = config.data.region_share, _distinct(regions)
  inside = sum(int(region.sum()) for region in distinct)
  missed = {
    k: sum(int((region & ~_covered(region, k, stride, share)).sum()) for region in distinct)
    for k, stride in strides_of(config).items()
  }
  return {k: pixels / inside for k, pixels in missed.items()}


def warning(config: ml_collections.ConfigDict, regions: np.ndarray) -> str | None:
  """Returns what to say of pixels of the regions that cannot be judged; None where all can be."""
  missed = {k: share for k, share in unjudged(config, regions).items() if share}
  if not missed:
    return None
  shares = ', '.join(f'{_percent(share)} at K={k}' for k, share in missed.items())
  return (
    f'pixels of the region lie in no patch that counts ({shares}) and cannot be judged there: '
    f'lower config.data.region_share ({config.data.region_share:g}), config.score.strides or '
    'config.encoder.scales'
  )


def _distinct(regions: np.ndarray) -> np.ndarray:
  """Returns one region where all images have it in common."""
  return regions[:1] if len(regions) and not regions.strides[0] else regions


def _covered(region: np.ndarray, k: int, stride: int, share: float) -> np.ndarray:
  """Returns which pixels bool[H, W] lie in a patch that counts."""
  inside = geometry.patches_inside(region, k, stride, share)
  # Each patch adds one from its corner on, and takes it away where it ends.
  changes = np.zeros((region.shape[0] + 1, region.shape[1] + 1), np.int32)
  rows, columns = (np.arange(count) * stride for count in inside.shape)
  for below, right in ((0, 0), (k, k)):
    changes[np.ix_(rows + below, columns + right)] += inside
  changes[np.ix_(rows + k, columns)] -= inside
  changes[np.ix_(rows, columns + k)] -= inside
  covered: np.ndarray = changes.cumsum(axis=0).cumsum(axis=1)[:-1, :-1] > 0
  return covered


def _percent(share: float) -> str:
  return f'{100 * share:.3g} %'
