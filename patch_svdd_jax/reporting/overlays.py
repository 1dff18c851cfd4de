"""Pictures of a test set: each image beside its ground truth and its anomaly map, and an overview.

All pictures of a report share one colour scale, so that a normal image looks normal: a map that is
stretched to its own maximum glows wherever it is highest, defect or not.
"""

import collections
import functools
import hashlib
import math
import os
import pathlib
import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

from patch_svdd_jax.data import Split, images
from patch_svdd_jax.system import figures, files
from patch_svdd_jax.system.names import portable

if TYPE_CHECKING:
  from matplotlib.figure import Figure

_OPACITY = 0.9 * np.linspace(0, 1, 256) ** 0.85  # of the colours over the photograph
_OUTLINE = np.array((255, 0, 200), np.uint8)  # a hue that neither photographs nor the scale have
_OUTSIDE = 0.4  # of the brightness, outside of a region of interest
_PANE, _THUMBNAIL = 256, 144  # pixels, the longer side of an image
_SEAM = 4  # white pixels between images
_TYPES_ACROSS = 4
_LONGEST_TITLE = 36  # characters


class Panes(NamedTuple):
  """The views of one image, u8[h, w, 3]."""

  photo: np.ndarray
  outlined: np.ndarray
  heat: np.ndarray
  overlay: np.ndarray


def colour_limits(maps: np.ndarray) -> tuple[float, float]:
  """Returns one scale for all maps of a report: their median and 99.9 % quantile.

  Most pixels of most images are normal, so what is below the median needs no colour; and a few
  extreme pixels must not dim all others. Values beyond the limits take the colours of the ends.

  Args:
    maps: f32[N, H, W], all maps that will be drawn, finite, or f32[P], those of their pixels that
      count.

  Returns:
    (low, high).
  """
  low, high = np.quantile(maps, (0.5, 0.999))
  return float(low), float(high)


