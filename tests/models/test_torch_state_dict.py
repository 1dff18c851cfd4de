"""State dicts as saved against what is read; hostile files against a canary."""

import collections
import copyreg
import io
import pathlib
import pickle
import struct
import sys
import tracemalloc
import types

import numpy as np
import pytest

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.models import torch_state_dict
from patch_svdd_jax.models.torch_state_dict import read_state_dict

PICKLES = ('magic', 'version', 'machine', 'state', 'keys')


# A writer of PyTorch's legacy format, without PyTorch: classes that go by its names.


class FloatStorage:
  """Pickled as the persistent id ('storage', torch.FloatStorage, key, device, length, view)."""

  def __init__(self, key, values, numel=None, identity=None):
    self.key = key
    self.values = np.asarray(values, '<f4').ravel()
    self.numel = self.values.size if numel is None else numel
    self.identity = identity or ('storage', FloatStorage, key, 'cuda:0', self.numel, None)


def rebuild(*arguments):
  raise AssertionError('only its name is pickled')


FloatStorage.__module__ = 'torch'
rebuild.__module__, rebuild.__qualname__ = 'torch._utils', '_rebuild_tensor_v2'


class Call:
  """Pickled as function(*arguments), then as the attributes `state`."""

  def __init__(self, function, *arguments, state=None):
    self.reduced = (function, arguments, state)

  def __reduce__(self):
    return self.reduced


class LegacyPickler(pickle.Pickler):
  def persistent_id(self, obj):
    return obj.identity if isinstance(obj, FloatStorage) else None


def dumps(value, protocol=2):
  """The pickle of a value that may hold storages, calls and PyTorch's names."""
  torch, utils = types.ModuleType('torch'), types.ModuleType('torch._utils')
  torch.FloatStorage, utils._rebuild_tensor_v2 = FloatStorage, rebuild
  stream = io.BytesIO()
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(sys.modules, 'torch', torch)
    patch.setitem(sys.modules, 'torch._utils', utils)
    LegacyPickler(stream, protocol).dump(value)
  return stream.getvalue()


def tensor(storage, size, stride, offset=0, requires_grad=False, hooks=None):
  hooks = collections.OrderedDict() if hooks is None else hooks
  return Call(rebuild, storage, offset, size, stride, requires_grad, hooks)


