import json

import pytest

from patch_svdd_jax import commands
from tests.reporting.test_learning_curves import make_run


def test_the_table_and_both_files(tmp_path, capsys):
  runs = [
    make_run(tmp_path / pairs, pairs, 0, 0.4, pairs == 'crops') for pairs in ('patches', 'crops')
  ]
  plot, figures = tmp_path / 'out' / 'curves.svg', tmp_path / 'curves.json'
  files = ['--plot', str(plot), '--json', str(figures)]
  assert commands.main(['curves', *map(str, runs), *files]) == 0
  lines = capsys.readouterr().out.splitlines()
  assert lines[0].split(' | ')[0] == '| run          '
  assert '| pairs=patches |' in lines[2]
  assert lines[2].split()[-4:] == ['-', '|', '-', '|']
  assert '0.600 / 0.900 | 0.700 / 0.800 |' in lines[3]
  assert plot.read_text().startswith('<?xml')
  assert [entry['group'] for entry in json.loads(figures.read_text())] == [
    'pairs=patches',
    'pairs=crops',
  ]


@pytest.mark.parametrize(
  ('arguments', 'words'),
  [
    (['--plot', 'curves.gif'], '--plot curves.gif: must end in .png, .svg or .pdf'),
    (['--colour'], "unexpected argument '--colour'"),
    ([], 'config.json'),
  ],
)
def test_what_cannot_be_drawn_is_said(tmp_path, capsys, arguments, words):
  assert commands.main(['curves', str(tmp_path / 'nothing'), *arguments]) == 2
  error = capsys.readouterr().err
  assert words in error
  assert error.count('\n') == 1
