"""Reads traces of XProf's format: operations by the phase they belong to, stages, steps.

jax.profiler reads the events. Which phase an operation belongs to stands in the programs, which
lie in the file as well, and which it does not show: they are read as protocol buffers here.

Of traces of CPUs; those of GPUs and TPUs XProf itself shows by phase.
"""

import pathlib
import re
from collections.abc import Collection, Iterator
from typing import NamedTuple

from jax.profiler import ProfileData, ProfileEvent

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system.profiling import TRACE

# The scopes of the compiled programs.
PHASES = ('sampling', 'encoder', 'losses', 'optimiser', 'embed', 'screen', 'look', 'map')
OTHER = 'other'
# They last as long as what they call, which is seen by itself.
CALLS = ('while', 'conditional', 'call')

# The part of the file with the programs.
_PROGRAMS = '/host:metadata'
# The numbers of fields, by the messages of tsl's xplane.proto and xla's hlo.proto.
_PLANES, _PLANE_NAME, _EVENT_METADATA, _MAP_VALUE = 1, 2, 4, 2
_METADATA_NAME, _METADATA_STATS, _STAT_BYTES = 2, 5, 6
_MODULE, _COMPUTATIONS, _INSTRUCTIONS = 1, 3, 2
_NAME, _OPCODE, _METADATA, _OP_NAME = 1, 2, 7, 2


class Interval(NamedTuple):
  """Holds an event from one time to another, in nanoseconds from the beginning of the trace."""

  name: str
  start: float
  end: float


class Trace(NamedTuple):
  """Holds what a process and its devices did.

  Attributes:
    operations: of the devices, by phase.
    stages: of the host, by name.
    steps: as the command counts them, by name.
  """

  operations: list[Interval]
  stages: list[Interval]
  steps: list[Interval]


def newest(folder: pathlib.Path) -> pathlib.Path:
  """Returns the newest trace in a folder that was given as --profile, or the file itself.

  Raises:
    UserError: there is none.
  """
  if folder.is_file():
    return folder
  found = sorted(folder.rglob(f'*{TRACE}'), key=lambda path: path.parent.name)
  if not found:
    raise UserError(f'{folder} has no trace, *{TRACE}: record one with --profile')
  return found[-1]


def read(path: pathlib.Path, stages: Collection[str]) -> Trace:
  """Reads a trace.

  Args:
    path: of the file.
    stages: names of what the host does, as far as it is wanted.
  """
  phases = phases_of(path.read_bytes())
  trace, begun, ended = Trace([], [], []), {}, {}
  for event in _events(path):
    facts = dict(event.stats)
    if operation := facts.get('hlo_op'):
      program = f'{facts["hlo_module"]}({facts["program_id"]})'
      if phase := phases.get((program, operation)):
        begun[facts['_p']] = Interval(phase, event.start_ns, event.end_ns)
    elif event.name.startswith('end: '):
      ended[facts.get('_c')] = event.end_ns
    elif 'step_num' in facts:
      trace.steps.append(Interval(event.name, event.start_ns, event.end_ns))
    elif event.name in stages:
      trace.stages.append(Interval(event.name, event.start_ns, event.end_ns))
  # One that other threads compute ends when they have, in an event of its own.
  trace.operations.extend(
    each._replace(end=ended.get(number, each.end)) for number, each in begun.items()
  )
  return trace


def _events(path: pathlib.Path) -> Iterator[ProfileEvent]:
  for plane in ProfileData.from_file(str(path)).planes:
    for line in plane.lines:
      yield from line.events


def phases_of(content: bytes) -> dict[tuple[str, str], str]:
  """Returns the phase of each operation, by the names of its program and its own.

  Those that only call others have none.

  Args:
    content: of the file of a trace.
  """
  found = {}
  for plane in _of(memoryview(content), _PLANES):
    for entry in _of(plane, _EVENT_METADATA) if _text(plane, _PLANE_NAME) == _PROGRAMS else ():
      (metadata,) = _of(entry, _MAP_VALUE)
      program = _text(metadata, _METADATA_NAME)
      for operation in _operations(metadata):
        if _text(operation, _OPCODE) not in CALLS:
          described = next(_of(operation, _METADATA), memoryview(b''))
          found[program, _text(operation, _NAME)] = phase(_text(described, _OP_NAME))
  return found


def phase(operation: str) -> str:
  """Returns the innermost phase in the path of an operation, as 'jit(f)/transpose(jvp(losses))'."""
  parts = re.split(r'[/()]', operation)
  return next((part for part in reversed(parts) if part in PHASES), OTHER)


def _operations(metadata: memoryview) -> Iterator[memoryview]:
  for stat in _of(metadata, _METADATA_STATS):
    for program in _of(stat, _STAT_BYTES):
      for module in _of(program, _MODULE):
        for computation in _of(module, _COMPUTATIONS):
          yield from _of(computation, _INSTRUCTIONS)


def _text(message: memoryview, field: int) -> str:
  return bytes(next(_of(message, field), b'')).decode()


def _of(message: memoryview, wanted: int) -> Iterator[memoryview]:
  """Yields the values of a field that is text, bytes or a message.

  https://protobuf.dev/programming-guides/encoding
  """
  place = 0
  while place < len(message):
    key, place = _number(message, place)
    field, kind = key >> 3, key & 7
    if kind == 0:
      _, place = _number(message, place)
      continue
    length = {1: 8, 5: 4}.get(kind)
    if length is None:
      length, place = _number(message, place)
    if field == wanted:
      yield message[place : place + length]
    place += length


def _number(message: memoryview, place: int) -> tuple[int, int]:
  """Returns the number of 7 bits a byte that begins at a place, and the place behind it."""
  number = shift = 0
  while True:
    byte = message[place]
    number |= (byte & 127) << shift
    place, shift = place + 1, shift + 7
    if byte < 128:
      return number, place
