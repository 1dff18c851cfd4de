"""`patch-svdd benchmark predict` and `runtime` on a tiny model: what they print and write."""

import json
import re
import time

import numpy as np
import pytest
from PIL import Image

from patch_svdd_jax import PatchSVDD
from patch_svdd_jax.benchmarking import contenders, preparation, runtime, whole_detector
from patch_svdd_jax.benchmarking.measuring import OURS
from patch_svdd_jax.commands import benchmarked_model, main
from patch_svdd_jax.configs import laptop
from tests.support.runs import tiny_config

SIZE = (40, 48)
STAGES = ['decode', 'embed', 'search', 'map', 'verdict']
QUICK = ['--rounds', '5', '--seconds', '1']


def photograph(seed):
  return np.random.default_rng(seed).normal(120, 20, (*SIZE, 3)).clip(0, 255).astype(np.uint8)


def fit(workdir, mean):
  config = tiny_config(mean=mean, steps=2, every=2)
  config.score.update(strides=(8, 4), batch_size=1)
  config.calibration.folds = 2
  PatchSVDD.fit([photograph(i) for i in range(4)], config, workdir=workdir)
  return workdir


@pytest.fixture(scope='module')
def model(tmp_path_factory):
  return fit(tmp_path_factory.mktemp('run') / 'channel', 'channel')


@pytest.fixture(scope='module')
def images(tmp_path_factory):
  folder = tmp_path_factory.mktemp('images')
  for i in range(3):
    Image.fromarray(photograph(10 + i)).save(folder / f'{i}.png')
  return folder


class Here:
  """A worker that is no process: what it is asked for is done here."""

  def __init__(self):
    self.kept = ()

  def keep(self, make, *arguments):
    self.kept = (make(*arguments),)

  def ask(self, function, *arguments):
    return function(*self.kept, *arguments)

  def __enter__(self):
    return self

  def __exit__(self, *_):
    pass


@pytest.fixture
def here(monkeypatch):
  """Does everything in this process: to start others takes seconds."""
  monkeypatch.setattr(whole_detector, 'Worker', Here)
  monkeypatch.setattr(runtime, 'Worker', Here)
  for module in (whole_detector, benchmarked_model):
    monkeypatch.setattr(module, 'isolated', lambda function, *arguments: function(*arguments))


def run(capsys, *arguments):
  status = main(['benchmark', 'predict', *map(str, arguments)])
  shown = capsys.readouterr()
  return status, shown.out, shown.err


def table(out):
  """The cells of the table, by the titles of its columns."""
  lines = [line for line in out.splitlines() if line.startswith('|')]
  header, _, *rows = ([cell.strip() for cell in line.strip('|').split('|')] for line in lines)
  return [dict(zip(header, row, strict=True)) for row in rows]


@pytest.mark.slow
def test_in_processes_of_their_own(capsys, images, tmp_path):
  workdir, path = fit(tmp_path / 'run', 'image'), tmp_path / 'speed.json'
  arguments = ['--model', workdir, '--images', images, '--beside', '.stablehlo', *QUICK]
  status, out, err = run(capsys, *arguments, '--json', path)
  assert status == 0, err
  assert f'warning: 128, 256, 512 pixels are left out: {workdir} has a mean image of 40 x 48' in err
  contents = json.loads(path.read_text())
  rows = contents['rows']
  assert [(row['contender'], row['size']) for row in rows] == [
    (OURS, [40, 48]),
    ('.stablehlo', [40, 48]),
  ]
  for row, cells in zip(rows, table(out), strict=True):
    assert (cells['contender'], cells['pixels']) == (row['contender'], '40 x 48')
    stages = STAGES if row['contender'] == OURS else ['decode', 'program']
    assert list(row['alone']) == ['total', *stages]
    assert list(row['seconds_per_image']) == stages
    for figures in row['alone'].values():
      assert 0 < figures['p50'] <= figures['p95'] <= figures['p99']
    assert float(cells['p95, ms']) == pytest.approx(1e3 * row['alone']['total']['p95'], rel=0.01)
    assert float(cells['decode']) == pytest.approx(1e3 * row['alone']['decode']['p50'], rel=0.01)
    assert (cells['search'] == '-') == (row['contender'] != OURS)
    assert row['rounds'] >= 5
    assert row['files'] in (3, 1)  # in time, or a batch of one
    assert row['images_per_s'] > 0
    # Python and jax alone take some 100 MB.
    assert 2**26 < row['peak_memory'] < 2**33
    assert row['score_difference'] < 1e-4
  # Four images, with patches of 16 and 8 pixels at strides of 8 and 4.
  assert {row['bank_rows'] for row in rows} == {4 * (4 * 5 + 9 * 11)}
  assert f'{workdir}, on 3 images of yours' in out


