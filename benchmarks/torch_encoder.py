"""The encoder, its training step and its dense embedding in PyTorch, to compare speed with.

Any `Architecture` is built. Images and patches come as NHWC, PyTorch sees the same memory as
channels-last tensors, the faster of its layouts on a CPU. It gets every processor.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from patch_svdd_jax.benchmarking import machine
from patch_svdd_jax.models import geometry
from patch_svdd_jax.models.architecture import Architecture
from patch_svdd_jax.models.encoder import LEAK, POSITIONS, PositionClassifier, fine_strides

# Patches of each scale, f32[4B, K, K, 3]: the first and second of position pairs, then of neighbour
# pairs; and i64[B], the positions.
Batch = Mapping[int, tuple[np.ndarray, np.ndarray]]


def make_encoder(architecture: Architecture) -> Any:
  """Returns a torch.nn.ModuleDict of convolutions for each level, with PyTorch's initial weights.

  Names are those of our parameters: ['level_32']['conv_0'], ...
  """
  import torch

  torch.set_num_threads(machine.cores())
  d, middle = architecture.embed_dim, architecture.merge_features
  base, *merging = architecture.levels
  inputs = (3, *(layer.features for layer in architecture.base))
  levels = {
    f'level_{base}': [
      torch.nn.Conv2d(channels, layer.features, layer.kernel)
      for channels, layer in zip(inputs, architecture.base, strict=False)
    ]
  }
  for k in merging:
    levels[f'level_{k}'] = [torch.nn.Conv2d(d, middle, 2), torch.nn.Conv2d(middle, d, 1)]
  return torch.nn.ModuleDict(
    {
      level: torch.nn.ModuleDict({f'conv_{index}': conv for index, conv in enumerate(layers)})
      for level, layers in levels.items()
    }
  ).to(memory_format=torch.channels_last)


def copy_params(params: Mapping[str, Any], encoder: Any) -> None:
  """Copies our encoder's parameters, kernels as HWIO, into PyTorch's."""
  import torch

  with torch.no_grad():
    for level, layers in encoder.items():
      for name, conv in layers.items():
        kernel, bias = (np.array(params[level][name][part]) for part in ('kernel', 'bias'))
        conv.weight.copy_(torch.from_numpy(kernel).permute(3, 2, 0, 1))
        conv.bias.copy_(torch.from_numpy(bias))


def apply_level(
  layers: Any, x: Any, strides: tuple[int, ...], dilations: tuple[int, ...] | None = None
) -> Any:
  """Returns convolutions with leaky ReLU between and tanh last: [B, C, H, W] to [B, F, H', W']."""
  from torch.nn import functional

  last = len(strides) - 1
  for index, (conv, stride) in enumerate(zip(layers.values(), strides, strict=True)):
    dilation = dilations[index] if dilations else 1
    x = functional.conv2d(x, conv.weight, conv.bias, stride, dilation=dilation)
    x = functional.leaky_relu(x, LEAK) if index < last else x.tanh()
  return x


def embed_patches(architecture: Architecture, encoder: Any, patches: Any) -> Any:
  """Embeds patches one by one: a tensor [B, K, K, 3] to [B, D]."""
  batch, size = patches.shape[:2]
  base = architecture.receptive_field
  side = size // base
  quadrants = patches.reshape(batch, side, base, side, base, 3).swapaxes(2, 3)
  x = quadrants.reshape(-1, base, base, 3).permute(0, 3, 1, 2)
  x = apply_level(encoder[f'level_{base}'], x, tuple(layer.stride for layer in architecture.base))
  grid = x.reshape(batch, side, side, -1).permute(0, 3, 1, 2)
  for k in architecture.levels[1 : architecture.levels.index(size) + 1]:
    grid = apply_level(encoder[f'level_{k}'], grid, (2, 1))
  return grid[:, :, 0, 0]


def embed_images(
  architecture: Architecture, encoder: Any, images: Any, strides: Mapping[int, int]
) -> dict[int, Any]:
  """Embeds every patch: a tensor [B, H, W, 3] to [B, D, rows, columns] for each K, as ours do."""
  base = architecture.receptive_field
  fine = fine_strides(architecture, strides)
  maps: dict[int, Any] = {}
  for below, k in zip((None, *architecture.levels), architecture.levels, strict=False):
    if k not in fine:
      continue
    layers = encoder[f'level_{k}']
    if below is None:
      *hidden, last = (layer.stride for layer in architecture.base)
      thinned = last * (fine[base] // architecture.native_stride)
      grid = apply_level(layers, images.permute(0, 3, 1, 2), (*hidden, thinned))
    else:
      dilation = below // fine[below]
      grid = apply_level(layers, maps[below], (fine[k] // fine[below], 1), (dilation, 1))
    rows, columns = geometry.grid_shape(tuple(images.shape[1:3]), k, fine[k])
    maps[k] = grid[:, :, :rows, :columns]
  return {
    k: maps[k][:, :, :: stride // fine[k], :: stride // fine[k]] for k, stride in strides.items()
  }


def make_embed(
  architecture: Architecture, strides: Mapping[int, int], params: Mapping[str, Any] | None = None
) -> Callable[[np.ndarray], dict[int, np.ndarray]]:
  """Returns embed(images f32[B, H, W, 3]) -> f32[B, rows, columns, D] for each K.

  Args:
    architecture: the encoder's.
    strides: for each receptive field that is wanted, its stride in pixels.
    params: our encoder's, where its embeddings are wanted; the time does not depend on them.
  """
  import torch

  encoder = make_encoder(architecture)
  if params is not None:
    copy_params(params, encoder)

  def embed(images: np.ndarray) -> dict[int, np.ndarray]:
    with torch.inference_mode():
      grids = embed_images(architecture, encoder, torch.from_numpy(images), strides)
      return {k: grid.permute(0, 2, 3, 1).numpy() for k, grid in grids.items()}

  return embed


def make_classifier(embed_dim: int) -> Any:
  """Returns the position classifier, a torch.nn.ModuleDict; the last layer is the authors'."""
  import torch

  hidden = PositionClassifier.hidden
  layers = {
    'dense_0': torch.nn.Linear(embed_dim, hidden),
    'dense_1': torch.nn.Linear(hidden, hidden),
    'last': torch.nn.Linear(hidden, POSITIONS),
  }
  return torch.nn.ModuleDict(layers)


