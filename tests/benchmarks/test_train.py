"""What is measured of training, in figures by hand; what is printed and written, and refused."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from PIL import Image

from benchmarks import contenders, peers, train
from patch_svdd_jax.benchmarking import hardware, programs

PRODUCTS = {'f32': hardware.Product(lambda: None, 1e6)}


def test_a_row_is_what_the_calls_took():
  found = programs.Program(lambda: None, 10, 64, 2e6, 3e6, 1234, [])
  peer = programs.Program(lambda: None, 1, 64, 2e6, None, None, [])
  taking_part = {'patches': lambda: found, 'torch': lambda: peer}
  ours, torch = train.measure_contenders(64, taking_part, PRODUCTS, rounds=3)
  assert (ours.name, ours.batch, ours.memory) == ('patches', 64, 1234)
  assert ours.pairs_per_second > 0
  assert ours.torch_ratio > 0
  assert ours.peak_share.keys() == ours.peak_gflops.keys() == {'f32'}
  assert (torch.name, torch.torch_ratio, torch.dispatch_share) == ('torch', None, None)


def test_medians_over_rounds(monkeypatch):
  taken = {
    'patches': np.array([1.0, 4.0, 2.0]),
    'torch': np.array([3.0, 4.0, 8.0]),
    'f32 product': np.array([0.5, 0.5, 1.0]),
  }
  monkeypatch.setattr(train.timing, 'interleave', lambda calls, _: {n: taken[n] for n in calls})
  dispatched = [0.0]
  found = programs.Program(lambda: dispatched.append(0.1), 2, 8, 3e6, 4e6, 1, dispatched)
  peer = programs.Program(lambda: None, 1, 8, 3e6, None, None, [])

  monkeypatch.setattr(contenders, 'prepare_all', lambda _: {'patches': found, 'torch': peer})
  found.dispatched[:] = [0.1, 0.1, 0.1]
  ours, torch = train.measure_contenders(8, {}, PRODUCTS, rounds=3)
  assert ours.seconds == 1.0
  assert ours.pairs_per_second == 8.0
  assert ours.torch_ratio == 6.0  # of 6, 2 and 8
  assert ours.dispatch_share == pytest.approx(0.05)  # of 10, 2.5 and 5 %
  assert ours.peak_gflops == {'f32': pytest.approx(2e-3)}
  assert ours.peak_share == {'f32': pytest.approx(4.0)}  # 8, 2 and 4 MFLOP/s of 2, 2 and 1
  assert torch.peak_share == {'f32': pytest.approx(0.375)}  # 1, 0.75 and 0.375 of 2, 2 and 1


def test_what_does_not_fit_ends_its_row_alone():
  def exhausted():
    raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: out of memory')

  def fits_not():
    raise programs.OutOfMemoryError

  def contender(call):
    return programs.Program(call, 1, 8, 1e6, None, None, [])

  rows = train.measure_contenders(
    64,
    {
      'patches': fits_not,
      'crops': lambda: contender(exhausted),
      'torch': lambda: contender(lambda: None),
    },
    PRODUCTS,
    rounds=1,
  )
  assert [(row.name, row.seconds is None) for row in rows] == [
    ('patches', True), ('crops', True), ('torch', False),
  ]  # fmt: skip
  assert all(isinstance(dataclasses.asdict(row), dict) for row in rows)


def test_other_errors_are_not_hidden():
  def broken():
    raise jax.errors.JaxRuntimeError('INTERNAL: broken')

  contender = programs.Program(broken, 1, 8, 1e6, None, None, [])
  with pytest.raises(jax.errors.JaxRuntimeError, match='INTERNAL'):
    train.measure_contenders(64, {'patches': lambda: contender}, PRODUCTS, rounds=1)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
  """No large products, and no PyTorch."""
  monkeypatch.setattr(hardware, 'large_product', lambda *_: hardware.Product(lambda: None, 1e9))
  nobody = peers.PEERS['torch']._replace(module='no_such_peer')
  monkeypatch.setattr(peers, 'PEERS', {'torch': nobody})


@pytest.fixture
def measured(monkeypatch):
  """Stands in for the measuring: what it was asked, with figures that nobody measured."""
  asked = []

  def measure(batch, taking_part, products, rounds, progress):
    asked.append((batch, list(taking_part), list(products), rounds))
    rows = []
    for name in taking_part:
      fits = batch < 1000
      row = train.TrainingRow(
        name=name,
        batch=batch,
        seconds=0.5 if fits else None,
        pairs_per_second=512.0 if batch else None,
        flops=2e11,
        compiler_flops=3e11,
        peak_share={'f32': 0.25, 'bf16': 0.125},
        peak_gflops={'f32': 310.0, 'bf16': 1300.0},
        torch_ratio=1.7,
        dispatch_share=0.0123,
        memory=2_000_000_000,
        device_memory=None,
      )
      rows.append(row)
    return rows

  monkeypatch.setattr(train, 'measure_contenders', measure)
  return asked


def run(capsys, *arguments):
  """(status, standard output, standard error)."""
  try:
    status = train.main([*map(str, arguments)])
  except SystemExit as ended:
    status = ended.code
  shown = capsys.readouterr()
  return status, shown.out, shown.err


def test_a_run_prints_and_writes_its_figures(capsys, tmp_path, measured):
  files = [tmp_path / 'new/figures.json', tmp_path / 'new/figures.png']
  status, out, err = run(
    capsys,
    *('--batch', 1024, 64, 64, '--rounds', 2, '--json', files[0], '--plot', files[1]),
    '--config.train.steps_per_call=1',
  )
  assert status == 0
  assert "torch is left out (No module named 'no_such_peer'): pip install torch" in err
  kinds, products = ['patches', 'crops'], ['f32', 'bf16']
  assert measured == [
    (64, kinds, products, 2),
    (1024, kinds, products, 2),
    (0, ['patch_svdd_jax'], products, 2),
  ]
  lines = [[cell.strip() for cell in line.split('|')[1:-1]] for line in out.splitlines()]
  assert dict(zip(lines[0], lines[2], strict=True)) == {
    'pairs': 'patches',
    'batch': '64',
    'ms a step': '500',
    'pairs/s': '512',
    'GFLOP by shape': '200',
    'by compiler': '300',
    'of f32 peak': '25.0%',
    'of bf16 peak': '12.5%',
    'dispatch': '1.23%',
    'program': '2,000 MB',
    'held on device': '-',
    'torch took': '1.70 x',
  }
  assert lines[4][:4] == ['patches', '1,024', 'out of memory', '-']
  assert 'Medians of 2 rounds; 1 steps a call' in out
  assert 'f32 310 GFLOP/s, bf16 1300 GFLOP/s' in out
  contents = json.loads(files[0].read_text())
  assert len(contents['steps']) == 4
  assert contents['steps'][0]['pairs_per_second'] == 512
  assert contents['config']['train']['steps_per_call'] == 1
  with Image.open(files[1]) as plot:
    assert min(plot.size) > 500


def test_the_kinds_of_pairs_can_be_chosen(capsys, measured):
  status, _, err = run(capsys, '--batch', 8, '--pairs', 'patches', 'patches')
  assert status == 0, err
  assert measured[0][:2] == (8, ['patches'])


@pytest.mark.parametrize(
  ('arguments', 'line'),
  [
    (['--batch', 0], 'argument --batch: 0: give at least 1'),
    (['--batch', 64, -5], 'argument --batch: -5: give at least 1'),
    (['--batch', 8], 'a batch of 8 pairs: give a multiple of 16'),
    (['--rounds', 0], 'argument --rounds: 0: give at least 1'),
    (['--pairs', 'triples'], "config.train.pairs='triples'"),
    (['--plot', 'figures.txt'], '--plot figures.txt: must end in .png'),
    (['--config.nonsense=1'], 'no such key: config.nonsense'),
    (['--config', 'nosuch'], "no config file 'nosuch'"),
  ],
)
def test_bad_options_are_refused(capsys, measured, arguments, line):
  status, out, err = run(capsys, *arguments)
  assert (status, out, measured) == (2, '', [])
  assert f'error: {line}' in err.splitlines()[-1]


def test_help(capsys):
  status, shown, _ = run(capsys, '--help')
  assert status == 0
  for option in ('config', 'batch', 'pairs', 'rounds', 'json', 'plot'):
    assert f'--{option} ' in shown