def test_other_sizes_where_the_mean_is_by_channel(capsys, here, model, images, tmp_path):
  places = ['--json', tmp_path / 'speed.json', '--plot', tmp_path / 'speed.png']
  arguments = ['--model', model, '--images', images, '--beside', 'scikit-learn', '--sizes', 40]
  status, out, err = run(capsys, *arguments, *QUICK, *places)
  assert status == 0, err
  expected = [(name, size) for size in ('40 x 48', '40') for name in (OURS, 'scikit-learn')]
  assert [(row['contender'], row['pixels']) for row in table(out)] == expected
  rows = json.loads((tmp_path / 'speed.json').read_text())['rows']
  assert [row['size'] for row in rows] == [[40, 48]] * 2 + [[40, 40]] * 2
  # The memory banks are those of its own size.
  assert len({row['bank_rows'] for row in rows}) == 1
  with Image.open(tmp_path / 'speed.png') as picture:
    assert picture.format == 'PNG'
    assert len(np.unique(np.asarray(picture.convert('L')))) > 10


def test_the_runtime_table(capsys, here, monkeypatch, model, tmp_path):
  """By the seconds of each run; those that warm up are in no figure."""
  taken = []

  def once(detector, seed, real=runtime.once):
    taken.append(real(detector, seed))
    return taken[-1]

  monkeypatch.setattr(runtime, 'once', once)
  path = tmp_path / 'runtime.json'
  arguments = ['--model', model, '--sizes', '40x40', '--runs', 7, '--json', path]
  assert main(['benchmark', 'runtime', *map(str, arguments)]) == 0
  out = capsys.readouterr().out
  rows = json.loads(path.read_text())['rows']
  assert [row['size'] for row in rows] == [[40, 48], [40, 40]]
  for row, cells, times in zip(rows, table(out), (taken[:14], taken[14:]), strict=True):
    assert (row['warm_up'], row['runs'], len(times)) == (7, 7, 14)
    for name in ('mean', 'std', 'min', 'max'):
      assert row[name] == pytest.approx(getattr(np, name)(times[7:]))
      assert float(cells[f'{name}, ms']) == pytest.approx(1e3 * row[name], rel=0.01)
    assert cells['pixels'] == '{} x {}'.format(*row['size'])
    assert cells['runs'] == '7'
    assert row['peak_memory'] > 2**26
  assert '40 x 48: 7 runs after 7 to warm up, 40 x 40: 7 runs after 7 to warm up' in out
  assert main(['benchmark', 'compare', str(path), str(path)]) == 0
  assert {row['B / A'] for row in table(capsys.readouterr().out)} == {'1'}


def test_runs_end_in_time(capsys, here, monkeypatch, model):
  """After a tenth of the time to warm up, and with the fewest runs that have a deviation."""
  monkeypatch.setattr(runtime, 'once', lambda *_: time.sleep(0.3) or 0.3)
  arguments = ['--model', model, '--sizes', '40x48', '--seconds', 1]
  assert main(['benchmark', 'runtime', *map(str, arguments)]) == 0
  assert '40 x 48: 5 runs after 2 to warm up' in capsys.readouterr().out


