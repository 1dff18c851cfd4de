"""`benchmark nearest`: what it prints and writes, and what it refuses before it begins."""

import json
import re

import pytest
from PIL import Image

from patch_svdd_jax.benchmarks import hardware, nearest, peers
from patch_svdd_jax.commands import main


@pytest.fixture(autouse=True)
def quick(monkeypatch):
  """No large products; scikit-learn alone of the peers, and one that nobody has."""
  monkeypatch.setattr(hardware, 'large_product', lambda _: hardware.Product(lambda: None, 1e9))
  peer = peers.PEERS['scikit-learn']
  nobody = peer._replace(module='no_such_peer')
  monkeypatch.setattr(peers, 'PEERS', {'scikit-learn': peer, 'nobody': nobody})


@pytest.fixture
def measured(monkeypatch):
  """Stands in for the measuring: what it was asked, with figures that nobody measured."""
  asked = []

  def measure(data, queries, rows, *, k, peers, products, rounds, progress):
    asked.append((data, queries.shape, rows.shape, k, list(peers), list(products), rounds))
    names = [nearest.OURS, nearest.PLAIN, *peers]
    return nearest.SearchRow(
      data=data,
      queries=len(queries),
      bank=len(rows),
      dim=rows.shape[1],
      k=k,
      gflops=123.4,
      fallback_fraction=0.0125,
      ratio=dict.fromkeys(names[1:], 2.5),
      peak_gflops={'f32': 200.0 * len(rows), 'bf16': 1000.0},
      peak_share={'f32': 0.617, 'bf16': 0.1234},
      seconds=dict.fromkeys(names, 0.5),
      timed_queries=dict.fromkeys(names, len(queries)) | {'scikit-learn': 2},
    )

  monkeypatch.setattr(nearest, 'measure_search', measure)
  return asked


def run(capsys, *arguments):
  """(status, standard output, standard error)."""
  status = main(['benchmark', 'nearest', *map(str, arguments)])
  shown = capsys.readouterr()
  return status, shown.out, shown.err


SMALL = ('--data', 'gaussian', '--queries', 8, '--dim', 4)


@pytest.mark.usefixtures('quick_compilation')
def test_a_run_prints_and_writes_its_figures(capsys, tmp_path):
  files = [tmp_path / 'new/figures.json', tmp_path / 'new/figures.png']
  status, out, err = run(
    capsys, *SMALL, '--bank', 300, '--rounds', 2, '--json', files[0], '--plot', files[1]
  )
  assert status == 0
  assert "nobody is left out (No module named 'no_such_peer'): pip install" in err
  assert "'patch_svdd_jax[benchmark]'" in err
  contents = json.loads(files[0].read_text())
  assert contents.keys() == {'rows', 'device', 'peak_gflops', 'threads', 'rounds'}
  assert contents['device'] == hardware.device_name()
  assert contents['device'] in out
  assert contents['threads'].keys() == {'scikit-learn'}
  (row,) = contents['rows']
  assert (row['data'], row['queries'], row['bank'], row['dim']) == ('gaussian', 8, 300, 4)
  assert row['ratio'].keys() == {'plain scan', 'scikit-learn'}
  assert row['peak_share'].keys() == contents['peak_gflops'].keys() == {'f32', 'bf16'}
  flop = 2 * 8 * 300 * 4
  assert row['gflops'] == pytest.approx(flop / row['seconds']['patch_svdd_jax'] / 1e9)
  cells = [cell.strip() for cell in re.search(r'.* 300 .*', out)[0].split('|')]
  assert cells[1] == 'gaussian'
  assert cells[3] == f'{row["gflops"]:.3g}'
  assert cells[7] == f'{row["ratio"]["plain scan"]:.2f} x'
  assert 'operations of the whole product' in out
  with Image.open(files[1]) as plot:
    assert min(plot.size) > 500
  assert set(files[0].parent.iterdir()) == set(files)


