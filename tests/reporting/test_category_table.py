"""What is shown of categories side by side."""

import csv

import pytest

from patch_svdd_jax.evaluation.metrics import TITLES
from patch_svdd_jax.reporting import category_table


def entry(value, **others):
  """What counts is the main map."""
  figures = dict.fromkeys(TITLES, value) | {'pixel_auroc': value / 2, 'aupro_5': None}
  maps = {'k8': dict.fromkeys(TITLES, 0.1), 'product': figures}
  return {'maps': maps, 'step': 7, **others}


ENTRIES = {
  'screw': entry(
    0.5, random_encoder={'maps': entry(0.25)['maps']}, thumbnail={'maps': entry(0.625)['maps']}
  ),
  'wood': entry(0.75),
  'tile': {'error': 'it is raining'},
  'pill': {'step': 7},
}


def test_the_mean_is_of_those_that_were_measured():
  text, _ = category_table.render(ENTRIES)
  header, _, *lines, _, failed, _, untested = text.splitlines()
  assert header.count('|') == 2 + len(TITLES) + 2 * 2
  rows = {
    cells[1].strip(): [cell.strip() for cell in cells[2:-1]]
    for cells in (line.split('|') for line in lines)
  }
  assert list(rows) == ['screw', 'wood', 'mean of 2']
  beside = ['0.2500', '0.1250', '0.6250', '0.3125']
  assert rows['screw'][3:] == ['0.2500', *['0.5000'] * 4, '-', '0.5000', *beside]
  # What needs no training was not measured on all.
  expected = ['0.6250', '0.3125', *['0.6250'] * 4, '-', '0.6250', *['-'] * 4]
  assert rows['mean of 2'][2:] == expected
  assert failed == 'tile failed: it is raining'
  assert untested == 'pill has no test images'
  assert 'mean' not in category_table.render({'pill': {'step': 7}})[0]


def test_csv_has_all_of_them():
  screw, wood, tile, pill = csv.DictReader(category_table.render(ENTRIES)[1].to_csv().splitlines())
  assert (screw['step'], screw['untrained_pixel_auroc'], screw['aupro_5']) == ('7', '0.125', '')
  assert (screw['thumbnail_image_auroc'], wood['thumbnail_image_auroc']) == ('0.625', '')
  assert float(wood['image_auroc']) == pytest.approx(0.75)
  assert (tile['image_auroc'], tile['error']) == ('', 'it is raining')
  assert (pill['step'], pill['error']) == ('7', '')
