"""Thresholds in words: what is unknown is a dash, and a sentence says why."""

import dataclasses

import pytest

from patch_svdd_jax.data.images import MASK_RULE
from patch_svdd_jax.evaluation.threshold_transfer import ThresholdTransfer, Transferred
from patch_svdd_jax.reporting import threshold_table

NAN = float('nan')
IMAGE = Transferred(12.345678, 0.5, 0.75, 0.375, 0.8, 0.01, True, 0.25, 1, (0.0063, 0.8059))
PIXEL = Transferred(0.001, 0.25, 0.5, 1 / 6, 0.5, 0.04, False, 0.03125)
UNPROMISED = {'promised': NAN, 'ensured': False}
UNKNOWN = Transferred(NAN, NAN, NAN, NAN, 0.5, NAN, False, NAN)


@pytest.fixture
def found():
  return ThresholdTransfer(
    image={'false_alarm_rate': IMAGE, 'mean_plus_3_std': IMAGE._replace(**UNPROMISED)},
    pixel={'false_alarm_rate': PIXEL, 'mean_plus_3_std': PIXEL._replace(**UNPROMISED)},
    normal_images=4,
    calibration_error=0.125,
    error_by_chance=0.0625,
  )


def test_a_row_for_each_threshold(found):
  section = threshold_table.make(found, 'k32')
  assert section.title == 'Thresholds from normal images (k32)'
  image = ['12.35', '0.5000', '0.7500', '0.3750', '0.8000', '0.3000']
  pixel = ['0.001', '0.2500', '0.5000', '0.1667', '0.5000', '0.2500']
  interval = '0.0063 to 0.8059'
  assert section.table.cells() == [
    ['ClassF1, false-alarm rate', *image, '0.0100', '0.2500', interval],
    ['ClassF1, mean + 3 std', *image, '-', '0.2500', interval],
    ['SegF1, false-alarm rate', *pixel, '0.0400 (unproven)', '0.0312', '-'],
    ['SegF1, mean + 3 std', *pixel, '-', '0.0312', '-'],
  ]
  reading, alarms, rule = section.notes
  assert 'No test label set these' in reading
  assert 'among 4 normal test images: 1 by false-alarm rate, 1 by mean + 3 std' in alarms
  assert 'error of 0.1250; perfectly calibrated ones have 0.0625' in alarms
  assert rule == MASK_RULE
  lines = section.to_text().splitlines()
  assert lines[0] == section.title
  assert lines[-3:] == section.notes


def test_a_threshold_that_is_not_known(found):
  pixel = {**found.pixel, 'mean_plus_3_std': UNKNOWN}
  section = threshold_table.make(dataclasses.replace(found, pixel=pixel), 'k32')
  assert section.table.cells()[-1][1:] == [*'----', '0.5000', *'----']
  assert threshold_table.UNKNOWN_MOMENTS in section.notes


def test_without_a_normal_image(found):
  section = threshold_table.make(dataclasses.replace(found, normal_images=0), 'k32')
  assert not any('calibration error' in note for note in section.notes)


def test_without_a_calibration():
  section = threshold_table.make(None, 'k32')
  assert section.table is None
  assert section.to_text().startswith('No thresholds: the detector is not calibrated')
  assert '\n' not in section.to_text()
