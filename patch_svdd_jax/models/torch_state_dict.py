"""State dicts in PyTorch's legacy (pre-zip) format, read without PyTorch and without trust.

Such a file is five pickles (a magic number, a version, facts of the machine, the dict itself, the
keys of its storages), then for each key an int64 count and as many little-endian float32.

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
from collections.abc import Callable, Iterable
from typing import Any, BinaryIO

import numpy as np

from patch_svdd_jax.errors import UserError

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
PROTOCOL_VERSION = 1001
# The pickles of the authors' files take 3,040 bytes; their length does not depend on D.
MAX_PICKLED_BYTES = 2**16

FETCH_AGAIN = 'fetch the file again'
SAVE_LEGACY = (
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

  def __init__(self, problem: str, advice: str = FETCH_AGAIN):
    super().__init__(f'{problem}; {advice}')


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
    raise UserError(f'{path}: no such file; {SAVE_LEGACY}')
  try:
    with pathlib.Path(path).open('rb') as file:
      return _read(file, os.fstat(file.fileno()).st_size)
  except OSError as error:
    raise UserError(f'{path}: cannot be read ({error.strerror}); {FETCH_AGAIN}') from error
  except _BadFileError as error:
    raise UserError(f'{path}: {error}') from error


def quoted(text: str) -> str:
  """Returns text from a file, made fit for a line on a terminal."""
  return ascii(text[:80])[1:-1]


def _read(file: BinaryIO, file_bytes: int) -> dict[str, np.ndarray]:
  """Reads the pickles, then the storages."""
  head = io.BytesIO(file.read(MAX_PICKLED_BYTES))
  _read_preamble(head)
  tensors = _read_tensors(head)
  storages = _read_keys(head, tensors.values())
  file.seek(head.tell())
  data = {storage.key: _read_storage(file, storage.numel, file_bytes) for storage in storages}
  if file.tell() != file_bytes:
    raise _BadFileError('damaged: it goes on after its last storage')
  return {name: _view(data[t.storage.key], t) for name, t in tensors.items()}


def _read_preamble(head: io.BytesIO) -> None:
  """Consumes the magic number, the version and the facts of the machine that wrote the file."""
  if head.getbuffer()[:4] == b'PK\x03\x04':
    raise _BadFileError("in PyTorch's newer zip format", SAVE_LEGACY)
  if head.getbuffer()[:1] != b'\x80':
    raise _BadFileError("not in PyTorch's legacy format", SAVE_LEGACY)
  if _unpickle(head) != MAGIC_NUMBER:
    raise _BadFileError("a pickle, but not in PyTorch's legacy format", SAVE_LEGACY)
  if _unpickle(head) != PROTOCOL_VERSION:
    raise _BadFileError(f'its format is not version {PROTOCOL_VERSION}', SAVE_LEGACY)
  machine = _unpickle(head)
  if not isinstance(machine, dict) or machine.get('little_endian') is not True:
    raise _BadFileError('not written by a little-endian machine', SAVE_LEGACY)


def _read_tensors(head: io.BytesIO) -> dict[str, _Tensor]:
  """Reads the state dict, its tensors still without values."""
  tensors = _unpickle(head)
  if not isinstance(tensors, dict) or not _all_of(_Tensor, tensors.values()):
    raise _BadFileError('holds something else than a state dict of tensors', SAVE_LEGACY)
  return tensors


def _read_keys(head: io.BytesIO, tensors: Iterable[_Tensor]) -> list[_Storage]:
  """Reads in which order the storages of the tensors follow."""
  keys = _unpickle(head)
  different = {tensor.storage for tensor in tensors}
  storages = {storage.key: storage for storage in different}
  if len(storages) < len(different):
    raise _BadFileError('damaged: one storage is given two lengths')
  if not isinstance(keys, list) or not _all_of(str, keys) or sorted(keys) != sorted(storages):
    raise _BadFileError('damaged: its list of storages is not that of its tensors')
  return [storages[key] for key in keys]


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
  """Returns the tensor as a view of its storage; `_check_layout` has proved that it lies within."""
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
      raise _BadFileError(problem, SAVE_LEGACY) from error
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
    match operation:
      case 'PROTO' | 'FRAME' | 'STOP':
        pass
      case 'BININT' | 'BININT1' | 'BININT2' | 'LONG1' | 'BINUNICODE' | 'SHORT_BINUNICODE':
        self.stack.append(argument)
      case 'GLOBAL':
        self.stack.append(_name(*argument.split(' ', 1)))
      case 'MARK':
        self._below_mark.append(self.stack)
        self.stack = []
      case 'BINPUT' | 'LONG_BINPUT':
        self._memo[argument] = self.stack[-1]
      case 'MEMOIZE':
        self._memo[len(self._memo)] = self.stack[-1]
      case 'BINGET' | 'LONG_BINGET':
        self.stack.append(self._memo[argument])
      case _ if operation in _FUNCTIONS:
        function, count = _FUNCTIONS[operation]
        self.stack.append(function(*self._pop(count)))
      case _ if operation in _FUNCTIONS_TO_MARK:
        function, count = _FUNCTIONS_TO_MARK[operation]
        items, self.stack = self.stack, self._below_mark.pop()
        self.stack.append(function(*self._pop(count), *items))
      case _:
        asked = f'{operation} {quoted(argument)}' if isinstance(argument, str) else operation
        raise _refusal(f'the pickle operation {asked}')

  def _pop(self, count: int) -> list[Any]:
    start = len(self.stack) - count
    if start < 0:
      raise IndexError
    items = self.stack[start:]
    del self.stack[start:]
    return items


def _append(target: Any, *items: Any) -> list[Any]:
  if not isinstance(target, list):
    raise _refusal('an append to what is not a list')
  target.extend(items)
  return target


def _set_items(target: Any, *items: Any) -> dict[str, Any]:
  """Sets alternating keys and values; only strings are keys, for a tuple's hash has no bound."""
  if not isinstance(target, dict) or len(items) % 2 or not _all_of(str, items[::2]):
    raise _refusal('items other than a dict of strings has')
  target.update(zip(items[::2], items[1::2], strict=True))
  return target


