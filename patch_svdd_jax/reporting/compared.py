"""What an evaluation may be compared with, as metrics.json names it, and in words."""

from collections.abc import Iterable

from patch_svdd_jax.evaluation.training_gain import THUMBNAIL, UNTRAINED

RANDOM_ENCODER, FULL_BANK = 'random_encoder', 'full_bank'
# What needs no training, by what `training_gain.references` calls it.
REFERENCES = {UNTRAINED: RANDOM_ENCODER, THUMBNAIL: THUMBNAIL}

MEANINGS = {
  RANDOM_ENCODER: 'Random encoder: untrained, of the same shape, scored as the trained one is.',
  THUMBNAIL: 'Thumbnail: patches by the means of their 4 x 4 cells, whitened, without an encoder.',
  FULL_BANK: 'Full bank: the same encoder, beside all normal patches.',
}


def words(name: str) -> str:
  """Returns a name as text."""
  return name.replace('_', ' ')


def explain(names: Iterable[str]) -> str:
  """Returns what these are, a sentence each."""
  return ' '.join(MEANINGS[name] for name in names)