def state_dict(arrays):
  """The storages, and a state dict with PyTorch's attribute, of dense arrays."""
  storages = [FloatStorage(str(1000 + i), array) for i, array in enumerate(arrays.values())]
  state = collections.OrderedDict()
  for (name, array), storage in zip(arrays.items(), storages, strict=True):
    state[name] = tensor(storage, array.shape, tuple(s // 4 for s in array.strides))
  state._metadata = collections.OrderedDict({'': {'version': 1}})
  return storages, state


def parts(storages, state, protocol=2):
  """The five pickles and the data of a file, by name and in order."""
  machine = {'protocol_version': 1001, 'little_endian': True, 'type_sizes': {'int': 4}}
  stored = [struct.pack('<q', s.values.size) + s.values.tobytes() for s in storages]
  keys = [storage.key for storage in storages]
  values = (0x1950A86A20F9469CFC6C, 1001, machine, state, keys)
  pickled = [dumps(value, protocol) for value in values]
  return dict(zip(PICKLES, pickled, strict=True)) | {'data': b''.join(stored)}


def small_parts(protocol=2):
  arrays = {'a': np.arange(6, dtype=np.float32).reshape(2, 3), 'b': np.ones(2, np.float32)}
  return parts(*state_dict(arrays), protocol)


@pytest.fixture
def write(tmp_path):
  def write_file(content, **replaced):
    joined = content if isinstance(content, bytes) else b''.join((content | replaced).values())
    path = tmp_path / 'state_dict.pkl'
    path.write_bytes(joined)
    return path

  return write_file


def refusal(path):
  """The line with which a file is refused."""
  with pytest.raises(UserError) as caught:
    read_state_dict(path)
  line = str(caught.value)
  assert line.startswith(f'{path}: ')
  assert '; ' in line
  assert line.isprintable()
  return line


@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
def test_state_dict_is_what_was_saved(write, protocol):
  rng = np.random.default_rng(2)
  arrays = {f'layer{i}.weight': rng.normal(size=(i + 1, 3)).astype(np.float32) for i in range(200)}
  got = read_state_dict(write(parts(*state_dict(arrays), protocol)))
  assert list(got) == list(arrays)
  for name, array in arrays.items():
    np.testing.assert_array_equal(got[name], array)


def test_views_of_one_storage(write):
  shared = FloatStorage('1', np.arange(24))
  state = {
    't': tensor(shared, (4, 3), (1, 4), offset=12),
    'd': tensor(shared, (3,), (5,), offset=1),
  }
  got = read_state_dict(write(parts([shared], state)))
  np.testing.assert_array_equal(got['t'], np.arange(12, 24).reshape(3, 4).T)
  np.testing.assert_array_equal(got['d'], [1, 6, 11])
  with pytest.raises(ValueError, match='read-only'):
    got['t'][0, 0] = 1


# Hostile files. `canary` is a file that each payload would create.


def text(value):
  encoded = value.encode()
  return b'X' + struct.pack('<I', len(encoded)) + encoded


def payloads(canary):
  """Pickles that run a command when Python's unpickler loads them, and what they ask for."""
  shell = text(f"touch '{canary}'")
  code = text(f'__import__("pathlib").Path({str(canary)!r}).touch()')
  system = b'cos\nsystem\n'
  return {
    'reduce': (b'\x80\x02' + system + shell + b'\x85R.', 'os.system'),
    'eval': (b'\x80\x02c__builtin__\neval\n' + code + b'\x85R.', '__builtin__.eval'),
    'inst': (b'\x80\x02(' + shell + b'ios\nsystem\n.', 'INST os system'),
    'obj': (b'\x80\x02(' + system + shell + b'o.', 'os.system'),
    'stack_global': (b'\x80\x04\x8c\x02os\x8c\x06system\x93' + shell + b'\x85R.', 'os.system'),
    'dotted': (b'\x80\x04\x8c\x06shutil\x8c\x09os.system\x93' + shell + b'\x85R.', 'shutil.os.sys'),
    'memo': (b'\x80\x04\x8c\x06system\x94\x8c\x02osh\x00\x93' + shell + b'\x85R.', 'os.system'),
    'nested': (
      b'\x80\x02c__builtin__\ngetattr\nc__builtin__\n__import__\n'
      + (text('os') + b'\x85R' + text('system') + b'\x86R' + shell + b'\x85R.'),
      '__builtin__.getattr',
    ),
    'in_ordered_dict': (
      b'\x80\x02ccollections\nOrderedDict\n)R' + text('a') + system + shell + b'\x85Rs.',
      'os.system',
    ),
    'in_arguments': (
      b'\x80\x02ccollections\nOrderedDict\n(' + system + shell + b'\x85RtR.',
      'os.system',
    ),
    'extension': (b'\x80\x02\x82\xf0' + shell + b'\x85R.', 'operation EXT1'),
  }


@pytest.mark.parametrize('where', PICKLES)
@pytest.mark.parametrize('kind', payloads(pathlib.Path()))
def test_nothing_runs(write, tmp_path, kind, where):
  canary = tmp_path / 'canary'
  payload, asked = payloads(canary)[kind]
  copyreg.add_extension('os', 'system', 0xF0)
  try:
    try:
      pickle.loads(payload)
    except TypeError:  # what came back from the command cannot be used: it did run
      assert kind == 'in_arguments'
    assert canary.exists(), 'the payload does nothing, so the test would prove nothing'
    canary.unlink()
    line = refusal(write(small_parts(), **{where: payload}))
  finally:
    copyreg.remove_extension('os', 'system', 0xF0)
  assert not canary.exists()
  assert asked in line
  assert 'nothing of it was run' in line


@pytest.mark.parametrize(
  'name',
  [
    b'ctorch\nHalfStorage\n',
    b'ctorch._utils\n_rebuild_parameter\n',
    b'ctorch._utils\n_rebuild_tensor_v2.__globals__\n',
    b'ccollections\nOrderedDict.fromkeys\n',
    b'ccollections\nabc\n',
  ],
)
def test_other_names_of_the_same_modules(write, name):
  asked = name[1:-1].replace(b'\n', b'.').decode()
  assert asked in refusal(write(small_parts(), state=b'\x80\x02' + name + b'.'))


def test_refusal_is_one_printable_line(write):
  name = b'\x8c\x0aos\n\x1b[31m\x00x\x8c\x06system\x93.'
  assert r'os\n\x1b[31m\x00x.system' in refusal(write(small_parts(), magic=b'\x80\x04' + name))
  long = b'\x80\x02c' + b'a' * 10_000 + b'\nb\n.'
  assert len(refusal(write(small_parts(), magic=long)).split('asks for')[1]) < 200


STORAGE = FloatStorage('1', np.arange(8))
STORED = ('storage', FloatStorage, '1', 'cpu', 8, None)


def odd_storage(**changed):
  fields = ('kind', 'dtype', 'key', 'device', 'numel', 'view')
  identity = tuple((dict(zip(fields, STORED, strict=True)) | changed).values())
  return {'a': tensor(FloatStorage('1', np.arange(8), identity=identity), (8,), (1,))}


ODD_STATES = {
  'a persistent object that is no storage': {
    'id_not_a_tuple': FloatStorage('1', [0], identity='storage'),
    'id_short': FloatStorage('1', [0], identity=STORED[:5]),
    'id_long': FloatStorage('1', [0], identity=(*STORED, None)),
  },
  'no whole storage of float32': {
    'id_kind': odd_storage(kind='module'),
    'id_type_text': odd_storage(dtype='FloatStorage'),
    'id_type_other': odd_storage(dtype=collections.OrderedDict),
    'id_key_number': odd_storage(key=1),
    'id_key_tuple': odd_storage(key=('1',)),
    'id_device': odd_storage(device=None),
    'id_length_bool': odd_storage(numel=True),
    'id_view': odd_storage(view=('2', 0, 4)),
  },
  'the pickle operation BINFLOAT': {
    'id_length_float': odd_storage(numel=8.0),
    'float': 1.5,
  },
  'a storage of negative length': {
    'id_length_negative': odd_storage(numel=-8),
  },
  'a storage is not as long': {
    'id_length_huge': odd_storage(numel=2**62),
    'id_length_absurd': odd_storage(numel=2**500),
  },
  'one storage is given two lengths': {
    'two_lengths': {'a': tensor(STORAGE, (8,), (1,)), 'b': odd_storage(numel=9)['a']},
  },
  'reaches out of its storage': {
    'offset_negative': tensor(STORAGE, (2,), (1,), offset=-1),
    'offset_out': tensor(STORAGE, (2,), (1,), offset=7),
    'size_out': tensor(STORAGE, (3, 3), (3, 1)),
    'size_negative': tensor(STORAGE, (-1, -1), (1, 1)),
    'size_zero': tensor(STORAGE, (0, 4), (4, 1)),
  },
  'a tensor of an odd shape': {
    'offset_bool': tensor(STORAGE, (2,), (1,), offset=True),
    'size_list': tensor(STORAGE, [8], (1,)),
    'size_text': tensor(STORAGE, ('8',), (1,)),
    'size_none': tensor(STORAGE, None, None),
    'no_axes': tensor(STORAGE, (), ()),
    'many_axes': tensor(STORAGE, (1,) * 5, (1,) * 5),
    'axes_differ': tensor(STORAGE, (2, 2), (1,)),
  },
  'a tensor of odd strides': {
    'size_huge': tensor(STORAGE, (2**40, 2**40), (0, 0)),
    'stride_zero': tensor(STORAGE, (2,), (0,)),
    'stride_negative': tensor(STORAGE, (2,), (-1,), offset=4),
    'stride_huge': tensor(STORAGE, (1,), (2**70,)),
  },
  'overlaps itself': {
    'overlap': tensor(STORAGE, (3, 3), (1, 1)),
    'partial_overlap': tensor(STORAGE, (2, 3), (2, 1)),
  },
  'a tensor of an odd make': {
    'requires_grad': tensor(STORAGE, (2,), (1,), requires_grad=1),
    'hooks': tensor(STORAGE, (2,), (1,), hooks={'a': 1}),
    'storage_is_tensor': tensor(tensor(STORAGE, (2,), (1,)), (2,), (1,)),
    'storage_is_text': tensor('1', (2,), (1,)),
  },
  'neither an empty dict nor a tensor': {
    'tensor_of_nothing': Call(rebuild),
    'tensor_of_more': Call(rebuild, STORAGE, 0, (2,), (1,), False, {}, {}),
    'ordered_dict_of_items': Call(collections.OrderedDict, [('a', 1)]),
    'call_of_storage_type': Call(FloatStorage),
  },
  'attributes that a state dict has not': {
    'attributes_of_tensor': Call(rebuild, *tensor(STORAGE, (2,), (1,)).reduced[1], state={'a': 1}),
    'setstate': Call(collections.OrderedDict, state={'__setstate__': rebuild}),
    'dict': Call(collections.OrderedDict, state={'__dict__': {}, '_metadata': {}}),
    'slots': Call(collections.OrderedDict, state=(None, {'_metadata': {}})),
  },
  'items other than': {
    'key_number': {1: tensor(STORAGE, (8,), (1,))},
    'key_tuple': {('a',): tensor(STORAGE, (8,), (1,))},
  },
  'something else than a state dict': {
    'value_number': {'a': 1},
    'value_storage': {'a': STORAGE},
    'value_name': {'a': FloatStorage},
    'a_list': [tensor(STORAGE, (8,), (1,))],
    'a_tensor': tensor(STORAGE, (8,), (1,)),
    'a_name': FloatStorage,
    'none': None,
  },
  '_codecs.encode': {
    'bytes': b'abc',
  },
  '__builtin__.set': {
    'set': {1, 2},
  },
}


def bomb_states():
  """Pickles of a few bytes, or some thousand, that would take memory, time or stack without end."""
  doubled = (
    b'('.join([b''] * 2) + b'K\x01q\x00' + b''.join(b'h\x00h\x00\x86q\x00' for _ in range(99))
  )
  return {
    'memo': b'Nr\xff\xff\xff\xff.',
    'text': b'X\xff\xff\xff\xffabc.',
    'bytes_8': b'\x8e' + struct.pack('<Q', 2**62) + b'abc.',
    'bytearray': b'\x96' + struct.pack('<Q', 2**40) + b'abc.',
    'integer': b'\x8b\xff\xff\xff\x7fabc.',
    'digits': b'I' + b'9' * 60_000 + b'\n.',
    'frame': b'\x95' + struct.pack('<Q', 2**62) + b'}.',
    'hash': b'}' + doubled + b'Ns.',
    'hash_of_arguments': b'ccollections\nOrderedDict\n' + doubled + b'\x85R.',
    'equality': b'ctorch._utils\n_rebuild_tensor_v2\n' + doubled + b'\x85R.',
    'deep_tuple': b'}N' + b'\x85' * 60_000 + b'Ns.',
    'deep_list': b']' + b']' * 30_000 + b'a' * 30_000 + b'.',
    'own_item': b']q\x00h\x00a.',
    'marks': b'(' * 60_000 + b'.',
    'endless': b'}' * 200_000 + b'.',
    'escape': b"S'\\q'\n.",
    'wrong_escape': b"S'\\x'\n.",
    'surrogate': b'X\x03\x00\x00\x00\xed\xa0\x80.',
    'underflow': b'\x85.',
    'no_mark': b't.',
    'no_memo': b'h\x07.',
    'nothing': b'.',
    'persistent_text': b'Pos.system\n.',
    'name_of_numbers': b'K\x01K\x02\x93.',
  }


def refused_within_bounds(path, name):
  tracemalloc.start()
  try:
    line = refusal(path)
    assert tracemalloc.get_traced_memory()[1] < 8e6, name
    return line
  finally:
    tracemalloc.stop()


@pytest.mark.parametrize(
  ('reason', 'name'), [(reason, name) for reason, states in ODD_STATES.items() for name in states]
)
def test_odd_state(write, reason, name):
  pickled = dumps(ODD_STATES[reason][name])
  assert reason in refused_within_bounds(write(parts([STORAGE], {}), state=pickled), name)


@pytest.mark.parametrize('where', ['magic', 'state'])
def test_bombs(write, where):
  for name, operations in bomb_states().items():
    refused_within_bounds(write(small_parts(), **{where: b'\x80\x04' + operations}), name)


def test_storage_of_absurd_length(write):
  for numel in (2**40, 2**61, 2**63 - 1):
    state = {'a': tensor(FloatStorage('1', [], numel), (2,), (1,))}
    whole = parts([FloatStorage('1', [1, 2])], state)
    whole['data'] = struct.pack('<q', numel) + bytes(8)
    assert 'cut short' in refusal(write(whole))
  whole['data'] = struct.pack('<q', -1) + bytes(8)
  assert 'damaged' in refusal(write(whole))


# Damaged files and other files.


def test_cut_anywhere(write):
  content = b''.join(small_parts().values())
  assert len(read_state_dict(write(content))) == 2
  for end in range(len(content)):
    refusal(write(content[:end]))
  assert 'goes on' in refusal(write(content + b'\0'))


def test_file_that_shrinks(write, monkeypatch):
  content = b''.join(small_parts().values())
  path = write(content[:-1])
  monkeypatch.setattr(
    torch_state_dict.os, 'fstat', lambda _: types.SimpleNamespace(st_size=len(content))
  )
  assert 'shorter while it was read' in refusal(path)


def test_file_that_cannot_be_opened(write, monkeypatch):
  def refuse(*_):
    raise PermissionError(13, 'Permission denied')

  path = write(small_parts())
  monkeypatch.setattr(pathlib.Path, 'open', refuse)
  assert 'cannot be read (Permission denied)' in refusal(path)


def test_wrong_keys(write):
  for keys in (['1000'], ['1000', '1000'], ['1000', '1001', '1001'], ['1000', 1001], '10', None):
    assert 'list of storages' in refusal(write(small_parts(), keys=dumps(keys)))


def test_wrong_preamble(write):
  assert 'legacy format' in refusal(write(small_parts(), magic=dumps(1)))
  assert 'version 1001' in refusal(write(small_parts(), version=dumps(1000)))
  for machine in ({'little_endian': False}, {}, None, [1]):
    assert 'little-endian' in refusal(write(small_parts(), machine=dumps(machine)))


def test_mutated_bytes(write):
  """Whatever is flipped, the file is refused in a line or read in full."""
  rng = np.random.default_rng(3)
  content = np.frombuffer(b''.join(small_parts().values()), np.uint8)
  refused = []
  for _ in range(500):
    mutated = content.copy()
    where = rng.integers(0, len(content), rng.integers(1, 4))
    mutated[where] = rng.integers(0, 256, len(where))
    try:
      tensors = read_state_dict(write(mutated.tobytes()))
    except UserError as error:
      refused.append(str(error))
    else:
      assert all(array.size <= 8 for array in tensors.values())
  assert 150 < len(refused) < 500
  assert all(line.isprintable() for line in refused)


def test_other_files(write, tmp_path):
  assert 'zip format' in refusal(write(b'PK\x03\x04' + bytes(100)))
  for content in (b'', b'<!DOCTYPE html>', b'\x89PNG\r\n\x1a\n', bytes(1000)):
    assert 'legacy format' in refusal(write(content))
  for value in ({'a': 1}, [1.5], 'text', None):
    line = refusal(write(pickle.dumps(value, 4)))
    assert 'legacy format' in line or 'refused' in line
  assert 'no such file' in refusal(tmp_path / 'missing.pkl')
  assert 'no such file' in refusal(tmp_path)
