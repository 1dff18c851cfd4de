"""Puts results of thresholds from normal images into words, for the terminal and the report."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from patch_svdd_jax.data.images import MASK_RULE
from patch_svdd_jax.detection.inspection import UNCALIBRATED
from patch_svdd_jax.evaluation.threshold_transfer import (
  CONFIDENCE,
  THRESHOLDS,
  ThresholdTransfer,
  Transferred,
)
from patch_svdd_jax.reporting.table import Column, Table, cell

COLUMNS = (
  Column('threshold', 'threshold'),
  Column('value', 'value', '.4g'),
  Column('f1', 'F1', '.4f'),
  Column('precision', 'precision', '.4f'),
  Column('recall', 'recall', '.4f'),
  Column('best_f1', 'best F1', '.4f'),
  Column('gap', 'gap', '.4f'),
  Column('promised', 'promised'),
  Column('realised', 'realised', '.4f'),
  Column('interval', f'{100 * CONFIDENCE:.0f} % interval'),
)
READING = (
  'What scores above a threshold is called anomalous. No test label set these; best F1 is at the '
  'threshold that is best for these test labels. Promised and realised are shares of false alarms: '
  'of normal test images (ClassF1), of their pixels (SegF1).'
)
UNKNOWN_MOMENTS = (
  'The detector was saved without the moments of normal pixels, by which SegF1 has a threshold of '
  'mean + 3 std: `patch-svdd build-bank` makes it anew, with them.'
)


class ThresholdSection(NamedTuple):
  """A table with what must be known to read it.

  Attributes:
    title: of the table.
    table: of the thresholds; None where there are none.
    notes: sentences below.
  """

  title: str
  table: Table | None
  notes: Sequence[str]

  def to_text(self) -> str:
    """Returns lines for a terminal; without a table, its notes alone."""
    table = [self.title, self.table.to_markdown()] if self.table else []
    return '\n'.join([*table, *self.notes])


def make(found: ThresholdTransfer | None, map_name: str) -> ThresholdSection:
  """Returns what is shown of an evaluation.

  Args:
    found: None where the detector is not calibrated.
    map_name: of the main map.
  """
  title = f'Thresholds from normal images ({map_name})'
  if not found:
    return ThresholdSection(title, None, [f'No thresholds: {UNCALIBRATED}.'])
  rows = [
    _row(f'{metric}, {THRESHOLDS[name]}', each)
    for metric, group in {'ClassF1': found.image, 'SegF1': found.pixel}.items()
    for name, each in group.items()
  ]
  return ThresholdSection(title, Table(COLUMNS, rows), _notes(found))


def _row(title: str, each: Transferred) -> dict[str, Any]:
  low, high = each.interval
  unproven = '' if each.ensured or math.isnan(each.promised) else ' (unproven)'
  return each._asdict() | {
    'threshold': title,
    'gap': each.gap,
    'promised': cell(each.promised, '.4f') + unproven,
    'interval': None if math.isnan(low) else f'{low:.4f} to {high:.4f}',
  }


def _notes(found: ThresholdTransfer) -> list[str]:
  notes = [READING]
  if found.normal_images:
    counts = [f'{each.false_alarms} by {THRESHOLDS[name]}' for name, each in found.image.items()]
    notes.append(
      f'False alarms among {found.normal_images} normal test images: {", ".join(counts)}. Their '
      f'p-values have an expected calibration error of {found.calibration_error:.4f}; perfectly '
      f'calibrated ones have {found.error_by_chance:.4f} on average, by chance.'
    )
  if math.isnan(found.pixel['mean_plus_3_std'].value):
    notes.append(UNKNOWN_MOMENTS)
  return [*notes, MASK_RULE]
