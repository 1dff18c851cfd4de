"""What is shown of systems side by side."""

import csv
import io

from PIL import Image

from patch_svdd_jax.baselines import comparison

FIRST = {'image_auroc': 0.5, 'pixel_auroc': 0.5, 'aupro_30': 0.5}
LAST = {'image_auroc': 0.875, 'pixel_auroc': None, 'aupro_30': 0.25}
ENTRIES = {
  'raw_patch': {
    'maps': {'k8': FIRST, 'product': LAST},
    'fit_seconds': 12.34,
    'timing': {'images_per_s': 5.678},
  },
  'deep_svdd': {'error': 'the loss, "of Deep SVDD", is gone'},
  'patch_svdd': {'fit_seconds': 3.0},
}


def test_the_table_has_the_main_map():
  header, rows = comparison.table(ENTRIES)
  assert header == ['system', 'image AUROC', 'pixel AUROC', 'AU-PRO .3', 'fit, s', 'images/s']
  assert rows == [
    ['raw_patch', '0.875', '-', '0.250', '12.3', '5.68'],
    ['deep_svdd', 'failed', '-', '-', '-', '-'],
    ['patch_svdd', 'unfinished', '-', '-', '-', '-'],
  ]
  assert comparison.errors(ENTRIES) == ['deep_svdd failed: the loss, "of Deep SVDD", is gone']


def test_csv_is_read_back():
  first, second, third = csv.DictReader(io.StringIO(comparison.to_csv(ENTRIES)))
  assert float(first['image_auroc']) == 0.875
  assert (first['pixel_auroc'], first['error']) == ('', '')
  assert (float(first['fit_seconds']), float(first['images_per_s'])) == (12.34, 5.678)
  assert second['error'] == ENTRIES['deep_svdd']['error']
  assert second['image_auroc'] == third['image_auroc'] == third['error'] == ''


def test_bars():
  for entries in (ENTRIES, {'deep_svdd': ENTRIES['deep_svdd']}):
    with Image.open(io.BytesIO(comparison.draw(entries, 'png'))) as image:
      assert image.format == 'PNG'