def colour(values: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
  """Returns the colours u8[..., 3] of map values f[...], which depend on nothing else."""
  colours: np.ndarray = _colours()[_levels(values, limits)]
  return colours


@functools.cache
def _colours() -> np.ndarray:
  """Returns the scale, u8[256, 3]."""
  import matplotlib  # a tenth of a second, which a server's start does without

  colours: np.ndarray = matplotlib.colormaps['inferno'](np.arange(256), bytes=True)[:, :3]
  return colours


def colour_layer(values: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
  """Returns the colours of map values f[...] with opacity, u8[..., 4], to lay over a photo."""
  opacity = np.rint(255 * _OPACITY[_levels(values, limits)]).astype(np.uint8)
  return np.concatenate([colour(values, limits), opacity[..., None]], axis=-1)


def write_overlays(
  folder: str | os.PathLike[str],
  split: Split,
  maps: np.ndarray,
  limits: tuple[float, float],
) -> None:
  """Writes a picture for each image: the image, its true outline, its map, and the map over it.

  They lie at the `picture_paths` below the folder, and each appears whole or not at all.

  Args:
    folder: where to write; created where missing.
    split: N images.
    maps: f32[N, H, W], anomaly maps.
    limits: (low, high) of the colour scale, see `colour_limits`.
  """
  _check(split, maps)
  paths = picture_paths(split.names)
  for index, (image, name, mask, anomaly_map) in enumerate(
    zip(split.images, split.names, split.masks, maps, strict=True)
  ):
    place = pathlib.Path(folder) / paths[name]
    write_overlay(place, image, mask, anomaly_map, limits, split.region_of(index))


def write_overlay(
  path: pathlib.Path,
  image: np.ndarray,
  mask: np.ndarray,
  anomaly_map: np.ndarray,
  limits: tuple[float, float],
  region: np.ndarray | None = None,
) -> None:
  """Writes this picture of one image.

  Args:
    path: where to write; its folder is made where it is missing.
    image: u8[H, W, 3].
    mask: bool[H, W], what is outlined: the truth, or what was found.
    anomaly_map: f32[H, W].
    limits: (low, high) of the colour scale.
    region: bool[H, W], of interest, see `panes_of`.
  """
  panes = panes_of(image, mask, anomaly_map, limits, _PANE, region)
  files.write(path, images.encode_png(_joined(panes, axis=1)))


def draw_overview(
  split: Split, maps: np.ndarray, scores: np.ndarray, limits: tuple[float, float]
) -> 'Figure':
  """Draws the whole test set in one picture: of each type the highest and the lowest score.

  Good images come first. Below each image, with its true outline, is its map laid over it.

  Args:
    split: N images, at least one.
    maps: f32[N, H, W], anomaly maps.
    scores: f[N], image scores.
    limits: (low, high) of the colour scale, see `colour_limits`.
  """
  from matplotlib import cm, colors
  from matplotlib.figure import Figure  # it draws without a screen

  _check(split, maps)
  types = sorted(set(split.defects), key=lambda name: (name != 'good', name))
  rows = math.ceil(len(types) / _TYPES_ACROSS)
  across = math.ceil(len(types) / rows)
  figure = Figure(figsize=(3.2 * across + 0.8, 3.6 * rows + 0.4), layout='constrained')
  grid = figure.subplots(rows, across, squeeze=False)
  for axes in grid.flat:
    axes.axis('off')
  for axes, name in zip(grid.flat, types, strict=False):
    members = sorted(np.flatnonzero(np.array(split.defects) == name), key=lambda i: -scores[i])
    shown = members[:1] + members[1:][-1:]
    panes = [
      panes_of(split.images[i], split.masks[i], maps[i], limits, _THUMBNAIL, split.region_of(i))
      for i in shown
    ]
    pairs = [_joined((each.outlined, each.overlay), axis=0) for each in panes]
    axes.imshow(_joined(pairs, axis=1), interpolation='none')
    places = zip(('highest', 'lowest'), shown, strict=False)
    captions = ', '.join(f'{place} {scores[i]:.3g}' for place, i in places)
    axes.set_title(f'{_drawable(name)}\n{captions}', size=9, loc='left', parse_math=False)
  scale = cm.ScalarMappable(colors.Normalize(*limits), 'inferno')
  figure.colorbar(scale, ax=grid, label='score')
  figure.supxlabel('above: image, ground truth outlined; below: anomaly map over it', size=9)
  return figure


def write_overview(path: str | os.PathLike[str], figure: 'Figure') -> None:
  """Writes what `draw_overview` drew, as a PNG; it appears whole or not at all."""
  with warnings.catch_warnings():
    warnings.filterwarnings('ignore', 'Glyph .* missing from font')  # of a type's name
    files.write(pathlib.Path(path), figures.encode(figure, 'png', dpi=100))


def _check(split: Split, maps: np.ndarray) -> None:
  if maps.shape != split.masks.shape:
    raise ValueError(f'maps {maps.shape} are not those of images {split.masks.shape}')


def _joined(pictures: Sequence[np.ndarray], axis: int) -> np.ndarray:
  """Returns pictures u8[h, w, 3] below (axis 0) or beside (axis 1) each other, with white seams."""
  seam = [(0, _SEAM if each == axis else 0) for each in range(3)]
  padded = [np.pad(each, seam, constant_values=255) for each in pictures[:-1]]
  return np.concatenate([*padded, pictures[-1]], axis)


def _drawable(text: str) -> str:
  """Returns the end of a text, without what cannot be drawn."""
  text = ''.join(each if each.isprintable() else '\ufffd' for each in text)
  return text if len(text) <= _LONGEST_TITLE else f'…{text[1 - _LONGEST_TITLE :]}'


def panes_of(
  image: np.ndarray,
  mask: np.ndarray,
  anomaly_map: np.ndarray,
  limits: tuple[float, float],
  longer: int,
  region: np.ndarray | None = None,
) -> Panes:
  """Returns the views of one image.

  Args:
    image: u8[H, W, 3], RGB.
    mask: bool[H, W], True where anomalous; all False where nothing is to be outlined.
    anomaly_map: f[H, W].
    limits: (low, high) of the colour scale, see `colour_limits`.
    longer: pixels of the longer side of each view.
    region: bool[H, W], of interest: the map is laid over a darker image outside; None: nowhere.
  """
  scale = longer / max(mask.shape)
  height, width = (max(1, round(scale * side)) for side in mask.shape)
  photo, truth, values = (
    np.asarray(Image.fromarray(array).resize((width, height), how))
    for array, how in (
      (image, Image.Resampling.BICUBIC),
      (mask, Image.Resampling.NEAREST),
      (np.asarray(anomaly_map, np.float32), Image.Resampling.BILINEAR),
    )
  )
  outline = _outline(truth, 2 if longer >= _PANE else 1)[..., None]
  grey, heat = photo.mean(-1, keepdims=True), colour(values, limits)
  if region is not None:
    inside = images.resize_mask(region, (height, width))
    grey *= np.where(inside, 1, _OUTSIDE)[..., None]
  overlay = grey + _OPACITY[_levels(values, limits)][..., None] * (heat - grey)
  return Panes(photo, np.where(outline, _OUTLINE, photo), heat, np.rint(overlay).astype(np.uint8))


def _levels(values: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
  """Returns map values as steps u8[...] of the colour scale."""
  low, high = limits
  scale = 255 / (high - low) if high > low else 0.0
  return np.rint(np.clip((values - low) * scale, 0, 255)).astype(np.uint8)


def _outline(mask: np.ndarray, width: int) -> np.ndarray:
  """Outlines the regions of bool[H, W], also along the edge of the image.

  It keeps a pixel's distance and covers no region: defects are often as thin as the line.
  """
  square = np.ones((3, 3))
  near = ndimage.binary_dilation(mask, square)
  line: np.ndarray = ndimage.binary_dilation(near, square, width)
  line[width:-width, width:-width] &= ~near[width:-width, width:-width]
  return line


def picture_paths(names: Iterable[str]) -> dict[str, pathlib.PurePosixPath]:
  """Returns where the picture of each image lies, by the image's name; no two share a file.

  It has the image's own path, as far as that is portable: test/hole/003.png, or 003.jpg.png for
  003.jpg. Where two would be one (a.jpg and a.jpg.png; A.png and a.png on a file system that
  ignores case), or a picture has the path of a folder, a digest of the image's name is part of it.
  """
  own = {name: _own_path(name) for name in names}
  taken = collections.Counter(map(files.ignoring_case, own.values()))
  folders = {files.ignoring_case(each) for path in set(own.values()) for each in path.parents}
  return {
    name: _marked_path(name) if taken[key] > 1 or key in folders else path
    for name, path in own.items()
    for key in [files.ignoring_case(path)]
  }


def possible_paths(name: str) -> tuple[pathlib.PurePosixPath, ...]:
  """Returns where the picture of an image may lie, whichever others there are."""
  return _own_path(name), _marked_path(name)


def _own_path(name: str) -> pathlib.PurePosixPath:
  path = pathlib.PurePosixPath(name)
  if path.is_absolute() or '..' in path.parts:
    raise ValueError(f'the image name {name!r} leads out of the folder of pictures')
  path = portable(path)
  return path if path.suffix == '.png' else path.with_name(files.fitting(path.name, '.png'))


def _marked_path(name: str) -> pathlib.PurePosixPath:
  path, digest = (
    portable(pathlib.PurePosixPath(name)),
    hashlib.sha256(os.fsencode(name)).hexdigest()[:16],
  )
  return path.with_name(files.fitting(f'{path.name}~{digest}', '.png'))