def test_every_kind_of_data_is_measured_on_every_bank(capsys, measured, monkeypatch):
  from patch_svdd_jax.benchmarks import vectors

  monkeypatch.setattr(vectors, 'KINDS', dict.fromkeys(vectors.KINDS, vectors.gaussian))
  options = ('--queries', 8, '--bank', 90, 70, 90, '--dim', 4, '--k', 3, '--rounds', 7)
  status, out, _ = run(capsys, *options)
  assert status == 0
  assert measured == [
    (kind, (8, 4), (rows, 4), 3, ['scikit-learn'], ['f32', 'bf16'], 7)
    for kind in ('gaussian', 'embeddings')
    for rows in (70, 90)
  ]
  assert 'k = 3, medians of 7 rounds' in out
  assert 'f32 1.6e+04 GFLOP/s, bf16 1000 GFLOP/s' in out  # halfway between those of 70 and 90 rows
  assert 'scikit-learn was timed on 2 of the queries against 90 rows (embeddings)' in out


@pytest.mark.parametrize(
  ('arguments', 'line'),
  [
    (['--bank', 0], '--bank 0: give at least 1'),
    (['--bank', 100, -5], '--bank -5: give at least 1'),
    (['--bank', 10, '--k', 11], '--bank 10: give at least 11'),
    (['--k', 0], '--k 0: give at least 1'),
    (['--queries', -1], '--queries -1: give at least 1'),
    (['--dim', 0], '--dim 0: give at least 1'),
    (['--rounds', 0], '--rounds 0: give at least 1'),
    (['--data', 'noise'], '--data noise: no such data; choose of gaussian, embeddings'),
    (['--plot', 'figures.txt'], '--plot figures.txt: must end in .png'),
    (['--nonsense'], "unexpected argument '--nonsense': see --help"),
  ],
)
def test_bad_options_are_refused_in_a_line(capsys, measured, arguments, line):
  status, out, err = run(capsys, *arguments)
  assert (status, out, measured) == (2, '', [])
  assert err.startswith(f'error: {line}')
  assert err.count('\n') == 1


@pytest.mark.parametrize('option', ['--json', '--plot'])
@pytest.mark.parametrize(
  ('name', 'reason'), [('file/figures.png', ''), ('folder.png', 'it is a folder')]
)
def test_files_that_cannot_be_written_are_refused_before_the_run(
  capsys, measured, tmp_path, option, name, reason
):
  (tmp_path / 'file').write_text('')
  (tmp_path / 'folder.png').mkdir()
  status, _, err = run(capsys, *SMALL, '--bank', 50, option, tmp_path / name)
  assert (status, measured) == (2, [])
  assert re.fullmatch(f'error: cannot write {re.escape(str(tmp_path / name))}: .*{reason}\n', err)


def test_an_interrupt_leaves_the_old_file_and_no_part_of_a_new_one(capsys, monkeypatch, tmp_path):
  def interrupt(*_, **__):
    raise KeyboardInterrupt

  monkeypatch.setattr(nearest, 'measure_search', interrupt)
  old = tmp_path / 'figures.json'
  old.write_text('{}')
  new = tmp_path / 'figures.png'
  status, out, err = run(capsys, *SMALL, '--bank', 50, '--json', old, '--plot', new)
  assert (status, out) == (130, '')
  assert err.endswith('interrupted\n')
  assert [*tmp_path.iterdir()] == [old]
  assert old.read_text() == '{}'


def test_a_benchmark_must_be_named(capsys):
  for arguments, line in (
    (['benchmark'], 'the following arguments are required: BENCHMARK'),
    (['benchmark', 'nosuch'], "invalid choice: 'nosuch'"),
  ):
    with pytest.raises(SystemExit) as caught:
      main(arguments)
    assert caught.value.code == 2
    assert line in capsys.readouterr().err


def test_help(capsys):
  with pytest.raises(SystemExit) as caught:
    main(['benchmark', 'nearest', '--help'])
  assert caught.value.code == 0
  shown = capsys.readouterr().out
  assert 'GFLOP/s are 2 x queries x rows x dimensions / seconds' in shown
  for option in ('queries', 'bank', 'dim', 'k', 'data', 'rounds', 'json', 'plot'):
    assert f'--{option} ' in shown
  assert all(len(line) <= 100 for line in shown.splitlines())
