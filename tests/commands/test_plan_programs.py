"""`plan train` and `plan embed`: what they print and write, and what they refuse."""

import json

import pytest

from patch_svdd_jax.commands import main
from patch_svdd_jax.system.compiled_memory import Memory
from patch_svdd_jax.tpu_planning import embedding_plan, training_plan
from patch_svdd_jax.tpu_planning.aot import Collectives, Program


@pytest.fixture
def asked(monkeypatch):
  """Stands in for the compiling: what it was asked, with figures that no compiler gave."""
  calls = []

  def program(topology, each):
    fits = each <= 1000
    return Program(
      topology=topology,
      chips=4,
      memory=Memory(2**20, each * 16_000_000, 7168) if fits else None,
      chip_memory=2**34,
      flops=1e12,
      peak_seconds=0.0011,
      compiler_seconds=None if topology == 'v5e:2x2' else 0.0028,
      utilisation=0.391,
      collectives={'all-reduce': Collectives(2, 1_840_000)} if fits else {},
    )

  def train(topology, config, pairs, images):
    calls.append((topology, config.train.pairs, pairs, images))
    return program(topology, pairs)

  def embed(topology, config, images):
    calls.append((topology, images))
    return program(topology, images)

  monkeypatch.setattr(training_plan, 'compile_for', train)
  monkeypatch.setattr(embedding_plan, 'compile_for', embed)
  return calls


def run(capsys, *arguments):
  """(status, standard output, standard error)."""
  status = main(['plan', *map(str, arguments)])
  shown = capsys.readouterr()
  return status, shown.out, shown.err


def test_figures_of_training_are_printed_and_written(capsys, tmp_path, asked):
  file = tmp_path / 'new' / 'plan.json'
  status, out, err = run(
    capsys,
    *('train', '--topology', 'v6e:2x2', 'v5e:2x2', '--config', 'default', '--images', 100),
    *('--config.train.pairs=crops', '--config.train.compute=bfloat16', '--json', file),
  )
  assert status == 0, err
  assert asked == [('v6e:2x2', 'crops', 64, 100), ('v5e:2x2', 'crops', 64, 100)]
  header, _, first, second, *notes = out.splitlines()
  cells = [[cell.strip() for cell in line.split('|')[1:-1]] for line in (header, first, second)]
  assert dict(zip(cells[0], cells[1], strict=True)) == {
    'topology': 'v6e:2x2',
    'chips': '4',
    'pairs per chip': '64',
    'arguments': '1.05 MB',
    'temporaries': '1,024 MB',
    'output': '0.01 MB',
    'of memory': '6.0%',
    'at peak': '1.1 ms',
    'compiler': '2.8 ms',
    'utilisation': '39.1%',
    'collectives': '2 all-reduce (1.84 MB)',
  }
  assert cells[2][8] == '-'
  assert 'computed in bfloat16' in notes[0]
  assert out.endswith(f'written: {file}\n')
  written = json.loads(file.read_text())
  assert written['config']['train']['pairs'] == 'crops'
  row = written['rows'][0]
  assert (row['topology'], row['pairs_per_chip']) == ('v6e:2x2', 64)
  assert row['memory'] == {'arguments': 2**20, 'temporaries': 1_024_000_000, 'output': 7168}
  assert row['collectives'] == {'all-reduce': {'number': 2, 'bytes': 1_840_000}}


def test_the_largest_batch_is_looked_for(capsys, asked):
  status, out, err = run(
    capsys, 'train', '--topology', 'v5e:2x2', '--config', 'default', '--largest'
  )
  assert status == 0, err
  # 15 times 64 pairs of 16 MB are the most in 2^34 bytes and in the 1000 pairs that fit.
  assert [pairs for _, _, pairs, _ in asked] == [64, 512, 1024, 768, 896]
  assert '| 896 (1,024 does not) |' in out


def test_what_does_not_fit_is_said(capsys, asked):
  options = ('--topology', 'v5e:2x2', '--config', 'default', '--images-per-chip', 2000)
  status, out, _ = run(capsys, 'embed', *options)
  assert status == 0
  assert asked == [('v5e:2x2', 2000)]
  assert 'does not fit' in out
  assert 'An image of 256 x 256 pixels takes 1.01e+10 FLOPs' in out


def test_by_default_as_many_images_are_embedded_as_by_the_config(capsys, asked):
  options = ('--topology', 'v5e:2x2', '--config', 'default', '--config.score.batch_size=3')
  status, _, err = run(capsys, 'embed', *options)
  assert status == 0, err
  assert asked == [('v5e:2x2', 3)]


@pytest.mark.parametrize(
  ('arguments', 'named'),
  [
    (('train', '--topology', 'v6e:2x2', 'nonsense'), "no TPU topology 'nonsense'"),
    (('train', '--pairs-per-chip', 0), '--pairs-per-chip 0: give at least 1'),
    (('train', '--images', 0), '--images 0: give at least 1'),
    (('embed', '--images-per-chip', 0), '--images-per-chip 0: give at least 1'),
    (('train', '--config.train.pairs=nonsense'), "config.train.pairs='nonsense'"),
    (('train', '--config.nonsense=1'), 'no such key: config.nonsense'),
    (('embed', '--nonsense'), ''),
    (('embed', '--json', '.'), 'cannot write .: it is a folder'),
  ],
)
def test_nonsense_is_refused_before_it_compiles(capsys, asked, arguments, named):
  program, *rest = arguments
  topology = () if '--topology' in rest else ('--topology', 'v6e:2x2')
  status, out, err = run(capsys, program, *topology, '--config', 'default', *rest)
  assert (status, out, asked) == (2, '', [])
  assert err.startswith(f'error: {named}')
  assert err.count('\n') == 1


@pytest.mark.parametrize('program', ['train', 'embed'])
def test_help(capsys, program):
  with pytest.raises(SystemExit) as caught:
    main(['plan', program, '--help'])
  assert caught.value.code == 0
  shown = capsys.readouterr().out
  for option in ('topology', 'config', 'largest', 'json'):
    assert f'--{option}' in shown
