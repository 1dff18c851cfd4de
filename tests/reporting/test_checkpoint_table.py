"""The table of checkpoints: what is marked, what is written, what is drawn."""

import json
import math

import numpy as np
import pytest
from PIL import Image

from patch_svdd_jax.reporting import checkpoint_table, evaluation_files
from patch_svdd_jax.training import checkpoint_selection


def maps(image, pixel):
  return {
    'k32': {'image_auroc': 0.0, 'pixel_auroc': 0.0},
    'product': {'image_auroc': image, 'pixel_auroc': pixel, 'image_ap': 0.5},
  }


def known(accuracy):
  return {'position_accuracy/k32': accuracy, 'relative_99/k32': 0.5}


MAPS = {400: maps(0.8, 0.95), 200: maps(0.9, 0.91), 630: maps(0.7, 0.93), 600: maps(0.9, 0.92)}
STATISTICS = {200: known(0.4), 400: known(0.7), 600: known(0.6), 630: None}


@pytest.fixture(scope='module')
def rows():
  return checkpoint_table.make(MAPS, STATISTICS, chosen=400)


def test_rows_are_of_the_last_map_in_the_order_of_steps(rows):
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
  [row] = checkpoint_table.make({5: maps(0.5, 0.5)}, {5: None}, chosen=5)
  assert row.marks[:2] == ('chosen', 'final')
  assert len(row.marks) == 4


def test_metrics_that_do_not_exist_mark_nothing():
  found = checkpoint_table.make(
    {5: maps(math.nan, 0.5), 7: maps(math.nan, 0.4)}, STATISTICS | {5: None, 7: None}, 7
  )
  assert [row.marks for row in found] == [
    ('best pixel AUROC by test labels',),
    ('chosen', 'final'),
  ]


def test_the_summary_is_json(rows):
  contents = json.loads(json.dumps(evaluation_files.to_json(checkpoint_table.summary(rows))))
  assert [row['step'] for row in contents] == [200, 400, 600, 630]
  assert contents[3] == {
    'step': 630,
    'score': None,
    'figures': MAPS[630]['product'],
    'marks': ['final'],
  }
  odd = checkpoint_table.CheckpointRow(1, -math.inf, {'image_auroc': math.nan}, ())
  assert evaluation_files.to_json(checkpoint_table.summary([odd]))[0]['score'] is None


def test_the_plot_is_a_picture(rows, tmp_path):
  for name, shown in (
    ('all', rows),
    ('none', [row._replace(score=None) for row in rows]),
    ('collapsed', [row._replace(score=-math.inf) for row in rows]),
  ):
    path = tmp_path / f'{name}.png'
    path.write_bytes(checkpoint_table.draw(shown))
    pixels = np.asarray(Image.open(path).convert('RGB'))
    assert pixels.shape[0] > 400
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 10
