"""Which checkpoint is used, chosen without a label: by statistics of held-out normal images."""

import math
from collections.abc import Mapping

from patch_svdd_jax.models.encoder import CHANCE
from patch_svdd_jax.training.validation import PAIRS


def score(statistics: Mapping[str, float]) -> float:
  """Returns the rule: the checkpoint of the highest score is used, the newest of equal ones.

  The sum over scales of

    log odds of the position accuracy, above those of guessing
    - log of the 99 % quantile of the distance of held-out patches to the nearest training patch,
      relative to the radius of the training patches.

  The first asks how much an encoder knows about its patches, the second whether new normal patches
  are found among known ones: an encoder that has collapsed fails the first, one that has learned
  its training images by heart fails the second. The quantile and not the median, since an image's
  score is that of its farthest patch, and since the median favours encoders at the beginning, whose
  embeddings lie on a line: on a line everything is near.

  Args:
    statistics: of `validation`.

  Returns:
    A number that is comparable between checkpoints of one run; -inf where the embeddings of a scale
    are all the same or not finite.
  """
  total = 0.0
  for scale in scales(statistics):
    relative = statistics[f'relative_99/{scale}']
    if not 0 < relative < math.inf:
      return -math.inf
    known = log_odds(statistics[f'position_accuracy/{scale}']) - math.log(CHANCE / (1 - CHANCE))
    total += known - math.log(relative)
  return total


def log_odds(share: float) -> float:
  """Returns log(p / (1 - p)) of a share of PAIRS pairs, half a pair added to either side."""
  return math.log((share * PAIRS + 0.5) / ((1 - share) * PAIRS + 0.5))


def explain(statistics: Mapping[int, Mapping[str, float] | None], chosen: int) -> str:
  """Explains which checkpoint the rule has chosen and why.

  Args:
    statistics: of each checkpoint by its step, None where there are none.
    chosen: its step.
  """
  newest = max(statistics)
  found, last = statistics[chosen], statistics[newest]
  if found is None:
    return (
      f'of step {chosen}, the newest: there are no statistics of held-out images to choose by '
      f'(config.data.held_out)'
    )
  figures = ', '.join(
    f'{scale} {found[f"position_accuracy/{scale}"]:.1%} of positions right and relative distance '
    f'{found[f"relative_99/{scale}"]:.3g}'
    for scale in scales(found)
  )
  line = f'of step {chosen}, by the held-out images: score {score(found):.3f}, from {figures}'
  if newest == chosen or last is None:
    return line
  return f'{line}; step {newest}, the newest, has {score(last):.3f}'


def scales(statistics: Mapping[str, float]) -> list[str]:
  """Returns the names of the scales that statistics are about."""
  return [name.partition('/')[2] for name in statistics if name.startswith('position_accuracy/')]
