"""`plan`: what it prints and writes, and what it refuses before it compiles."""

import json

import pytest

from patch_svdd_jax.commands import main
from patch_svdd_jax.system.compiled_memory import Memory
from patch_svdd_jax.tpu_planning import programs
from patch_svdd_jax.tpu_planning.aot import Collectives, Program
from patch_svdd_jax.tpu_planning.programs import Work


@pytest.fixture
def asked(monkeypatch):
  """Stands in for the compiling: what it was asked, with figures that no compiler gave."""
  calls = []

  def program(topology, each, slices=1):
    fits = each <= 1000
    return Program(
      topology=topology,
      chips=4,
      each=each,
      memory=Memory(2**20, each * 16_000_000, 7168) if fits else None,
      chip_memory=2**34,
      flops=1e12,
      peak_seconds=0.0011,
      compiler_seconds=None if topology == 'v5e:2x2' else 0.0028,
      utilisation=None if topology == 'v5e:2x2' else 0.391,
      collectives={'all-reduce': Collectives(2, 1_840_000)} if fits else {},
      slices=slices,
      between_slices={'all-reduce': Collectives(10, 500_000)} if slices > 1 else {},
    )

  def train(topology, config, pairs, images, slices):
    calls.append((topology, config.train.pairs, pairs, images))
    return program(topology, pairs, slices)

  def embed(topology, config, images):
    calls.append((topology, images))
    return program(topology, images)

  def search(topology, work):
    calls.append((topology, work))
    fits = topology != 'v5e:2x2'
    return Program(
      topology=topology,
      chips=4,
      each=-(-work.bank_rows // 4),
      memory=Memory(2**30, 2**29, 56_832) if fits else None,
      chip_memory=2**34,
      flops=work.flops,
      peak_seconds=0.00137,
      compiler_seconds=0.00165 if fits else None,
      utilisation=0.83 if fits else None,
      collectives={'all-gather': Collectives(3, 250_000)} if fits else {},
      kernels=1 if fits else 0,
    )

  for function in (train, embed, search):
    monkeypatch.setattr(programs, function.__name__, function)
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
  assert cells[2][8:10] == ['-', '-']
  assert 'computed in bfloat16' in notes[0]
  assert out.endswith(f'written: {file}\n')
  written = json.loads(file.read_text())
  assert written['config']['train']['pairs'] == 'crops'
  row = written['rows'][0]
  assert (row['topology'], row['pairs_per_chip']) == ('v6e:2x2', 64)
  assert row['memory'] == {'arguments': 2**20, 'temporaries': 1_024_000_000, 'output': 7168}
  assert row['collectives'] == {'all-reduce': {'number': 2, 'bytes': 1_840_000}}


def test_what_crosses_between_slices_is_printed_and_written(capsys, tmp_path, asked):
  file = tmp_path / 'plan.json'
  options = ('--topology', 'tpu7x:2x2x1', '--config', 'default', '--slices', 2, '--json', file)
  status, out, err = run(capsys, 'train', *options)
  assert status == 0, err
  header, _, line, *notes = out.splitlines()
  cells = [[cell.strip() for cell in row.split('|')[1:-1]] for row in (header, line)]
  assert dict(zip(*cells, strict=True)).items() >= {
    ('within a slice', '2 all-reduce (1.84 MB)'),
    ('between slices', '10 all-reduce (0.50 MB)'),
  }
  # The authors' encoder and classifiers have 453,712 parameters.
  assert "its part of the gradients' sum over its slice (1.81 MB in all)" in notes[1]
  assert 'contrast' not in notes[1]
  assert 'A chip of tpu7x is two devices' in out
  (row,) = json.loads(file.read_text())['rows']
  assert (row['slices'], row['between_slices']) == (
    2,
    {'all-reduce': {'number': 10, 'bytes': 500_000}},
  )
  _, out, _ = run(capsys, 'train', *options[:-2], '--config.train.contrast=0.5')
  assert 'embeddings and their gradients' in out


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


def test_figures_of_the_search_are_printed_and_written(capsys, tmp_path, asked):
  file = tmp_path / 'new' / 'plan.json'
  status, out, err = run(
    capsys,
    *('search', '--topology', 'v6e:2x2', 'v5e:2x2', 'v6e:2x2', '--bank-rows', 1_300_000),
    *('--json', file),
  )
  assert status == 0, err
  work = Work(1_300_000, 3249, 64, 1, 64)
  assert asked == [('v6e:2x2', work), ('v5e:2x2', work)]
  header, _, first, second, *notes = out.splitlines()
  cells = [[cell.strip() for cell in line.split('|')[1:-1]] for line in (header, first, second)]
  assert dict(zip(cells[0], cells[1], strict=True)) == {
    'topology': 'v6e:2x2',
    'chips': '4',
    'rows a chip': '325,000',
    'arguments': '1,074 MB',
    'temporaries': '537 MB',
    'output': '0.06 MB',
    'of memory': '9.4%',
    'at peak': '1.37 ms',
    'compiler, without kernel': '1.65 ms',
    'utilisation': '83.0%',
    'kernels': '1',
    'collectives': '3 all-gather (0.25 MB)',
  }
  assert cells[2] == [
    *('v5e:2x2', '4', '325,000', 'does not fit', '-', '-', '-', '1.37 ms', '-', '-', '-', '-')
  ]
  assert '= 1.08e+12 FLOPs an image' in ''.join(notes)
  assert 'copied to every chip' not in out
  assert out.endswith(f'written: {file}\n')
  written = json.loads(file.read_text())
  assert [row['topology'] for row in written['rows']] == ['v6e:2x2', 'v5e:2x2']
  assert (written['bank_rows'], written['width']) == (1_300_000, 128)
  assert written['rows'][0]['memory'] == {
    'arguments': 2**30, 'temporaries': 2**29, 'output': 56_832,
  }  # fmt: skip
  assert (written['rows'][0]['rows_on_chip'], written['rows'][0]['sharded']) == (325_000, True)
  assert written['rows'][1]['memory'] is None
  assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize(
  ('arguments', 'components'),
  [((), 64), (('--dim', 200), 122), (('--dim', 8), 8), (('--dim', 200, '--components', 84), 84)],
)
def test_components(capsys, asked, arguments, components):
  status, _, err = run(capsys, 'search', '--topology', 'v4:2x2x1', '--bank-rows', 100, *arguments)
  assert status == 0, err
  assert asked[0][1].components == components


@pytest.mark.parametrize(
  ('arguments', 'named'),
  [
    (('train', '--topology', 'v6e:2x2', 'nonsense'), "no TPU topology 'nonsense'"),
    (('train', '--pairs-per-chip', 0), '--pairs-per-chip 0: give at least 1'),
    (('train', '--images', 0), '--images 0: give at least 1'),
    (('train', '--slices', 0), '--slices 0: give at least 1'),
    (('embed', '--images-per-chip', 0), '--images-per-chip 0: give at least 1'),
    (('train', '--config.train.pairs=nonsense'), "config.train.pairs='nonsense'"),
    (('train', '--config.nonsense=1'), 'no such key: config.nonsense'),
    (('embed', '--nonsense'), ''),
    (('embed', '--json', '.'), 'cannot write .: it is a folder'),
    (('search', '--topology', 'v6e:2x2', 'nonsense'), "no TPU topology 'nonsense'"),
    (('search', '--bank-rows', 0), 'bank_rows=0'),
    (('search', '--components', 65), 'components=65'),
    (('search', '--k', 101), 'k=101'),
    (('search', '--config.seed=1'), 'unexpected argument'),
    (('search', '--json', '.'), 'cannot write .: it is a folder'),
  ],
)
def test_nonsense_is_refused_before_it_compiles(capsys, asked, arguments, named):
  program, *rest = arguments
  topology = () if '--topology' in rest else ('--topology', 'v6e:2x2')
  needed = ('--bank-rows', 100) if program == 'search' else ('--config', 'default')
  status, out, err = run(capsys, program, *topology, *needed, *rest)
  assert (status, out, asked) == (2, '', [])
  assert err.startswith(f'error: {named}')
  assert err.count('\n') == 1


@pytest.mark.parametrize(
  ('program', 'options'),
  [
    ('search', ('topology', 'bank-rows', 'queries', 'dim', 'k', 'components', 'json')),
    ('train', ('topology', 'config', 'pairs-per-chip', 'images', 'slices', 'largest', 'json')),
    ('embed', ('topology', 'config', 'images-per-chip', 'largest', 'json')),
  ],
)
def test_help(capsys, program, options):
  with pytest.raises(SystemExit) as caught:
    main(['plan', program, '--help'])
  assert caught.value.code == 0
  shown = capsys.readouterr().out
  for option in options:
    assert f'--{option} ' in shown or f'--{option}]' in shown
  assert program != 'search' or all(len(line) <= 100 for line in shown.splitlines())


def test_a_program_must_be_named(capsys):
  for arguments, line in (
    (['plan'], 'the following arguments are required: PROGRAM'),
    (['plan', '--topology', 'v5e:2x2'], "invalid choice: 'v5e:2x2'"),
  ):
    with pytest.raises(SystemExit) as caught:
      main(arguments)
    assert caught.value.code == 2
    assert line in capsys.readouterr().err
