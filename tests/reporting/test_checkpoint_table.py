"""The table of checkpoints: what is marked, what is written, what is drawn."""

import math

import pytest

from patch_svdd_jax.reporting import checkpoint_table
from patch_svdd_jax.training import checkpoint_selection


def figures(image, pixel):
  return {'image_auroc': image, 'pixel_auroc': pixel, 'image_ap': 0.5}


def known(accuracy):
  return {'position_accuracy/k32': accuracy, 'relative_99/k32': 0.5}


FIGURES = {
  400: figures(0.8, 0.95),
  200: figures(0.9, 0.91),
  630: figures(0.7, 0.93),
  600: figures(0.9, 0.92),
}
STATISTICS = {200: known(0.4), 400: known(0.7), 600: known(0.6), 630: None}


@pytest.fixture(scope='module')
def rows():
  return checkpoint_table.make(FIGURES, STATISTICS, chosen=400)


def test_rows_are_in_the_order_of_steps(rows):
  assert [row.step for row in rows] == [200, 400, 600, 630]
  assert [row.figures['image_auroc'] for row in rows] == [0.9, 0.8, 0.9, 0.7]
  scores = [checkpoint_selection.score(known(accuracy)) for accuracy in (0.4, 0.7, 0.6)]
  assert [row.score for row in rows] == [*scores, None]


def test_marks(rows):
  assert {row.step: row.marks for row in rows} == {
    200: ('best image AUROC by test labels',),
    400: ('chosen', 'best pixel AUROC by test labels'),
    600: (),
    630: ('final',),
  }


def test_one_checkpoint_is_everything():
  [row] = checkpoint_table.make({5: figures(0.5, 0.5)}, {5: None}, chosen=5)
  assert row.marks[:2] == ('chosen', 'final')
  assert len(row.marks) == 4


def test_metrics_that_do_not_exist_mark_nothing():
  found = checkpoint_table.make(
    {5: figures(math.nan, 0.5), 7: figures(math.nan, 0.4)}, STATISTICS | {5: None, 7: None}, 7
  )
  assert [row.marks for row in found] == [
    ('best pixel AUROC by test labels',),
    ('chosen', 'final'),
  ]


def drawn(axes):
  """What the lines of axes show, by their labels."""
  return {line.get_label(): (line.get_xdata(), line.get_ydata()) for line in axes.lines}


def test_the_plot_shows_aurocs_marks_and_scores(rows):
  aurocs, scores = checkpoint_table.draw(rows).axes
  steps = [200, 400, 600, 630]
  assert {label: (list(x), list(y)) for label, (x, y) in drawn(aurocs).items()} == {
    'image AUROC, test': (steps, [0.9, 0.8, 0.9, 0.7]),
    'pixel AUROC, test': (steps, [0.91, 0.95, 0.92, 0.93]),
    'chosen: 400': ([400, 400], [0, 1]),
    'final: 630': ([630, 630], [0, 1]),
  }
  [line] = scores.lines
  assert (list(line.get_xdata()), list(line.get_ydata())) == (
    [200, 400, 600],
    [row.score for row in rows[:3]],
  )
  [legend] = aurocs.figure.legends
  assert [text.get_text() for text in legend.get_texts()] == [
    *drawn(aurocs),
    'score of held-out images',
  ]
  assert (aurocs.get_xlabel(), aurocs.get_ylabel()) == ('step', 'AUROC, of test labels')
  assert scores.get_ylabel() == 'score, of held-out normal images'


@pytest.mark.parametrize('score', [None, -math.inf])
def test_without_scores_the_plot_shows_the_rest(rows, score):
  [aurocs] = checkpoint_table.draw([row._replace(score=score) for row in rows]).axes
  assert len(aurocs.lines) == 4
