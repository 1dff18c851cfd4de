"""What draws have to look like, and the eight neighbours among which positions are drawn."""

import math

import numpy as np
import pytest
from scipy import stats

# Reading order: the row of the neighbour, then its column.
NEIGHBOURS = np.array([(r, c) for r in (-1, 0, 1) for c in (-1, 0, 1) if (r, c) != (0, 0)])
LEAST = 1e-3  # the smallest p-value that passes; the keys are fixed


def check_uniform(values, number):
  """`values` in 0..number-1 look uniform."""
  counts = np.bincount(values.ravel(), minlength=number)
  assert len(counts) == number
  assert stats.chisquare(counts).pvalue > LEAST


def check_share(found, expected):
  """The share of True values is the expected one, within four standard errors."""
  error = math.sqrt(expected * (1 - expected) / found.size)
  assert found.mean() == pytest.approx(expected, abs=4 * error)


def check_normal(values, deviation):
  """Independent draws of N(0, deviation), within five standard errors of its moments."""
  error = 5 / math.sqrt(values.size)
  assert values.mean() == pytest.approx(0, abs=error * deviation)
  assert values.std() == pytest.approx(deviation, rel=error / math.sqrt(2))
  standardised = values.ravel() / deviation
  assert stats.kstest(standardised, 'norm').pvalue > LEAST


def check_unrelated(one, other):
  correlation = np.corrcoef(one.ravel(), other.ravel())[0, 1]
  assert abs(correlation) < 5 / math.sqrt(one.size)
