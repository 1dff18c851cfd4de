"""The words of docstrings, help and pages: plain English, as CONTRIBUTING.md asks for."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FOLDERS = ('patch_svdd_jax', 'benchmarks', 'configs', 'docs/extensions')
# Third persons of verbs end in s; these words do, and are none.
NO_VERBS = (
  'As|Is|Its|This|Those|Whose|Always|Bytes|Images|Lines|Pairs|Parts|Pixels|Rows|Vectors|Windows|'
  'Embeddings|Distances|Corners|Logits'
)


def docstrings(path):
  """Yields (line, first words) of the docstring of each function but properties."""
  for node in ast.walk(ast.parse(path.read_text('utf-8'))):
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
      decorators = ' '.join(map(ast.unparse, node.decorator_list))
      text = ast.get_docstring(node)
      if text and 'property' not in decorators:
        yield node.body[0].lineno, text


@pytest.mark.parametrize('folder', FOLDERS)
def test_docstrings_of_functions_begin_with_a_verb(folder):
  found = []
  for path in sorted((ROOT / folder).rglob('*.py')):
    for line, text in docstrings(path):
      word = re.match(r'\S+', text)[0]
      if not re.fullmatch(rf'(?!({NO_VERBS})$)[A-Z][a-z]+s[,:;]?', word):
        found.append(f'{path.relative_to(ROOT)}:{line}: {text.splitlines()[0]}')
  assert not found, '\n'.join(found)
