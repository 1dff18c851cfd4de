"""The weights that the authors of Patch SVDD published, read without PyTorch and without trust.

An `enchier.pkl` is a state dict in PyTorch's legacy format: five pickles (a magic number, a
version, facts of the machine, the dict itself, the keys of its storages), then for each key an
int64 count and as many little-endian float32.

A pickle is a program, and `pickle.Unpickler` calls what that program names. Names can be restricted
there (`find_class`), but not the rest: nine bytes make it allocate gigabytes (LONG_BINPUT), a few
hundred make it hash a tuple for years. So `pickletools` reads the operations, and the machine here
performs only those that such a file consists of. Names stay names: there is nothing to call.
"""

import dataclasses
import enum
import io
import os
import pathlib
import pickletools
import struct
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO

import numpy as np

from patch_svdd_jax.errors import UserError

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
PROTOCOL_VERSION = 1001
# The pickles of the authors' files take 3,040 bytes; their length does not depend on D.
MAX_PICKLED_BYTES = 2**16

_FETCH_AGAIN = 'fetch the file again'
_SAVE_LEGACY = (
  "give an enchier.pkl of the authors', or a state dict saved with "
  'torch.save(state_dict, FILE, _use_new_zipfile_serialization=False)'
)
_DISTRUST = 'nothing of it was run; take the file from a source you trust'


class _Name(enum.Enum):
  """What a state dict of float32 tensors names; inert here."""

  ORDERED_DICT = 'collections.OrderedDict'
  REBUILD_TENSOR = 'torch._utils._rebuild_tensor_v2'
  FLOAT_STORAGE = 'torch.FloatStorage'


@dataclasses.dataclass(frozen=True)
class _Storage:
  """A flat run of float32 further on in the file."""

  key: str
  numel: int


@dataclasses.dataclass(frozen=True)
class _Tensor:
  """A view of a storage: offset and strides count elements."""

  storage: _Storage
  offset: int
  size: tuple[int, ...]
  stride: tuple[int, ...]


class _BadFileError(Exception):
  """What is wrong with a file and what to do about it; `read_state_dict` adds which file."""

  def __init__(self, problem: str, advice: str = _FETCH_AGAIN):
    super().__init__(f'{problem}; {advice}')


def encoder_params(path: str | os.PathLike[str]) -> dict[str, dict[str, dict[str, np.ndarray]]]:
  """Reads the parameters of the authors' hierarchical encoder (K=64 on top of K=32).

  Args:
    path: an `enchier.pkl`.

  Returns:
    The Flax parameters {'level_32': {'conv_0': {'kernel': f32[3, 3, 3, 32], 'bias': f32[32]}, ..,
    'conv_7'}, 'level_64': {'conv_0', 'conv_1'}}, kernels as HWIO. D, 64 in the authors' files, is
    what the file says: the length of the last bias of either level.

  Raises:
    UserError: the file cannot be read (`read_state_dict`), or is not such an encoder's.
  """
  tensors = read_state_dict(path)
  try:
    _check_encoder(tensors)
  except _BadFileError as error:
    raise UserError(f'{path}: {error}') from error
  levels: dict[str, dict[str, dict[str, np.ndarray]]] = {
    'level_32': {f'conv_{i}': _conv(tensors, f'enc.conv{i + 1}') for i in range(8)},
    'level_64': {f'conv_{i}': _conv(tensors, f'conv{i + 1}') for i in range(2)},
  }
  return levels


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
  """Reads a state dict of float32 tensors in PyTorch's legacy (pre-zip) format.

  Memory is bounded by the length of the file, and nothing the file says is executed.

  Args:
    path: the file.

  Returns:
    Read-only little-endian f32 arrays in the file's order, views where the tensors are.

  Raises:
    UserError: the file cannot be opened, is no such file, is damaged, or asks for anything that
      such a file does not need.
  """
  if not pathlib.Path(path).is_file():
    raise UserError(f'{path}: no such file; {_SAVE_LEGACY}')
  try:
    with open(path, 'rb') as file:
      return _read(file, os.fstat(file.fileno()).st_size)
  except OSError as error:
    raise UserError(f'{path}: cannot be read ({error.strerror}); {_FETCH_AGAIN}') from error
  except _BadFileError as error:
    raise UserError(f'{path}: {error}') from error


