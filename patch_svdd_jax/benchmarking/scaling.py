"""The train step at several batches on several devices: how its speed scales, and what fits."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh

from patch_svdd_jax import config_rules
from patch_svdd_jax.benchmarking import measuring, peaks, programs, timing
from patch_svdd_jax.benchmarking.peaks import Peak
from patch_svdd_jax.benchmarking.programs import OutOfMemoryError, Program
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.models import flops
from patch_svdd_jax.reporting.speed import digits
from patch_svdd_jax.system import compiled_memory, sharding
from patch_svdd_jax.system.batching import Progress
from patch_svdd_jax.system.compiled_memory import is_out_of_memory, memory_of
from patch_svdd_jax.training import batches

# A call takes no more steps than fit into so many seconds, but at least one: users wait for it.
CALL_SECONDS = 1.0
# The search for the largest batch begins with about so many pairs, and compiles at most so often.
FEWEST_PAIRS = 64
COMPILATIONS = 4


@dataclasses.dataclass(frozen=True)
class Row:
  """Holds what was measured of one batch on so many devices, or why nothing was.

  Attributes:
    devices: that the batch is divided among.
    batch: `config.train.batch_size`.
    flops: of a step, by the encoder's shape.
    why_not: why nothing was measured; '' if it was. What follows is then None.
    seconds: of a step, the median of the rounds.
    pairs_per_s: position and neighbour pairs of all scales, in these seconds.
    utilisation: the share of `peak` that the step's FLOP/s are.
    peak: FLOP/s of these devices: published, or of a matrix product in the same rounds.
    memory: bytes that the program holds on each device.
    rounds: how often it was timed.
    steps_per_call: steps in each.
    strong: pairs/s a device, as a share of those of the fewest devices with the same batch.
    weak: the same of the fewest devices with as many pairs on each.
  """

  devices: int
  batch: int
  flops: float
  why_not: str = ''
  seconds: float | None = None
  pairs_per_s: float | None = None
  utilisation: float | None = None
  peak: float | None = None
  memory: int | None = None
  rounds: int | None = None
  steps_per_call: int | None = None
  strong: float | None = None
  weak: float | None = None


class Limits(NamedTuple):
  """How long to measure.

  Attributes:
    rounds: at most.
    seconds: that the rounds of a point take; one whose first two steps would take longer is left
      out.
  """

  rounds: int
  seconds: float


class Largest(NamedTuple):
  """The largest batch that fits, by what the compiled program holds.

  Attributes:
    devices: that it is divided among.
    accumulate: `config.train.accumulate`, the parts it is computed in.
    most: pairs; 0 if not even the first batch fits.
    too_many: the fewest pairs that were compiled in vain; None if there were none.
    free: bytes of each device.
  """

  devices: int
  accumulate: int
  most: int
  too_many: int | None
  free: int


def points(counts: Sequence[int], batch_sizes: Sequence[int]) -> dict[int, list[int]]:
  """Returns of each batch on how many devices it is measured, all ascending.

  All batches are measured on all numbers of devices, for strong scaling; for weak scaling also the
  multiple of each that has as many pairs on each device, unless it is larger than all of them.
  """
  found: dict[int, set[int]] = {batch: set(counts) for batch in batch_sizes}
  for count in counts:
    for batch in batch_sizes:
      if count * batch <= max(batch_sizes):
        found.setdefault(count * batch, set()).add(count)
  return {batch: sorted(found[batch]) for batch in sorted(found)}


def measure(
  config: ml_collections.ConfigDict,
  counts: Sequence[int],
  batch_sizes: Sequence[int],
  limits: Limits,
  progress: Callable[[str], Progress],
) -> list[Row]:
  """Times the train step, those of one batch in turns.

  Args:
    config: the whole config; its batch is resized.
    counts: numbers of devices.
    batch_sizes: see `points`.
    limits: how long.
    progress: makes what wraps the rounds of a batch.

  Raises:
    UserError: a batch does not suit the config.
  """
  # All of them before the first is measured.
  resized = {batch: resize(config, batch) for batch in points(counts, batch_sizes)}
  meshes = {count: sharding.first_devices(count) for count in sorted(set(counts))}
  machines = {count: peaks.of_mesh(mesh, config.train.compute) for count, mesh in meshes.items()}
  rows: list[Row] = []
  for batch, those in points(counts, batch_sizes).items():
    chosen = {count: (meshes[count], machines[count]) for count in those}
    rows += measure_batch(resized[batch], chosen, rows, limits, progress)
  return with_efficiencies(rows)


def resize(config: ml_collections.ConfigDict, batch: int) -> ml_collections.ConfigDict:
  """Returns the config of another batch.

  Raises:
    UserError: the batch does not suit the config.
  """
  resized = batches.resize(config, batch)
  config_rules.validate(resized, training=False)
  config_rules.check_images(resized)
  return resized


def measure_batch(
  config: ml_collections.ConfigDict,
  chosen: Mapping[int, tuple[Mesh, Peak]],
  before: Sequence[Row],
  limits: Limits,
  progress: Callable[[str], Progress],
) -> list[Row]:
  """Times the train step of one batch on several numbers of devices, in turns.

  Args:
    config: of the batch.
    chosen: the meshes and their peaks, by their numbers of devices.
    before: rows of smaller batches, which tell how long this one will take.
    limits: how long.
    progress: makes what wraps the rounds.
  """
  step_flops = float(flops.step_flops(config))
  ready: dict[int, Program] = {}
  why_not: dict[int, str] = {}
  for count, (mesh, peak) in chosen.items():
    expected = expected_seconds(step_flops, count, peak, before)
    found = prepare(config, mesh, expected, limits.seconds)
    if isinstance(found, str):
      why_not[count] = found
    else:
      ready[count] = found
  calls: dict[str, Callable[[], object]] = {str(count): ready[count].call for count in ready}
  products = {count: chosen[count][1].product for count in ready}
  calls |= {f'{count} product': each.multiply for count, each in products.items() if each}
  taken: dict[str, np.ndarray] = {}
  if ready:
    bar = progress(f'batch {config.train.batch_size:,}')
    rounds = measuring.until(bar(range(limits.rounds)), limits.seconds * len(ready), 1)
    taken = timing.interleave(calls, rounds)

  def row(count: int) -> Row:
    if count in why_not:
      return Row(count, config.train.batch_size, step_flops, why_not[count])
    program, product = ready[count], products[count]
    seconds = taken[str(count)] / program.steps
    median = float(np.median(seconds))
    peak = chosen[count][1].flops
    highest = product.flop / taken[f'{count} product'] if product else np.full(len(seconds), peak)
    return Row(
      count,
      config.train.batch_size,
      step_flops,
      seconds=median,
      pairs_per_s=program.pairs / median,
      utilisation=float(np.median(step_flops / seconds / highest)),
      peak=float(np.median(highest)),
      memory=program.memory,
      rounds=len(seconds),
      steps_per_call=program.steps,
    )

  return [row(count) for count in chosen]


def expected_seconds(step_flops: float, devices: int, peak: Peak, before: Sequence[Row]) -> float:
  """Returns what a step should take: at the best speed so far, or at the peak where there is none.

  Args:
    step_flops: of the step.
    devices: that it is computed on.
    peak: of these.
    before: what was measured so far.
  """
  speeds = [row.flops / row.seconds for row in before if row.devices == devices and row.seconds]
  return step_flops / max(speeds, default=peak.flops)


def prepare(
  config: ml_collections.ConfigDict, mesh: Mesh, expected: float, seconds: float
) -> Program | str:
  """Returns the train step after its first call, or why it is not measured.

  Args:
    config: of the batch.
    mesh: the devices.
    expected: seconds of a step.
    seconds: that two of them, the first and a timed one, may take.
  """
  if 2 * expected > seconds:
    return f'two steps would take some {digits(2 * expected)} s'
  config = config.copy_and_resolve_references()
  fitting = max(1, int(CALL_SECONDS / expected))
  config.train.steps_per_call = min(config.train.steps_per_call, fitting)
  try:
    program = programs.prepare_step(config, mesh)
    programs.warm_up(program)
  except UserError as error:
    return str(error).partition(':')[0]
  except OutOfMemoryError as error:
    return f'does not fit: {error}' if str(error) else 'does not fit into the memory'
  return program


def with_efficiencies(rows: Sequence[Row]) -> list[Row]:
  """Returns the rows with `strong` and `weak`, but for those that others are compared with."""
  measured = [row for row in rows if row.pairs_per_s]
  found = []
  for row in rows:
    as_large = [other for other in measured if other.batch == row.batch]
    as_much = [o for o in measured if o.batch * row.devices == row.batch * o.devices]
    found.append(
      dataclasses.replace(row, strong=efficiency(row, as_large), weak=efficiency(row, as_much))
    )
  return found


def efficiency(row: Row, kin: Sequence[Row]) -> float | None:
  """Returns a row's pairs/s a device, as a share of those of its kin on the fewest devices.

  None for that of the fewest itself, and where nothing was measured.
  """
  fewest = min(kin, key=lambda other: other.devices, default=row)
  if fewest is row or not row.pairs_per_s or not fewest.pairs_per_s:
    return None
  return row.pairs_per_s / row.devices / (fewest.pairs_per_s / fewest.devices)


def largest_batch(config: ml_collections.ConfigDict, mesh: Mesh, accumulate: int) -> Largest:
  """Finds the largest batch of which the compiled program fits into the free memory.

  Args:
    config: the whole config.
    mesh: the devices.
    accumulate: the parts of a batch that are computed one after another.
  """
  config = config.copy_and_resolve_references()
  config.train.update(accumulate=accumulate, steps_per_call=1)
  free = programs.free_memory(mesh)

  def bytes_at(batch: int) -> int | None:
    try:
      compiled = programs.lower_step(batches.resize(config, batch), mesh).lowered.compile()
    except jax.errors.JaxRuntimeError as error:
      if not is_out_of_memory(error):
        raise
      return None
    _, temporaries, output = memory_of(compiled)
    return temporaries + output

  indivisible = accumulate * mesh.size
  if config.train.pairs == 'crops':
    indivisible *= config.train.batch_size // config.train.crops
  unit = -(-FEWEST_PAIRS // indivisible) * indivisible
  most, too_many = compiled_memory.largest(bytes_at, unit, bytes_at(unit), free, COMPILATIONS)
  return Largest(mesh.size, accumulate, most, too_many, free)
