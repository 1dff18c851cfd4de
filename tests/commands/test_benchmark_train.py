"""`benchmark train`: what it prints and writes, and what it refuses before it begins."""

import json

import pytest
from PIL import Image

from patch_svdd_jax.benchmarks import hardware, peers, training
from patch_svdd_jax.commands import main


@pytest.fixture(autouse=True)
def quick(monkeypatch):
  """No large products, and no PyTorch."""
  monkeypatch.setattr(hardware, 'large_product', lambda _: hardware.Product(lambda: None, 1e9))
  nobody = peers.PEERS['torch']._replace(module='no_such_peer')
  monkeypatch.setattr(peers, 'PEERS', {'torch': nobody})


@pytest.fixture
def measured(monkeypatch):
  """Stands in for the measuring: what it was asked, with figures that nobody measured."""
  asked = []

  def measure(batch, contenders, products, rounds, progress):
    asked.append((batch, list(contenders), list(products), rounds))
    rows = []
    for name in contenders:
      fits = batch < 1000
      row = training.TrainingRow(
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

  monkeypatch.setattr(training, 'measure_contenders', measure)
  return asked


def run(capsys, *arguments):
  """(status, standard output, standard error)."""
  status = main(['benchmark', 'train', *map(str, arguments)])
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
    (['--batch', 0], '--batch 0: give at least 1'),
    (['--batch', 64, -5], '--batch -5: give at least 1'),
    (['--batch', 8], 'a batch of 8 pairs: give a multiple of 16'),
    (['--rounds', 0], '--rounds 0: give at least 1'),
    (['--pairs', 'triples'], "config.train.pairs='triples'"),
    (['--plot', 'figures.txt'], '--plot figures.txt: must end in .png'),
    (['--config.nonsense=1'], 'no such key: config.nonsense'),
    (['--config', 'nosuch'], "no config file 'nosuch'"),
  ],
)
def test_bad_options_are_refused_in_a_line(capsys, measured, arguments, line):
  status, out, err = run(capsys, *arguments)
  assert (status, out, measured) == (2, '', [])
  assert err.splitlines()[-1].startswith(f'error: {line}')


def test_help(capsys):
  with pytest.raises(SystemExit) as caught:
    main(['benchmark', 'train', '--help'])
  assert caught.value.code == 0
  shown = capsys.readouterr().out
  for option in ('config', 'batch', 'pairs', 'rounds', 'json', 'plot'):
    assert f'--{option} ' in shown
