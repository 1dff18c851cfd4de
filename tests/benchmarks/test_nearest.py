"""The figures of the benchmark, by hand, what it prints and writes, and what it refuses."""

import dataclasses
import json
import re

import numpy as np
import pytest
from PIL import Image

from benchmarks import nearest, peers, vectors
from patch_svdd_jax.benchmarking import hardware, machine, timing
from patch_svdd_jax.benchmarking.hardware import Product
from patch_svdd_jax.benchmarking.peers import Peer
from patch_svdd_jax.errors import UserError


def draw_vectors(queries, rows, dim=16, seed=0):
  rng = np.random.default_rng(seed)
  return tuple(rng.standard_normal((n, dim), dtype=np.float32) for n in (queries, rows))


def brute_force(queries, rows, k):
  """Distances f64[Q, k]."""
  differences = queries[:, None].astype(np.float64) - rows[None]
  return np.sort(np.sqrt((differences**2).sum(-1)), axis=1)[:, :k]


@pytest.mark.parametrize('k', [1, 4])
def test_the_reference_is_that_of_differences(monkeypatch, k):
  monkeypatch.setattr(nearest, 'REFERENCE_BLOCK', 100)
  queries, rows = draw_vectors(7, 250)
  rows[:] = 0.95 + 4e-4 * rows
  queries[:] = 0.95 + 4e-4 * queries
  np.testing.assert_allclose(
    nearest.reference(queries, rows, k), brute_force(queries, rows, k), rtol=1e-12
  )


def test_ours_must_be_right_to_float32_and_the_others_as_their_form_allows():
  queries, rows = draw_vectors(40, 300)
  right = brute_force(queries, rows, 2)
  for name in (nearest.OURS, 'other'):
    nearest.check(name, right.astype(np.float32), queries, rows)
  rounded = (right * (1 + 1e-5)).astype(np.float32)
  nearest.check('other', rounded, queries, rows)
  wrong = re.escape(f'finds the distance {rounded[0, 0]:.9g} for query 0 where float64 finds ')
  with pytest.raises(UserError, match=f'^{nearest.OURS} {wrong}.*: nothing was timed$'):
    nearest.check(nearest.OURS, rounded, queries, rows)


@pytest.mark.parametrize('name', [nearest.OURS, nearest.PLAIN])
@pytest.mark.parametrize('value', [1.01, np.nan, np.inf])
def test_a_wrong_distance_is_found(name, value):
  queries, rows = draw_vectors(40, 300)
  found = brute_force(queries, rows, 2)
  found[-1, 1] *= value
  with pytest.raises(UserError, match='for query 39 '):
    nearest.check(name, found, queries, rows)


def test_a_search_that_takes_long_is_timed_on_fewer_queries():
  assert nearest.affordable(3000, nearest.LONGEST) == 3000
  assert nearest.affordable(3000, 3 * nearest.LONGEST) == 1000
  assert nearest.affordable(3000, 1e9) == 1


def exact_peer(proportional=True):
  return Peer(
    'exact', 'exact', lambda rows, k: lambda q: brute_force(q, rows, k), lambda: 1, proportional
  )


SETTINGS = {'k': 2, 'products': {'f32': Product(lambda: None, 6e9)}, 'rounds': 3}


