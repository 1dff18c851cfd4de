"""`plan search`: what it prints and writes, and what it refuses before it compiles."""

import json

import pytest

from patch_svdd_jax.commands import main
from patch_svdd_jax.system.compiled_memory import Memory
from patch_svdd_jax.tpu_planning import search_plan


@pytest.fixture
def asked(monkeypatch):
  """Stands in for the compiling: what it was asked, with figures that no compiler gave."""
  calls = []

  def compile_for(topology, work):
    calls.append((topology, work))
    fits = topology != 'v5e:2x2'
    return search_plan.Plan(
      topology=topology,
      chips=4,
      sharded=True,
      rows_on_chip=-(-work.bank_rows // 4),
      memory=Memory(2**30, 2**29, 56_832) if fits else None,
      chip_memory=2**34,
      flops=work.flops,
      peak_seconds=0.00137,
      compiler_seconds=0.00165 if fits else None,
      collectives={'all-gather': 3, 'all-reduce': 1} if fits else {},
      kernels=1 if fits else 0,
    )

  monkeypatch.setattr(search_plan, 'compile_for', compile_for)
  return calls


def run(capsys, *arguments):
  """(status, standard output, standard error)."""
  status = main(['plan', 'search', *map(str, arguments)])
  shown = capsys.readouterr()
  return status, shown.out, shown.err


def test_figures_are_printed_and_written(capsys, tmp_path, asked):
  file = tmp_path / 'new' / 'plan.json'
  status, out, err = run(
    capsys,
    *('--topology', 'v6e:2x2', 'v5e:2x2', 'v6e:2x2', '--bank-rows', 1_300_000, '--json', file),
  )
  assert status == 0, err
  work = search_plan.Work(1_300_000, 3249, 64, 1, 41)
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
    'kernels': '1',
    'collectives': '3 all-gather, 1 all-reduce',
  }
  assert cells[2] == [
    *('v5e:2x2', '4', '325,000', 'does not fit', '-', '-', '-', '1.37 ms', '-', '-', '-')
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
  assert written['rows'][1]['memory'] is None
  assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize(
  ('arguments', 'components'),
  [((), 41), (('--dim', 8), 8), (('--dim', 200, '--components', 84), 84)],
)
def test_components(capsys, asked, arguments, components):
  status, _, err = run(capsys, '--topology', 'v4:2x2x1', '--bank-rows', 100, *arguments)
  assert status == 0, err
  assert asked[0][1].components == components


@pytest.mark.parametrize(
  ('arguments', 'named'),
  [
    (('--topology', 'v6e:2x2', 'nonsense'), "no TPU topology 'nonsense'"),
    (('--bank-rows', 0), 'bank_rows=0'),
    (('--components', 65), 'components=65'),
    (('--k', 101), 'k=101'),
    (('--config.seed=1',), 'unexpected argument'),
    (('--json', '.'), 'cannot write .: it is a folder'),
  ],
)
def test_nonsense_is_refused_before_it_compiles(capsys, asked, arguments, named):
  status, out, err = run(capsys, '--topology', 'v6e:2x2', '--bank-rows', 100, *arguments)
  assert (status, out, asked) == (2, '', [])
  assert err.startswith(f'error: {named}')
  assert err.count('\n') == 1


def test_help(capsys):
  with pytest.raises(SystemExit) as caught:
    main(['plan', 'search', '--help'])
  assert caught.value.code == 0
  shown = capsys.readouterr().out
  for option in ('topology', 'bank-rows', 'queries', 'dim', 'k', 'components', 'json'):
    assert f'--{option} ' in shown
  assert all(len(line) <= 100 for line in shown.splitlines())


def test_a_program_must_be_named(capsys):
  for arguments, line in (
    (['plan'], 'the following arguments are required: PROGRAM'),
    (['plan', '--topology', 'v5e:2x2'], "invalid choice: 'v5e:2x2'"),
  ):
    with pytest.raises(SystemExit) as caught:
      main(arguments)
    assert caught.value.code == 2
    assert line in capsys.readouterr().err
