"""The rule that chooses a checkpoint, on statistics made by hand."""

import math

import pytest

from patch_svdd_jax.training import checkpoint_selection


def statistics(**scales):
  """Of k64=(position accuracy, relative 99 % distance), ...; with figures that do not count."""
  found = {'loss': 3.0}
  for name, (accuracy, relative) in scales.items():
    found |= {f'position_accuracy/{name}': accuracy, f'relative_99/{name}': relative}
    found |= {f'distance_median/{name}': 0.1, f'neighbour_loss/{name}': 0.2}
  return found


def test_guessing_at_a_radius_is_zero():
  assert checkpoint_selection.score(statistics(k64=(0.125, 1.0))) == pytest.approx(0, abs=0.01)


def test_the_score_in_closed_form():
  found = checkpoint_selection.score(statistics(k64=(0.5, 0.25), k32=(0.75, 0.5)))
  # Odds of 1 and 3 against 1 / 7; distances of 1 / 4 and 1 / 2.
  assert found == pytest.approx(math.log(7 * 4) + math.log(21 * 2), abs=0.02)


def test_more_knowledge_and_nearer_normal_patches_are_better():
  base = checkpoint_selection.score(statistics(k64=(0.5, 0.3), k32=(0.5, 0.3)))
  assert checkpoint_selection.score(statistics(k64=(0.6, 0.3), k32=(0.5, 0.3))) > base
  assert checkpoint_selection.score(statistics(k64=(0.5, 0.2), k32=(0.5, 0.3))) > base
  assert checkpoint_selection.score(statistics(k64=(0.5, 0.3), k32=(0.4, 0.3))) < base


@pytest.mark.parametrize('accuracy', [0.0, 1.0])
def test_shares_of_none_and_all_are_finite(accuracy):
  found = checkpoint_selection.score(statistics(k64=(accuracy, 0.5)))
  assert math.isfinite(found)
  assert abs(found) < 20


@pytest.mark.parametrize('relative', [math.inf, math.nan, 0.0])
def test_a_scale_whose_embeddings_are_one_point_loses(relative):
  found = checkpoint_selection.score(statistics(k64=(1.0, 0.01), k32=(0.9, relative)))
  assert found == -math.inf


def test_words_for_the_choice():
  low, high = statistics(k64=(0.25, 0.5)), statistics(k64=(0.75, 0.5))
  line = checkpoint_selection.explain({200: low, 400: high, 600: low}, 400)
  assert line.startswith('of step 400, by the held-out images: score ')
  assert 'k64 75.0% of positions right and relative distance 0.5' in line
  assert f'step 600, the newest, has {checkpoint_selection.score(low):.3f}' in line
  assert 'newest' not in checkpoint_selection.explain({200: low, 400: high}, 400)
  # One that was saved when the run was told to stop has no statistics.
  assert 'newest' not in checkpoint_selection.explain({400: high, 430: None}, 400)
  assert 'of step 430, the newest' in checkpoint_selection.explain({200: None, 430: None}, 430)
  assert 'config.data.held_out' in checkpoint_selection.explain({430: None}, 430)
