"""docs/robustness.md names tests that there are."""

import ast
import pathlib
import re

ROOT = pathlib.Path(__file__).parents[1]


def test_every_test_that_the_table_names_exists():
  rows = [
    line
    for line in (ROOT / 'docs' / 'robustness.md').read_text().splitlines()
    if line.startswith('| ') and not line.startswith(('| fault', '| ---'))
  ]
  assert len(rows) > 30
  for row in rows:
    [(file, name, slow)] = re.findall(r'`([\w/]+\.py)::(\w+)`( \*slow\*)? \|$', row)
    tree = ast.parse((ROOT / 'tests' / file).read_text())
    functions = {each.name: each for each in tree.body if isinstance(each, ast.FunctionDef)}
    assert name in functions, row
    # Of a test that is slow in some of its variants only, the others prove the row, too.
    own = 'pytest.mark.slow' in map(ast.unparse, functions[name].decorator_list)
    marks = [ast.unparse(each.value) for each in tree.body if is_mark(each)]
    assert (own or any('mark.slow' in mark for mark in marks)) == bool(slow), row


def is_mark(statement):
  return isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == 'pytestmark'
