"""Scoring by the authors' weights in NumPy's float64: encoder, distances, maps and their areas.

It shares nothing with the package but the formulas.
"""

import numpy as np
from scipy import stats


def convolve(x, layer, stride=1, dilation=1):
  """[H, W, C] with a kernel [k, k, C, F] and a bias [F], tap by tap."""
  kernel, bias = (np.asarray(layer[name], np.float64) for name in ('kernel', 'bias'))
  reach = (len(kernel) - 1) * dilation
  rows, columns = ((extent - reach - 1) // stride + 1 for extent in x.shape[:2])
  found = np.zeros((rows, columns, kernel.shape[-1])) + bias
  for i, j in np.ndindex(kernel.shape[:2]):
    top, left = i * dilation, j * dilation
    seen = x[top : top + (rows - 1) * stride + 1 : stride, left:][:, : (columns - 1) * stride + 1]
    found += seen[:, ::stride] @ kernel[i, j]
  return found


def leaky(x):
  return np.where(x > 0, x, 0.1 * x)


def embed(params, mean, image):
  """The embeddings of an image, by receptive field: 64 every 16 pixels, 32 every 4."""
  x, layers = (image.astype(np.float64) - mean) / 255, params['level_32']
  for index in range(8):
    x = convolve(x, layers[f'conv_{index}'], stride=2 if index == 0 else 1)
    x = np.tanh(x) if index == 7 else leaky(x)
  # Every 2 pixels: the quadrants of a patch of 64 are 32 pixels apart.
  quadrants, layers = x[::8, ::8], params['level_64']
  hidden = leaky(convolve(quadrants, layers['conv_0'], dilation=2))
  return {64: np.tanh(convolve(hidden, layers['conv_1'])), 32: x[::2, ::2]}


def nearest(queries, rows):
  """The distance of each of [Q, D] to the nearest of [N, D]."""
  centre = rows.mean(axis=0)
  queries, rows = queries - centre, rows - centre
  # |q - r|^2 - |q|^2 as one product, of (q, 1) with (-2 r, |r|^2).
  columns = np.concatenate([-2 * rows.T, (rows**2).sum(axis=1)[None]])
  found = []
  for block in np.array_split(queries, -(-len(queries) // 512)):
    less = (np.pad(block, ((0, 0), (0, 1)), constant_values=1) @ columns).min(axis=1)
    found.append(less + (block**2).sum(axis=1))
  return np.sqrt(np.maximum(np.concatenate(found), 0))


def spread(distances, size, k, stride):
  """The map [H, W] of patches' distances: of each pixel, the mean of the patches that cover it."""
  total, count = np.zeros(size), np.zeros(size)
  for i, j in np.ndindex(distances.shape):
    window = np.s_[i * stride : i * stride + k, j * stride : j * stride + k]
    total[window] += distances[i, j]
    count[window] += 1
  return total / count


def auroc(scores, labels):
  """By the ranks of Mann and Whitney, ties in the middle."""
  ranks = stats.rankdata(scores)
  positive, negative = labels.sum(), (~labels).sum()
  return float((ranks[labels].sum() - positive * (positive + 1) / 2) / (positive * negative))


def figures(params, normal, images, labels, masks):
  """Image and pixel AUROC of each map, of images u8[N, H, W, 3] beside normal ones."""
  mean, size = normal.mean(axis=0, dtype=np.float64), images.shape[1:3]
  bank = [embed(params, mean, image) for image in normal]
  queries = [embed(params, mean, image) for image in images]
  maps = {}
  for k, stride in ((64, 16), (32, 4)):
    rows = np.concatenate([each[k].reshape(-1, 64) for each in bank])
    grids = np.stack([each[k] for each in queries])
    distances = nearest(grids.reshape(-1, 64), rows).reshape(grids.shape[:3])
    maps[f'k{k}'] = np.stack([spread(each, size, k, stride) for each in distances])
  maps |= {'sum': maps['k64'] + maps['k32'], 'product': maps['k64'] * maps['k32']}
  return {
    name: (auroc(each.max(axis=(1, 2)), labels), auroc(each.ravel(), masks.ravel()))
    for name, each in maps.items()
  }