def classify(classifier: Any, first: Any, second: Any) -> Any:
  """Returns logits [B, 8]; the last weight is normalised over outputs and gets no gradient."""
  from torch.nn import functional

  x = first - second
  for name in ('dense_0', 'dense_1'):
    x = functional.leaky_relu(classifier[name](x), LEAK)
  last = classifier['last']
  weight = last.weight.detach()
  return functional.linear(x, weight / weight.norm(dim=0, keepdim=True), last.bias)


def make_step(
  architecture: Architecture, *, svdd_weight: float, learning_rate: float
) -> Callable[[Batch], float]:
  """Returns step(batch) -> loss: forward of all scales, backward, and Adam.

  The loss is the sum over scales of the position task's cross entropy and `svdd_weight` times the
  mean distance of neighbours.
  """
  import torch
  from torch.nn import functional

  encoder = make_encoder(architecture)
  classifiers = torch.nn.ModuleDict(
    {str(k): make_classifier(architecture.embed_dim) for k in architecture.scales}
  )
  learning = [*encoder.parameters(), *classifiers.parameters()]
  adam = torch.optim.Adam(learning, lr=learning_rate)

  def scale_loss(k: int, patches: np.ndarray, positions: np.ndarray) -> Any:
    z = embed_patches(architecture, encoder, torch.from_numpy(patches))
    first, second, anchor, neighbour = z.chunk(4)
    logits = classify(classifiers[str(k)], first, second)
    position = functional.cross_entropy(logits, torch.from_numpy(positions))
    return position + svdd_weight * (anchor - neighbour).norm(dim=1).mean()

  def step(batch: Batch) -> float:
    adam.zero_grad()
    losses = [scale_loss(k, *arrays) for k, arrays in batch.items()]
    loss = torch.stack(losses).sum()
    loss.backward()
    adam.step()
    return float(loss.item())

  return step
