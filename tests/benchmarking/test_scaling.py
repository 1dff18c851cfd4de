"""Points, speeds and efficiencies of programs whose times are known."""

import numpy as np
import pytest

from patch_svdd_jax.benchmarking import programs, scaling, scaling_report
from patch_svdd_jax.benchmarking.hardware import Product
from patch_svdd_jax.benchmarking.peaks import Peak
from patch_svdd_jax.benchmarking.programs import Program
from patch_svdd_jax.benchmarking.scaling import Largest, Limits, Row
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.models import flops
from patch_svdd_jax.system import sharding
from patch_svdd_jax.training import batches, train_step
from tests.support.runs import tiny_config

LIMITS = Limits(rounds=3, seconds=60)


def no_bar(_):
  return iter


def test_every_batch_on_all_devices_and_multiples_with_as_many_on_each():
  assert scaling.points([1, 2, 4], [64, 256]) == {
    64: [1, 2, 4],
    128: [2],
    256: [1, 2, 4],
  }
  assert scaling.points([1], [8, 16]) == {8: [1], 16: [1]}
  assert scaling.points([2, 3], [8, 24]) == {8: [2, 3], 16: [2], 24: [2, 3]}


def row(devices, batch, pairs_per_s, **others):
  return Row(devices, batch, 1e9, pairs_per_s=pairs_per_s, **others)


def test_efficiencies_are_of_the_fewest_devices():
  rows = [
    row(1, 64, 100.0),
    row(2, 64, 150.0),
    row(4, 64, None, why_not='does not fit'),
    row(2, 128, 180.0),
    row(4, 256, 300.0),
  ]
  found = scaling.with_efficiencies(rows)
  assert [each.strong for each in found] == [None, 0.75, None, None, None]
  assert [each.weak for each in found] == [None, None, None, 0.9, 0.75]


def test_a_step_should_take_what_the_fastest_batch_says_or_the_peak():
  peak = Peak(1e10, None)
  assert scaling.expected_seconds(1e9, 2, peak, []) == 0.1
  before = [
    row(2, 64, 1.0, seconds=1.0),  # 1 GFLOP/s
    row(2, 64, 1.0, seconds=0.5),
    row(4, 64, 1.0, seconds=0.1),
    row(2, 128, None, why_not='does not fit'),
  ]
  assert scaling.expected_seconds(3e9, 2, peak, before) == 1.5


@pytest.fixture
def stand_in(monkeypatch):
  """Programs that do nothing; what was asked for, as (batch, devices, steps a call)."""
  asked = []

  def prepare(config, mesh):
    train_step.check(config, mesh.size)
    batch, steps = config.train.batch_size, config.train.steps_per_call
    asked.append((batch, mesh.size, steps))
    if batch > 32:
      raise programs.OutOfMemoryError('9 GB a device, where 1 are free')
    return Program(lambda: None, steps, 2 * batch, 7e6, None, 1234, [])

  monkeypatch.setattr(programs, 'prepare_step', prepare)
  return asked


def test_what_is_measured_and_why_other_points_are_not(stand_in, monkeypatch):
  def peak(mesh, compute):
    assert compute == 'float32'
    return Peak(1e12 * mesh.size, None)

  monkeypatch.setattr(scaling.peaks, 'of_mesh', peak)

  def interleave(calls, rounds):
    count = len(list(rounds))
    return {name: np.full(count, 8.0 / int(name)) for name in calls}

  monkeypatch.setattr(scaling.timing, 'interleave', interleave)
  config = tiny_config()
  rows = scaling.measure(config, [1, 3], [12, 16, 64, 1600], LIMITS, no_bar)
  assert {(each.devices, each.batch): each.why_not for each in rows} == {
    (1, 12): '',
    (3, 12): '',
    (1, 16): '',
    (3, 16): 'config.train.batch_size=16 cannot be divided among 3 devices x '
    'config.train.accumulate=1',
    (3, 36): 'does not fit: 9 GB a device, where 1 are free',
    (3, 48): 'does not fit: 9 GB a device, where 1 are free',
    (1, 64): 'does not fit: 9 GB a device, where 1 are free',
    (3, 64): 'config.train.batch_size=64 cannot be divided among 3 devices x '
    'config.train.accumulate=1',
    (3, 192): 'does not fit: 9 GB a device, where 1 are free',
    (1, 1600): 'two steps would take some 1,067 s',
    (3, 1600): 'two steps would take some 356 s',
  }
  first = rows[0]
  cost = flops.step_flops(batches.resize(config, 12))
  assert (first.flops, first.seconds, first.pairs_per_s) == (cost, 4.0, 6.0)
  assert (first.memory, first.rounds, first.steps_per_call) == (1234, 3, 2)
  assert first.utilisation == pytest.approx(cost / 4 / 1e12)
  assert rows[1].strong == pytest.approx(1.0)
  assert [steps for batch, _, steps in stand_in if batch == 12] == [2, 2]
  assert [steps for batch, _, steps in stand_in if batch == 16] == [1]


