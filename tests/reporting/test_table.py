"""A table as Markdown, as CSV, and its mean."""

import csv
import math

import pytest

from patch_svdd_jax.reporting.table import Column, Table

COLUMNS = (
  Column('name', 'system'),
  Column('auroc', 'image AUROC', '.3f'),
  Column('seconds', 'fit, s', '.1f'),
  Column('error'),
)
TABLE = Table(
  COLUMNS,
  [
    {'name': 'a, "b"', 'auroc': 1 / 3, 'seconds': 12.34, 'unknown': 7},
    {'name': 'deep', 'auroc': 1.0, 'seconds': math.nan},
    {'name': 'raw', 'auroc': 'failed', 'error': 'the loss, "of Deep SVDD", is gone'},
  ],
)


def test_markdown_has_titled_columns_aligned_and_dashes():
  assert TABLE.to_markdown() == (
    '| system | image AUROC | fit, s |\n'
    '| ------ | ----------: | -----: |\n'
    '| a, "b" |       0.333 |   12.3 |\n'
    '| deep   |       1.000 |      - |\n'
    '| raw    |      failed |      - |'
  )
  assert Table(COLUMNS[:2], []).to_markdown().count('\n') == 1


def test_csv_has_all_columns_and_digits():
  text = TABLE.to_csv()
  assert text.startswith('name,auroc,seconds,error\n')
  first, second, third = csv.DictReader(text.splitlines())
  assert (first['name'], float(first['auroc']), first['error']) == ('a, "b"', 1 / 3, '')
  assert second['seconds'] == third['seconds'] == ''
  assert third['error'] == 'the loss, "of Deep SVDD", is gone'


def test_the_mean_is_of_columns_of_numbers_that_all_rows_have():
  mean = Table(COLUMNS, TABLE.rows[:2]).mean()
  assert mean == {'auroc': pytest.approx(2 / 3), 'seconds': None}
  assert Table(COLUMNS, [{'auroc': 0.5, 'seconds': None}]).mean() == {'auroc': 0.5, 'seconds': None}
  assert Table(COLUMNS, []).mean() == {'auroc': None, 'seconds': None}