def _name(module: Any, name: Any) -> _Name:
  """Returns the inert stand-in of what a file wants imported."""
  asked = f'{module}.{name}' if _all_of(str, (module, name)) else 'a name that is no text'
  known = {allowed.value: allowed for allowed in _Name}
  if asked not in known:
    raise _refusal(quoted(asked))
  return known[asked]


def _reduce(function: Any, arguments: Any) -> Any:
  """Returns the result of calling one of the names: an empty dict or a tensor."""
  if function is _Name.ORDERED_DICT and arguments == ():
    return {}
  if function is _Name.REBUILD_TENSOR and isinstance(arguments, tuple) and len(arguments) == 6:
    return _tensor(*arguments)
  raise _refusal('a call that makes neither an empty dict nor a tensor')


def _build(target: Any, state: Any) -> dict[str, Any]:
  """Lets pass, unused, the versions of the modules, the one attribute of a state dict."""
  if not isinstance(target, dict) or not isinstance(state, dict) or state.keys() != {'_metadata'}:
    raise _refusal('attributes that a state dict has not')
  return target


def _storage(identity: Any) -> _Storage:
  """Returns the storage that a persistent id means: ('storage', type, key, device, numel, view)."""
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
  """Returns a tensor of a layout that numpy may be trusted with."""
  if type(storage) is not _Storage or type(requires_grad) is not bool or hooks != {}:
    raise _refusal('a tensor of an odd make')
  shaped = _all_of(tuple, (size, stride)) and 1 <= len(size) == len(stride) <= 4
  if not shaped or not _all_of(int, (offset, *size, *stride)):
    raise _refusal('a tensor of an odd shape')
  tensor = _Tensor(storage, offset, size, stride)
  _check_layout(tensor)
  return tensor


def _check_layout(tensor: _Tensor) -> None:
  """Raises unless it lies within its storage and uses no element twice: a file bounds its size."""
  axes = sorted(zip(tensor.stride, tensor.size, strict=True))
  end = tensor.offset + 1 + sum((count - 1) * step for step, count in axes)
  if tensor.offset < 0 or min(tensor.size) < 1 or end > tensor.storage.numel:
    raise _refusal('a tensor that reaches out of its storage')
  if min(tensor.stride) < 1 or max(tensor.stride) > tensor.storage.numel:
    raise _refusal('a tensor of odd strides')
  spanned = 1
  for step, count in axes:
    if count > 1 and step < spanned:
      raise _refusal('a tensor that overlaps itself')
    spanned += (count - 1) * step


def _refusal(asked: str) -> _BadFileError:
  return _BadFileError(f'refused: it asks for {asked}', _DISTRUST)


def _all_of(kind: type, values: Iterable[Any]) -> bool:
  """Returns whether all values are exactly of a kind: True is an int elsewhere, not here."""
  return all(type(value) is kind for value in values)


# The operations that push what a function makes of so many operands popped from the stack.
_FUNCTIONS: dict[str, tuple[Callable[..., Any], int]] = {
  'NONE': (lambda: None, 0),
  'NEWTRUE': (lambda: True, 0),
  'NEWFALSE': (lambda: False, 0),
  'EMPTY_DICT': (dict, 0),
  'EMPTY_LIST': (list, 0),
  'EMPTY_TUPLE': (tuple, 0),
  'TUPLE1': (lambda *items: items, 1),
  'TUPLE2': (lambda *items: items, 2),
  'TUPLE3': (lambda *items: items, 3),
  'APPEND': (_append, 2),
  'SETITEM': (_set_items, 3),
  'STACK_GLOBAL': (_name, 2),
  'BINPERSID': (_storage, 1),
  'REDUCE': (_reduce, 2),
  'BUILD': (_build, 2),
}
# Those whose operands are these and all above the last mark.
_FUNCTIONS_TO_MARK: dict[str, tuple[Callable[..., Any], int]] = {
  'TUPLE': (lambda *items: items, 0),
  'APPENDS': (_append, 1),
  'SETITEMS': (_set_items, 1),
}
