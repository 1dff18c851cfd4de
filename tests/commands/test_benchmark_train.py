"""`patch-svdd benchmark train` and `compare`: what they print, write and refuse."""

import json
import subprocess
import sys

import pytest
from PIL import Image

from patch_svdd_jax.benchmarking import hardware, programs
from patch_svdd_jax.benchmarking.programs import Program
from patch_svdd_jax.commands import main
from patch_svdd_jax.training import train_step

CONFIG = """
from tests.support.runs import tiny_config

def get_config():
  return tiny_config()
"""


@pytest.fixture
def config(tmp_path):
  path = tmp_path / 'tiny.py'
  path.write_text(CONFIG)
  return path


@pytest.fixture
def stand_in(monkeypatch):
  """Programs that do nothing, for no large matrices."""

  def prepare(config, mesh):
    train_step.check(config, mesh.size)
    batch = config.train.batch_size
    return Program(lambda: None, config.train.steps_per_call, 2 * batch, 7e6, None, 1234, [])

  monkeypatch.setattr(programs, 'prepare_step', prepare)
  monkeypatch.setattr(hardware, 'large_product', lambda *_: hardware.Product(lambda: None, 1e6))


def run(capsys, *arguments):
  """(status, standard output, standard error)."""
  try:
    status = main(['benchmark', *map(str, arguments)])
  except SystemExit as ended:
    status = ended.code
  shown = capsys.readouterr()
  return status, shown.out, shown.err


def test_figures_are_printed_written_and_compared(capsys, tmp_path, config, stand_in):
  places = [tmp_path / 'train.json', tmp_path / 'train.png']
  arguments = ['--config', config, '--batch', 8, 16, '--devices', 1, 3, '--rounds', 2]
  status, out, err = run(
    capsys, 'train', *arguments, '--json', places[0], '--plot', places[1],
    '--config.train.compute=bfloat16',
  )  # fmt: skip
  assert status == 0, err
  contents = json.loads(places[0].read_text())
  points = [(row['devices'], row['batch'], row['rounds']) for row in contents['rows']]
  assert points == [(1, 8, 2), (3, 8, None), (1, 16, 2), (3, 16, None)]
  assert contents['benchmark'] == 'train'
  assert contents['config']['train']['compute'] == 'bfloat16'
  assert contents['limits'] == {'rounds': 2, 'seconds': 60}
  assert 'config.train.batch_size=8 cannot be divided among 3 devices' in out
  assert 'in bfloat16, by a matrix product in the same rounds' in out
  with Image.open(places[1]) as plot:
    assert min(plot.size) > 500
  status, out, err = run(capsys, 'compare', places[0], places[0])
  assert status == 0, err
  assert len([line for line in out.splitlines() if line.startswith('|')]) == 2 + 4


def test_devices_are_powers_of_two_up_to_all_of_them(capsys, tmp_path, config, stand_in):
  path = tmp_path / 'train.json'
  status, _, err = run(capsys, 'train', '--config', config, '--batch', 8, '--json', path)
  assert status == 0, err
  rows = json.loads(path.read_text())['rows']
  assert [row['devices'] for row in rows] == [1, 2, 4]


@pytest.mark.parametrize(
  ('arguments', 'line'),
  [
    (['train', '--batch', 0], 'argument --batch: 0: give at least 1'),
    (['train', '--devices', 5], '--devices 5: there are 4'),
    (['train', '--plot', 'train.txt'], '--plot train.txt: must end in .png'),
    (['train', '--batch', 7, '--config.train.pairs=crops'], 'a batch of 7 pairs: give a multiple'),
    (['train', '--config.nonsense=1'], 'no such key: config.nonsense'),
    (['compare', 'nothing.json', 'none.json'], 'nothing.json: No such file or directory'),
    (['compare', 'nothing.json', 'none.json', '--x'], "unexpected argument '--x': see --help"),
  ],
)
def test_bad_options_are_one_line(capsys, arguments, line):
  status, out, err = run(capsys, *arguments)
  assert (status, out) == (2, '')
  assert f'error: {line}' in err.splitlines()[-1]


@pytest.mark.parametrize('what', ['train', 'compare'])
def test_help(capsys, what):
  status, shown, _ = run(capsys, what, '--help')
  assert status == 0
  assert f'patch-svdd benchmark {what} ' in shown


@pytest.mark.slow
def test_in_a_process_of_its_own_the_cpu_is_divided(config, tmp_path):
  path = tmp_path / 'train.json'
  arguments = ['--devices', 1, 2, '--batch', 8, 16, '--rounds', 2, '--json', path]
  done = subprocess.run(
    [sys.executable, '-m', 'patch_svdd_jax', 'benchmark', 'train', '--config', config]
    + [str(argument) for argument in arguments],
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  contents = json.loads(path.read_text())
  points = [(row['devices'], row['batch']) for row in contents['rows']]
  assert points == [(1, 8), (2, 8), (1, 16), (2, 16)]
  for row in contents['rows']:
    assert row['pairs_per_s'] == pytest.approx(4 * row['batch'] / row['seconds'], rel=0.5)
    assert 0 < row['utilisation'] < 1
    assert row['memory'] > 0
  assert 'Devices of a CPU have a thread each' in done.stdout