def _check_encoder(tensors: Mapping[str, np.ndarray]) -> None:
  """Raises unless names, shapes and values are those of the authors' hierarchical encoder."""
  d = tensors['enc.conv8.bias'].size if 'enc.conv8.bias' in tensors else 64
  widths = (3, 32, 64, 128, 128, 64, 32, 32, d)
  kernels = {f'enc.conv{i + 1}': (widths[i + 1], widths[i], 3, 3) for i in range(8)}
  kernels |= {'conv1': (128, d, 2, 2), 'conv2': (d, 128, 1, 1)}
  shapes: dict[str, tuple[int, ...]] = {}
  for name, shape in kernels.items():
    shapes |= {f'{name}.weight': shape, f'{name}.bias': shape[:1]}

  problem = ''
  if missing := shapes.keys() - tensors.keys():
    problem = f'it lacks {_listed(missing)}'
  elif extra := tensors.keys() - shapes.keys():
    problem = f'it has also {_listed(extra)}'
  elif odd := [name for name in shapes if tensors[name].shape != shapes[name]]:
    problem = f'{odd[0]} has shape {tensors[odd[0]].shape}, not {shapes[odd[0]]}'
  if problem:
    raise _BadFileError(f"not an encoder in the authors' form: {problem}", _SAVE_LEGACY)
  broken = {name for name, tensor in tensors.items() if not np.isfinite(tensor).all()}
  if broken:
    raise _BadFileError(f'NaN or infinity in {_listed(broken)}')


