"""How many patches count in a region, and which of its pixels no patch judges."""

import numpy as np
import pytest

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.models import judged_patches
from tests.support.runs import IMAGE_SIZE, tiny_config

REGION = np.zeros(IMAGE_SIZE, bool)
REGION[4:20, 10:33] = True


def config_of(share=0.5):
  config = tiny_config()
  config.score.strides = (8, 4)
  config.data.region_share = share
  return config


def by_loops(region, share):
  """Of each scale how many patches count, and the share of the region that they leave out."""
  counts, missed = {}, {}
  for k, stride in ((16, 8), (8, 4)):
    covered, counts[k] = np.zeros(IMAGE_SIZE, bool), 0
    for top in range(0, IMAGE_SIZE[0] - k + 1, stride):
      for left in range(0, IMAGE_SIZE[1] - k + 1, stride):
        window = np.s_[top : top + k, left : left + k]
        if region[window].mean() >= share:
          counts[k] += 1
          covered[window] = True
    missed[k] = (region & ~covered).sum() / region.sum()
  return counts, missed


@pytest.mark.parametrize('share', [0.1, 0.5, 0.9])
def test_patches_and_pixels_left_out_are_those_of_loops(share):
  counts, missed = by_loops(REGION, share)
  regions = np.broadcast_to(REGION, (3, *IMAGE_SIZE))
  assert judged_patches.counts(config_of(share), regions) == counts
  assert judged_patches.unjudged(config_of(share), regions) == pytest.approx(missed)
  both = np.stack([REGION, ~REGION])
  other = by_loops(~REGION, share)[0]
  assert judged_patches.counts(config_of(share), both) == {k: counts[k] + other[k] for k in counts}


def test_a_region_without_a_patch_is_refused():
  regions = np.broadcast_to(np.arange(IMAGE_SIZE[1]) < 6, (2, *IMAGE_SIZE))
  judged_patches.check(config_of(0.3), regions)
  with pytest.raises(
    UserError, match=r'no patch of K=16 has 50 % of its pixels in the region: low'
  ):
    judged_patches.check(config_of(), regions)


def test_pixels_that_no_patch_judges_are_said():
  text = judged_patches.warning(config_of(0.9), np.broadcast_to(REGION, (2, *IMAGE_SIZE)))
  assert 'pixels of the region lie in no patch that counts' in text
  assert '% at K=16' in text
  assert judged_patches.warning(config_of(), np.ones((1, *IMAGE_SIZE), bool)) is None
