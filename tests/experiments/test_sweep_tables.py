"""What tables and CSV show of a sweep."""

import csv

import pytest

from patch_svdd_jax.experiments import sweep_tables
from tests.experiments.test_sweep_statistics import GROUPS

SHOWN = """\
image AUROC

| setting                         |      seeds |           k32 |       product |
| ------------------------------- | ---------: | ------------: | ------------: |
| depth=3, untrained              |          1 |         0.500 |         0.550 |
| depth=3, lambda 0, rate 0.001   | 1 (1 lost) |         0.600 |         0.700 |
| depth=3, lambda 0.1, rate 0.001 |          3 | 0.800 ± 0.248 | 0.900 ± 0.248 |
| depth=3, lambda 10, rate 0.001  | 0 (1 lost) |             - |             - |

pixel AUROC

| setting                         |      seeds |           k32 | product |
| ------------------------------- | ---------: | ------------: | ------: |
| depth=3, untrained              |          1 |         0.600 |       - |
| depth=3, lambda 0, rate 0.001   | 1 (1 lost) |         0.700 |       - |
| depth=3, lambda 0.1, rate 0.001 |          3 | 0.800 ± 0.000 |       - |
| depth=3, lambda 10, rate 0.001  | 0 (1 lost) |             - |       - |

position accuracy over the last fifth of training (1/8 by chance)

| setting                         |      seeds |           k32 |            k8 |
| ------------------------------- | ---------: | ------------: | ------------: |
| depth=3, lambda 0, rate 0.001   | 1 (1 lost) |         0.200 |         0.125 |
| depth=3, lambda 0.1, rate 0.001 |          3 | 0.400 ± 0.248 | 0.125 ± 0.000 |
| depth=3, lambda 10, rate 0.001  | 0 (1 lost) |             - |             - |

cost

| setting                         | parameters | GMAC an image | ms a step, all seeds | images/s |
| ------------------------------- | ---------: | ------------: | -------------------: | -------: |
| depth=3, lambda 0, rate 0.001   |      1,234 |         0.056 |                  100 |        9 |
| depth=3, lambda 0.1, rate 0.001 |      1,234 |         0.056 |              1.1e+03 |        9 |
| depth=3, lambda 10, rate 0.001  |      1,234 |         0.056 |                    - |        - |

failed; the same command tries again

| group    |        error |
| -------- | -----------: |
| depth=99 | no bank fits |

mean ± half of the 95 % confidence interval"""


def test_tables():
  failed = {'depth=99': {'varied': {}, 'members': {}, 'error': 'no bank fits'}}
  assert sweep_tables.render(GROUPS | failed) == SHOWN


def test_one_line_of_csv_for_each_figure():
  lines = list(csv.DictReader(sweep_tables.sheet(GROUPS).to_csv().splitlines()))
  found = {(line['svdd_weight'], line['what'], line['metric']): line for line in lines}
  assert len(found) == len(lines)
  line = found['0.1', 'k32', 'image_auroc']
  assert float(line['mean']) == pytest.approx(0.8)
  assert float(line['half_width']) == pytest.approx(4.302653 * 0.1 / 3**0.5)
  assert (line['group'], line['seeds']) == ('depth=3', '3')
  assert found['0.0', 'product', 'pixel_auroc']['mean'] == ''