def _conv(tensors: Mapping[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
  """A convolution's parameters, its kernel turned from OIHW to HWIO, in memory of their own."""
  kernel = tensors[f'{name}.weight'].transpose(2, 3, 1, 0)
  return {
    'kernel': np.array(kernel, np.float32, order='C'),
    'bias': np.array(tensors[f'{name}.bias'], np.float32),
  }


def _read(file: BinaryIO, file_bytes: int) -> dict[str, np.ndarray]:
  """Reads the pickles, then the storages."""
  head = io.BytesIO(file.read(MAX_PICKLED_BYTES))
  _read_preamble(head)
  tensors = _unpickle(head)
  if not isinstance(tensors, dict) or not all(type(t) is _Tensor for t in tensors.values()):
    raise _BadFileError('holds something else than a state dict of tensors', _SAVE_LEGACY)
  keys = _unpickle(head)
  storages = {t.storage.key: t.storage for t in tensors.values()}
  if any(t.storage != storages[t.storage.key] for t in tensors.values()):
    raise _BadFileError('damaged: one storage is given two lengths')
  if not isinstance(keys, list) or not _all_of(str, keys) or sorted(keys) != sorted(storages):
    raise _BadFileError('damaged: its list of storages is not that of its tensors')
  file.seek(head.tell())
  data = {key: _read_storage(file, storages[key].numel, file_bytes) for key in keys}
  if file.tell() != file_bytes:
    raise _BadFileError('damaged: it goes on after its last storage')
  return {name: _view(data[t.storage.key], t) for name, t in tensors.items()}


def _read_preamble(head: io.BytesIO) -> None:
  """Consumes the magic number, the version and the facts of the machine that wrote the file."""
  if head.getbuffer()[:4] == b'PK\x03\x04':
    raise _BadFileError("in PyTorch's newer zip format", _SAVE_LEGACY)
  if head.getbuffer()[:1] != b'\x80':
    raise _BadFileError("not in PyTorch's legacy format", _SAVE_LEGACY)
  if _unpickle(head) != MAGIC_NUMBER:
    raise _BadFileError("a pickle, but not in PyTorch's legacy format", _SAVE_LEGACY)
  if _unpickle(head) != PROTOCOL_VERSION:
    raise _BadFileError(f'its format is not version {PROTOCOL_VERSION}', _SAVE_LEGACY)
  machine = _unpickle(head)
  if not isinstance(machine, dict) or machine.get('little_endian') is not True:
    raise _BadFileError('not written by a little-endian machine', _SAVE_LEGACY)


def _read_storage(file: BinaryIO, numel: int, file_bytes: int) -> np.ndarray:
  """Reads one storage, f32[numel]; its length is checked before anything is allocated."""
  count = file.read(8)
  if len(count) == 8 and struct.unpack('<q', count)[0] != numel:
    raise _BadFileError('damaged: a storage is not as long as its tensor says')
  if len(count) < 8 or 4 * numel > file_bytes - file.tell():
    raise _BadFileError('cut short')
  values = file.read(4 * numel)
  if len(values) < 4 * numel:
    raise _BadFileError('became shorter while it was read')
  return np.frombuffer(values, '<f4')


def _view(storage: np.ndarray, tensor: _Tensor) -> np.ndarray:
  """The tensor as a view of its storage; `_tensor` has proved that it lies within."""
  strides = [4 * s for s in tensor.stride]
  return np.lib.stride_tricks.as_strided(
    storage[tensor.offset :], tensor.size, strides, writeable=False
  )


def _unpickle(stream: io.BytesIO) -> Any:
  """Evaluates the next pickle of the stream."""
  machine = _Machine()
  try:
    # Warning: to decode an odd escape, in an operation that step() would refuse, may raise one.
    for operation, argument, _ in pickletools.genops(stream):
      machine.step(operation.name, argument)
    return machine.stack[-1]
  except (ValueError, Warning) as error:
    read = stream.tell()
    if read == MAX_PICKLED_BYTES:
      problem = f'its pickles take more than {MAX_PICKLED_BYTES} bytes'
      raise _BadFileError(problem, _SAVE_LEGACY) from error
    cut = read == len(stream.getbuffer())
    raise _BadFileError('cut short' if cut else 'damaged: no readable pickle') from error
  except (IndexError, KeyError) as error:
    raise _BadFileError('damaged: a pickle misses an operand') from error


class _Machine:
  """The operations of a state dict's pickles, on a stack with marks and a memo as in Python's."""

  def __init__(self) -> None:
    self.stack: list[Any] = []
    self._below_mark: list[list[Any]] = []
    self._memo: dict[int, Any] = {}

  def step(self, operation: str, argument: Any) -> None:
    """Performs one operation, named as in `pickletools`."""
    stack = self.stack
    match operation:
      case 'PROTO' | 'FRAME' | 'STOP':
        pass
      case 'BININT' | 'BININT1' | 'BININT2' | 'LONG1' | 'BINUNICODE' | 'SHORT_BINUNICODE':
        stack.append(argument)
      case 'NONE':
        stack.append(None)
      case 'NEWTRUE' | 'NEWFALSE':
        stack.append(operation == 'NEWTRUE')
      case 'EMPTY_DICT':
        stack.append({})
      case 'EMPTY_LIST':
        stack.append([])
      case 'EMPTY_TUPLE':
        stack.append(())
      case 'TUPLE1' | 'TUPLE2' | 'TUPLE3':
        stack.append(tuple(self._pop(int(operation[-1]))))
      case 'MARK':
        self._below_mark.append(stack)
        self.stack = []
      case 'TUPLE':
        items = self._pop_to_mark()
        self.stack.append(tuple(items))
      case 'APPEND':
        item = stack.pop()
        _append(stack[-1], [item])
      case 'APPENDS':
        items = self._pop_to_mark()
        _append(self.stack[-1], items)
      case 'SETITEM':
        items = self._pop(2)
        _set_items(stack[-1], items)
      case 'SETITEMS':
        items = self._pop_to_mark()
        _set_items(self.stack[-1], items)
      case 'BINPUT' | 'LONG_BINPUT':
        self._memo[argument] = stack[-1]
      case 'MEMOIZE':
        self._memo[len(self._memo)] = stack[-1]
      case 'BINGET' | 'LONG_BINGET':
        stack.append(self._memo[argument])
      case 'GLOBAL':
        stack.append(_name(*argument.split(' ', 1)))
      case 'STACK_GLOBAL':
        stack.append(_name(*self._pop(2)))
      case 'BINPERSID':
        stack.append(_storage(stack.pop()))
      case 'REDUCE':
        stack.append(_reduce(*self._pop(2)))
      case 'BUILD':
        state = stack.pop()
        _check_state(stack[-1], state)
      case _:
        asked = f'{operation} {_quoted(argument)}' if isinstance(argument, str) else operation
        raise _BadFileError(f'refused: it asks for the pickle operation {asked}', _DISTRUST)

  def _pop(self, count: int) -> list[Any]:
    if count > len(self.stack):
      raise IndexError
    items = self.stack[-count:]
    del self.stack[-count:]
    return items

  def _pop_to_mark(self) -> list[Any]:
    items, self.stack = self.stack, self._below_mark.pop()
    return items


def _append(target: Any, items: list[Any]) -> None:
  if not isinstance(target, list):
    raise _refusal('an append to what is not a list')
  target.extend(items)


def _set_items(target: Any, items: list[Any]) -> None:
  """Sets alternating keys and values; only strings are keys, for a tuple's hash has no bound."""
  if not isinstance(target, dict) or len(items) % 2 or not _all_of(str, items[::2]):
    raise _refusal('items other than a dict of strings has')
  target.update(zip(items[::2], items[1::2], strict=True))


def _name(module: Any, name: Any) -> _Name:
  """The inert stand-in of what a file wants imported."""
  asked = f'{module}.{name}' if _all_of(str, (module, name)) else 'a name that is no text'
  known = {allowed.value: allowed for allowed in _Name}
  if asked not in known:
    raise _refusal(_quoted(asked))
  return known[asked]


def _reduce(function: Any, arguments: Any) -> Any:
  """What a call of one of the names makes: an empty dict or a tensor."""
  if function is _Name.ORDERED_DICT and arguments == ():
    return {}
  if function is _Name.REBUILD_TENSOR and isinstance(arguments, tuple) and len(arguments) == 6:
    return _tensor(*arguments)
  raise _refusal('a call that makes neither an empty dict nor a tensor')


def _check_state(target: Any, state: Any) -> None:
  """Lets pass, unused, the versions of the modules, the one attribute of a state dict."""
  if not isinstance(target, dict) or not isinstance(state, dict) or state.keys() != {'_metadata'}:
    raise _refusal('attributes that a state dict has not')


def _storage(identity: Any) -> _Storage:
  """The storage that a persistent id means: ('storage', type, key, device, numel, view)."""
  if not isinstance(identity, tuple) or len(identity) != 6:
    raise _refusal('a persistent object that is no storage')
  kind, dtype, key, device, numel, view = identity
  strings = _all_of(str, (kind, key, device)) and kind == 'storage'
  if not strings or dtype is not _Name.FLOAT_STORAGE or type(numel) is not int or view is not None:
    raise _refusal('a persistent object that is no whole storage of float32')
  if numel < 0:
    raise _refusal('a storage of negative length')
  return _Storage(key, numel)


def _tensor(
  storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, hooks: Any
) -> _Tensor:
  """A tensor that lies within its storage and uses no element twice, so a file bounds its size."""
  if type(storage) is not _Storage or type(requires_grad) is not bool or hooks != {}:
    raise _refusal('a tensor of an odd make')
  if not isinstance(size, tuple) or not isinstance(stride, tuple) or len(size) != len(stride):
    raise _refusal('a tensor of an odd shape')
  if not _all_of(int, (offset, *size, *stride)) or not 1 <= len(size) <= 4:
    raise _refusal('a tensor of an odd shape')
  end = offset + 1 + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
  if offset < 0 or min(size) < 1 or end > storage.numel:
    raise _refusal('a tensor that reaches out of its storage')
  if min(stride) < 1 or max(stride) > storage.numel:
    raise _refusal('a tensor of odd strides')
  spanned = 1
  for step, count in sorted(zip(stride, size, strict=True)):
    if count > 1 and step < spanned:
      raise _refusal('a tensor that overlaps itself')
    spanned += (count - 1) * step
  return _Tensor(storage, offset, size, stride)


def _refusal(asked: str) -> _BadFileError:
  return _BadFileError(f'refused: it asks for {asked}', _DISTRUST)


def _all_of(kind: type, values: Iterable[Any]) -> bool:
  """Whether all values are exactly of a kind: True is an int elsewhere, not here."""
  return all(type(value) is kind for value in values)


def _quoted(text: str) -> str:
  """Text from a file, fit for a line on a terminal."""
  return ascii(text[:80])[1:-1]


def _listed(names: Iterable[str]) -> str:
  """Names from a file, the first few of many."""
  first = sorted(names)
  more = f' and {len(first) - 4} more' if len(first) > 4 else ''
  return ', '.join(_quoted(name) for name in first[:4]) + more