def test_without_a_model_textures_are_used(capsys, here, monkeypatch, tmp_path):
  def tiny(name):
    assert name == 'laptop'
    config = laptop.get_config('brick')
    config.encoder.update(width=0.1, embed_dim=8)
    config.score.update(features=('embedding',), whiten=False, strides=(16, 8), batch_size=1)
    return config

  monkeypatch.setattr(preparation.configuration, 'read', tiny)
  counts = ['--normal-images', 3, '--test-images', 2]
  status, out, err = run(capsys, '--sizes', 64, '--beside', *counts, *QUICK)
  assert status == 0, err
  assert 'an untrained detector of the settings laptop' in out
  cells = table(out)
  assert [(row['contender'], row['pixels']) for row in cells] == [(OURS, '64')]
  # Patches of 32 and 16 pixels at strides of 16 and 8, of three images.
  assert [int(row['patches']) for row in cells] == [3 * (3 * 3 + 7 * 7)]
  assert 'program' not in cells[0]


def test_what_is_not_installed_is_left_out_with_a_line(capsys, here, monkeypatch, model, images):
  for name in ('faiss', '.onnx'):
    needed = ('no_such_module',), f"'patch_svdd_jax[{name}]'"
    monkeypatch.setitem(whole_detector.NEEDED, name, needed)

  def fail(*_):
    raise ValueError('operation not supported\nand more')

  monkeypatch.setitem(preparation.EXPORTS, '.stablehlo', fail)
  status, out, err = run(capsys, '--model', model, '--images', images, '--sizes', 40, *QUICK)
  assert status == 0, err
  assert {row['contender'] for row in table(out)} == {OURS, 'scikit-learn'}
  for name in ('faiss', '.onnx'):
    line = f"{name} is left out (No module named 'no_such_module'): pip install "
    assert line + f"'patch_svdd_jax[{name}]'" in err
  assert '.stablehlo is left out (operation not supported)\n' in err


def test_scores_that_disagree_are_an_error(capsys, here, monkeypatch, model, images, tmp_path):
  real = contenders.with_search

  def wrong(detector, name):
    found = real(detector, name)
    k, search = next(iter(found.searches.items()))
    found.searches[k] = lambda queries: 1.01 * search(queries)
    return found

  monkeypatch.setattr(contenders, 'with_search', wrong)
  path = tmp_path / 'speed.json'
  arguments = ['--model', model, '--images', images, '--sizes', 40, '--beside', 'scikit-learn']
  status, out, err = run(capsys, *arguments, '--json', path)
  assert (status, out) == (2, '')
  assert re.search(r'error: scikit-learn gives image \d the score .*: nothing was timed\n$', err)
  assert not path.exists()


@pytest.mark.parametrize(
  ('arguments', 'line'),
  [
    (['--rounds', 0], 'argument --rounds: 0: give at least 1'),
    (['--sizes', 0], 'argument --sizes: 0: give at least 1'),
    (['--beside', 'torch'], "argument --beside: invalid choice: 'torch'"),
    (['--plot', 'speed.txt'], '--plot speed.txt: must end in .png'),
    (['--images', 'nowhere.png'], 'nowhere.png: no such file or folder'),
    (['--test-images', 999, '--sizes', 48], '--test-images 999: the textures have 62'),
    (['--normal-images', 999, '--sizes', 48], '--normal-images 999: the textures have 100'),
  ],
)
def test_bad_options_are_one_line(capsys, here, arguments, line):
  try:
    status = main(['benchmark', 'predict', *map(str, arguments)])
  except SystemExit as left:  # of argparse
    status = left.code
  shown = capsys.readouterr()
  assert (status, shown.out) == (2, '')
  assert f'error: {line}' in shown.err.splitlines()[-1]


def test_no_detector(capsys, here, tmp_path):
  status, _, err = run(capsys, '--model', tmp_path)
  assert (status, err) == (
    2,
    f'error: no fitted detector in {tmp_path}: train first, or check --model\n',
  )


def test_help(capsys):
  with pytest.raises(SystemExit):
    main(['benchmark', 'predict', '--help'])
  shown = capsys.readouterr().out
  assert "from an image's file to its verdict" in shown
  assert all(len(line) <= 100 for line in shown.splitlines())