def test_figures_by_hand(monkeypatch):
  """Seconds are given; the slow peer is timed on 10 of 40 queries."""
  queries, rows = draw_vectors(40, 500)
  monkeypatch.setattr(
    nearest, 'affordable', lambda count, _: {True: 10, False: count}[count == len(queries)]
  )
  given = {
    nearest.OURS: [1.0, 2.0, 9.0],
    nearest.PLAIN: [3.0, 2.0, 36.0],
    'slow': [1.0, 4.0, 9.0],
    'steady': [2.0, 2.0, 2.0],
    'f32': [1.0, 3.0, 6.0],
  }
  asked = {}

  def interleave(calls, rounds):
    assert list(rounds) == [0, 1, 2]
    assert list(calls) == list(given)
    asked.update({name: calls[name]().shape for name in ('slow', 'steady', nearest.PLAIN)})
    return {name: np.array(seconds) for name, seconds in given.items()}

  monkeypatch.setattr(timing, 'interleave', interleave)
  titles = []

  def progress(title):
    titles.append(title)
    return iter

  row = nearest.measure_search(
    'some',
    queries,
    rows,
    peers={'slow': exact_peer(), 'steady': exact_peer(proportional=False)},
    progress=progress,
    **SETTINGS,
  )
  assert titles == ['some, 500 rows: check', 'some, 500 rows']
  assert asked == {'slow': (10, 2), 'steady': (40, 2), nearest.PLAIN: (40, 2)}
  gflop = 2 * 40 * 500 * 16 / 1e9
  assert (row.data, row.queries, row.bank, row.dim, row.k) == ('some', 40, 500, 16, 2)
  assert row.gflops == row.gflops_of(nearest.OURS) == pytest.approx(gflop / 2)
  assert row.gflops_of('slow') == pytest.approx(gflop / 16)
  assert row.ratio == pytest.approx({nearest.PLAIN: 3.0, 'slow': 4.0, 'steady': 1.0})
  assert row.seconds == {nearest.OURS: 2.0, nearest.PLAIN: 3.0, 'slow': 16.0, 'steady': 2.0}
  assert row.timed_queries == {nearest.OURS: 40, nearest.PLAIN: 40, 'slow': 10, 'steady': 40}
  assert row.peak_gflops == pytest.approx({'f32': 2.0})
  # Of each round's own peak: 1/6, 1/4 and 1/9 of the gflop.
  assert row.peak_share == pytest.approx({'f32': gflop / 6})
  assert 0 <= row.fallback_fraction <= 1
  json.dumps(dataclasses.asdict(row))


def test_contenders_that_disagree_are_not_timed(monkeypatch):
  queries, rows = draw_vectors(30, 700)
  wrong = exact_peer()._replace(prepare=lambda rows, k: lambda q: 1.1 * brute_force(q, rows, k))
  monkeypatch.setattr(timing, 'interleave', None)
  with pytest.raises(UserError, match=r'^wrong finds the distance'):
    nearest.measure_search(
      'some', queries, rows, peers={'wrong': wrong}, progress=lambda _: iter, **SETTINGS
    )


@pytest.fixture(autouse=True)
def quick(monkeypatch):
  """No large products; scikit-learn alone of the peers, and one that nobody has."""
  monkeypatch.setattr(hardware, 'large_product', lambda *_: hardware.Product(lambda: None, 1e9))
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
  try:
    status = nearest.main([*map(str, arguments)])
  except SystemExit as ended:
    status = ended.code
  shown = capsys.readouterr()
  return status, shown.out, shown.err


SMALL = ('--data', 'gaussian', '--queries', 8, '--dim', 4)


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
  assert contents['device'] == machine.device_name()
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
    (['--bank', 0], 'argument --bank: 0: give at least 1'),
    (['--bank', 100, -5], 'argument --bank: -5: give at least 1'),
    (['--bank', 10, '--k', 11], '--bank 10: give at least --k 11 rows'),
    (['--k', 0], 'argument --k: 0: give at least 1'),
    (['--queries', -1], 'argument --queries: -1: give at least 1'),
    (['--dim', 0], 'argument --dim: 0: give at least 1'),
    (['--rounds', 0], 'argument --rounds: 0: give at least 1'),
    (['--data', 'noise'], "argument --data: invalid choice: 'noise'"),
    (['--plot', 'figures.txt'], '--plot figures.txt: must end in .png'),
    (['--nonsense'], 'unrecognized arguments: --nonsense'),
  ],
)
def test_bad_options_are_refused(capsys, measured, arguments, line):
  status, out, err = run(capsys, *arguments)
  assert (status, out, measured) == (2, '', [])
  assert f'error: {line}' in err.splitlines()[-1]


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


def test_help(capsys):
  status, shown, _ = run(capsys, '--help')
  assert status == 0
  assert 'GFLOP/s are 2 x queries x rows x dimensions / seconds' in shown
  for option in ('queries', 'bank', 'dim', 'k', 'data', 'rounds', 'json', 'plot'):
    assert f'--{option} ' in shown
  assert all(len(line) <= 100 for line in shown.splitlines())
