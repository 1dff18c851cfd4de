"""The weights that the authors of Patch SVDD published, as parameters of the encoder."""

import os
from collections.abc import Iterable, Mapping

import numpy as np

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.models.torch_state_dict import FETCH_AGAIN, SAVE_LEGACY, quoted, read_state_dict


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
  if difference := _difference(tensors):
    raise UserError(f"{path}: not an encoder in the authors' form: {difference}; {SAVE_LEGACY}")
  if broken := [name for name, tensor in tensors.items() if not np.isfinite(tensor).all()]:
    raise UserError(f'{path}: NaN or infinity in {_listed(broken)}; {FETCH_AGAIN}')
  return {
    'level_32': {f'conv_{i}': _conv(tensors, f'enc.conv{i + 1}') for i in range(8)},
    'level_64': {f'conv_{i}': _conv(tensors, f'conv{i + 1}') for i in range(2)},
  }


def _difference(tensors: Mapping[str, np.ndarray]) -> str:
  """Describes how names or shapes differ from those of the authors' encoder; '' if not."""
  d = tensors['enc.conv8.bias'].size if 'enc.conv8.bias' in tensors else 64
  shapes = _shapes(d)
  if missing := shapes.keys() - tensors.keys():
    return f'it lacks {_listed(missing)}'
  if extra := tensors.keys() - shapes.keys():
    return f'it has also {_listed(extra)}'
  for name, shape in shapes.items():
    if tensors[name].shape != shape:
      return f'{name} has shape {tensors[name].shape}, not {shape}'
  return ''


def _shapes(d: int) -> dict[str, tuple[int, ...]]:
  """Returns the authors' names and shapes, kernels as OIHW, for embeddings of D dimensions."""
  widths = (3, 32, 64, 128, 128, 64, 32, 32, d)
  kernels = {f'enc.conv{i + 1}': (widths[i + 1], widths[i], 3, 3) for i in range(8)}
  kernels |= {'conv1': (128, d, 2, 2), 'conv2': (d, 128, 1, 1)}
  shapes: dict[str, tuple[int, ...]] = {}
  for name, shape in kernels.items():
    shapes |= {f'{name}.weight': shape, f'{name}.bias': shape[:1]}
  return shapes


def _conv(tensors: Mapping[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
  """Returns a convolution's parameters, with the kernel turned from OIHW to HWIO."""
  kernel = tensors[f'{name}.weight'].transpose(2, 3, 1, 0)
  return {
    'kernel': np.array(kernel, np.float32, order='C'),
    'bias': np.array(tensors[f'{name}.bias'], np.float32),
  }


def _listed(names: Iterable[str]) -> str:
  """Lists names from a file, the first few of many."""
  first = sorted(names)
  more = f' and {len(first) - 4} more' if len(first) > 4 else ''
  return ', '.join(quoted(name) for name in first[:4]) + more