def test_utilisation_is_of_the_product_in_the_same_round(stand_in, monkeypatch):
  # The first rounds are slow for both.
  taken = {'2': np.array([4.0, 2.0, 2.0]), '2 product': np.array([2.0, 1.0, 1.0])}
  monkeypatch.setattr(scaling.timing, 'interleave', lambda calls, _: {n: taken[n] for n in calls})
  mesh = sharding.first_devices(2)
  chosen = {2: (mesh, Peak(1e15, Product(lambda: None, 1e9)))}
  config = tiny_config(steps_per_call=1)
  (found,) = scaling.measure_batch(config, chosen, [], LIMITS, no_bar)
  assert found.peak == 1e9
  assert found.utilisation == pytest.approx(found.flops / 2 / 1e9)


def test_batches_that_do_not_suit_the_config_are_refused(stand_in):
  with pytest.raises(UserError, match='batch of 7 pairs: give a multiple of 2'):
    scaling.measure(tiny_config(pairs='crops'), [1], [8, 7], LIMITS, no_bar)
  with pytest.raises(UserError, match='images of 40x48 pixels are too small'):
    scaling.measure(tiny_config(pairs='crops', crop_size=64), [1], [8], LIMITS, no_bar)
  assert stand_in == []


@pytest.mark.parametrize(('pairs', 'accumulate', 'unit'), [('patches', 1, 64), ('crops', 3, 72)])
def test_the_largest_batch_is_a_multiple_of_what_can_be_divided(
  monkeypatch, pairs, accumulate, unit
):
  """A crop has two pairs; parts of a batch are divided among four devices."""
  compiled = []

  class Lowered:
    def compile(self):
      return compiled[-1]

  def lower(config, mesh):
    train_step.check(config, mesh.size)
    compiled.append(config.train.batch_size)
    return programs.LoweredStep(Lowered(), None, None)

  monkeypatch.setattr(programs, 'lower_step', lower)
  monkeypatch.setattr(scaling, 'memory_of', lambda batch: (10**9, 9 * batch, batch))
  monkeypatch.setattr(programs, 'free_memory', lambda _: 20_000)
  mesh = sharding.first_devices(4)
  config = tiny_config(pairs=pairs)
  assert scaling.largest_batch(config, mesh, accumulate) == Largest(
    4, accumulate, 2000 // unit * unit, None, 20_000
  )
  assert compiled[0] == unit


@pytest.mark.slow
def test_more_parts_take_a_larger_batch(monkeypatch):
  monkeypatch.setattr(programs, 'free_memory', lambda _: 5_000_000)
  mesh = sharding.first_devices(2)
  once, in_parts = (scaling.largest_batch(tiny_config(), mesh, parts) for parts in (1, 4))
  assert 64 < once.most < 100_000
  assert in_parts.most > 2 * once.most


def test_what_the_report_says():
  rows = scaling.with_efficiencies(
    [
      Row(1, 64, 1e9, '', 0.5, 256.0, 0.25, 8e9, 2_000_000, 3, 1),
      Row(2, 64, 1e9, '', 0.25, 512.0, 0.5, 8e9, 1_000_000, 3, 1),
      Row(2, 4096, 6e10, 'two steps would take some 96 s'),
    ]
  )
  header, _, *lines = (
    [cell.strip() for cell in line.split('|')[1:-1]]
    for line in scaling_report.table(rows).splitlines()
  )
  cells = [dict(zip(header, line, strict=True)) for line in lines]
  assert cells[1] == {
    'devices': '2',
    'batch': '64',
    'a device': '32',
    'ms a step': '250',
    'pairs/s': '512',
    'strong': '100.0%',
    'weak': '-',
    'of peak': '50.0%',
    'program, MB': '1',
    'rounds': '3',
    'not measured': '-',
  }
  assert cells[2]['ms a step'] == cells[2]['pairs/s'] == '-'
  assert cells[2]['not measured'] == 'two steps would take some 96 s'
  assert 'not measured' not in scaling_report.table(rows[:2])
  largest = [Largest(2, 8, 98112, None, 11_000_000_000)]
  notes = scaling_report.notes(tiny_config(), rows, largest, LIMITS, is_published=False)
  assert 'by a matrix product in the same rounds (1: 8 GFLOP/s, 2: 8 GFLOP/s)' in notes
  assert 'on 2 devices with config.train.accumulate=8: 98,112, by what the compiled' in notes
  assert '11 GB are free' in notes
  assert 'more than --seconds 60' in notes
  published = scaling_report.notes(tiny_config(), rows, [], LIMITS, is_published=True)
  assert 'by its published peak (1: 8 GFLOP/s' in published
  figure = scaling_report.draw(rows, 'here')
  assert [panel.get_title() for panel in figure.axes] == [
    'strong scaling: the same batch',
    'weak scaling: as many pairs a device',
    'utilisation',
  ]
  scaling_report.draw([rows[2]], 'nothing was measured')
