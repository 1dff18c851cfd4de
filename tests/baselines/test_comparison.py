"""What is shown of systems side by side."""

import csv

import pytest

from patch_svdd_jax.baselines import comparison

FIRST = {'image_auroc': 0.5, 'pixel_auroc': 0.5, 'aupro_30': 0.5}
LAST = {'image_auroc': 0.875, 'pixel_auroc': None, 'aupro_30': 0.25}
ENTRIES = {
  'raw_patch': {
    'maps': {'k8': FIRST, 'product': LAST},
    'fit_seconds': 12.34,
    'timing': {'images_per_s': 5.678},
  },
  'deep_svdd': {'error': 'the loss is gone'},
  'patch_svdd': {'fit_seconds': 3.0},
}
SHOWN = """\
| system     | image AUROC | pixel AUROC | AU-PRO .3 | fit, s | images/s |
| ---------- | ----------: | ----------: | --------: | -----: | -------: |
| raw_patch  |       0.875 |           - |     0.250 |   12.3 |     5.68 |
| deep_svdd  |      failed |           - |         - |      - |        - |
| patch_svdd |  unfinished |           - |         - |      - |        - |

deep_svdd failed: the loss is gone"""


def test_the_table_has_the_main_map():
  text, table = comparison.render(ENTRIES)
  assert text == SHOWN
  first, second, third = csv.DictReader(table.to_csv().splitlines())
  assert [float(first[name]) for name in ('image_auroc', 'fit_seconds')] == [0.875, 12.34]
  assert list(second.values()) == ['deep_svdd', '', '', '', '', '', 'the loss is gone']
  assert list(third.values()) == ['patch_svdd', '', '', '', '', '', '']


@pytest.mark.parametrize('names', [list(ENTRIES), ['deep_svdd']])
def test_bars(names):
  figure = comparison.draw({name: ENTRIES[name] for name in names})
  [axes] = figure.axes
  image, pixel = axes.containers
  assert [bar.get_width() for bar in image] == ([0.875] if 'raw_patch' in names else [])
  assert not pixel  # unknown
  labels = [text.get_text() for text in axes.get_yticklabels()]
  shown = ['raw_patch', 'deep_svdd (failed)', 'patch_svdd (unfinished)']
  assert labels == [label for label in shown if label.split()[0] in names]
  assert len(figure.legends) == ('raw_patch' in names)
