"""Pictures of a test set: each image beside its ground truth and its anomaly map, and an overview.

All pictures of a report share one colour scale, so that a normal image looks normal: a map that is
stretched to its own maximum glows wherever it is highest, defect or not.
"""

import functools
import io
import os
import pathlib
from typing import NamedTuple

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from patch_svdd_jax.data import Split
from patch_svdd_jax.system import files

_COLOURS = matplotlib.colormaps['inferno'](np.arange(256), bytes=True)[:, :3]
_OPACITY = 0.9 * np.linspace(0, 1, 256) ** 0.85  # of the colours over the photograph
_OUTLINE = np.array((255, 0, 200), np.uint8)  # a hue that neither photographs nor the scale have
_PAPER, _INK, _FAINT = (255, 255, 255), (24, 24, 27), (113, 113, 122)
_PANE, _THUMBNAIL = 256, 144  # pixels, the longer side of an image
_LEAST_WIDTH = 120  # pixels, room for the caption of a narrow image
_MARGIN, _GAP, _SEAM = 16, 8, 4
_HEADER = 28  # pixels, a line of text and the space below
_BAR = 76  # pixels, the colour scale and its numbers
_TYPES_ACROSS = 4


class Panes(NamedTuple):
  """The views of one image, u8[h, w, 3]."""

  photo: np.ndarray
  outlined: np.ndarray
  heat: np.ndarray
  overlay: np.ndarray


def colour_limits(maps: np.ndarray) -> tuple[float, float]:
  """The scale for all maps of a report: the median and the 99.9 % quantile of all their pixels.

  Most pixels of most images are normal, so what is below the median needs no colour; and a few
  extreme pixels must not dim all others. Values beyond the limits take the colours of the ends.

  Args:
    maps: f32[N, H, W], all maps that will be drawn, finite.

  Returns:
    (low, high).
  """
  low, high = np.quantile(maps, (0.5, 0.999))
  return float(low), float(high)


def colour(values: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
  """The colours u8[..., 3] of map values f[...]; a value has one colour, whatever surrounds it."""
  return _COLOURS[_levels(values, limits)]


def colour_layer(values: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
  """The colours of map values f[...] with their opacity, u8[..., 4], to lay over a photograph."""
  opacity = np.rint(255 * _OPACITY[_levels(values, limits)]).astype(np.uint8)
  return np.concatenate([colour(values, limits), opacity[..., None]], axis=-1)


def write_overlays(
  folder: str | os.PathLike[str],
  split: Split,
  maps: np.ndarray,
  scores: np.ndarray,
  limits: tuple[float, float],
) -> None:
  """Writes a picture for each image: the image, its true outline, its map, and the map over it.

  The pictures keep the relative paths of the images: `folder`/test/hole/003.png, or 003.jpg.png for
  003.jpg. Each appears whole or not at all.

  Args:
    folder: where to write; created where missing.
    split: N images.
    maps: f32[N, H, W], anomaly maps.
    scores: f[N], image scores.
    limits: (low, high) of the colour scale, see `colour_limits`.
  """
  _check(split, maps, scores)
  for i, name in enumerate(split.names):
    panes = panes_of(split.images[i], split.masks[i], maps[i], limits, _PANE)
    truth = 'ground truth' if split.has_mask[i] else 'ground truth: no mask'
    truth = truth if split.labels[i] else 'ground truth: normal'
    picture = _row(name, truth, float(scores[i]), panes, limits)
    _write(pathlib.Path(folder) / _relative_path(name), picture)


def write_overlay(
  folder: str | os.PathLike[str],
  name: str,
  image: np.ndarray,
  found: np.ndarray,
  anomaly_map: np.ndarray,
  score: float,
  limits: tuple[float, float],
) -> None:
  """Writes the same picture of one image whose truth is not known: with what was found outlined.

  Args:
    folder: where to write; created where missing.
    name: of the image, the path below the folder.
    image: u8[H, W, 3].
    found: bool[H, W].
    anomaly_map: f32[H, W].
    score: of the image.
    limits: (low, high) of the colour scale.
  """
  panes = panes_of(image, found, anomaly_map, limits, _PANE)
  _write(pathlib.Path(folder) / _relative_path(name), _row(name, 'found', score, panes, limits))


def write_png(folder: str | os.PathLike[str], name: str, encoded: bytes) -> None:
  """Writes a PNG that is encoded already, under the name of an image; whole or not at all."""
  files.write(pathlib.Path(folder) / _relative_path(name), encoded)


def write_overview(
  path: str | os.PathLike[str],
  split: Split,
  maps: np.ndarray,
  scores: np.ndarray,
  limits: tuple[float, float],
) -> None:
  """Writes one picture of the whole test set: of each type the highest and the lowest score.

  Good images come first. Below each image, with its true outline, is its map laid over it.

  Args:
    path: the PNG to write; it appears whole or not at all.
    split: N images, at least one.
    maps: f32[N, H, W], anomaly maps.
    scores: f[N], image scores.
    limits: (low, high) of the colour scale, see `colour_limits`.
  """
  _check(split, maps, scores)
  blocks = []
  for name in sorted(set(split.defects), key=lambda name: (name != 'good', name)):
    members = [i for i, defect in enumerate(split.defects) if defect == name]
    members.sort(key=lambda i: -scores[i])
    shown = [(members[0], 'highest')] + [(i, 'lowest') for i in members[1:][-1:]]
    blocks.append(
      _block(
        name,
        [f'{place} {scores[i]:.3g}' for i, place in shown],
        [panes_of(split.images[i], split.masks[i], maps[i], limits, _THUMBNAIL) for i, _ in shown],
      )
    )
  _write(pathlib.Path(path), _sheet(blocks, limits))


def _check(split: Split, maps: np.ndarray, scores: np.ndarray) -> None:
  if maps.shape != split.masks.shape or scores.shape != split.labels.shape:
    raise ValueError(
      f'maps {maps.shape} and scores {scores.shape} are not those of images {split.masks.shape}'
    )


def _row(
  name: str, truth: str, score: float, panes: Panes, limits: tuple[float, float]
) -> Image.Image:
  """The picture of one image: name and score, the four panes, and the colour scale."""
  height, width = panes.photo.shape[:2]
  step = max(width, _LEAST_WIDTH) + _GAP
  right, top = _MARGIN + 4 * step, _MARGIN + 2 * _HEADER
  page = Image.new('RGB', (right + _BAR + _MARGIN, top + height + _MARGIN), _PAPER)
  draw = ImageDraw.Draw(page)
  bold, small, score_text = _font(15, bold=True), _font(12), f'score {score:.4g}'
  room = right - _MARGIN - 4 * _GAP - bold.getlength(score_text)
  draw.text((_MARGIN, _HEADER), _shortened(name, _font(15), room), _INK, _font(15), 'ls')
  draw.text((right - _GAP, _HEADER), score_text, _INK, bold, 'rs')
  captions = ('image', truth, 'anomaly map', 'overlay')
  for k, (caption, pane) in enumerate(zip(captions, panes, strict=True)):
    left = _MARGIN + k * step
    draw.text((left, top - _GAP), caption, _FAINT, small, 'ls')
    page.paste(Image.fromarray(pane), (left, top))
  draw.text((right, top - _GAP), 'score', _FAINT, small, 'ls')
  page.paste(_colour_bar(height, limits), (right, top))
  return page


def _block(title: str, captions: list[str], panes: list[Panes]) -> Image.Image:
  """One or two images of a type, each above its overlay; as wide as for two."""
  height, width = panes[0].photo.shape[:2]
  step = max(width, _LEAST_WIDTH) + _SEAM
  lower = _HEADER + height + _SEAM
  page = Image.new('RGB', (2 * step - _SEAM, lower + height + _HEADER), _PAPER)
  draw, bold = ImageDraw.Draw(page), _font(14, bold=True)
  draw.text((0, _HEADER - _GAP), _shortened(title, bold, page.width), _INK, bold, 'ls')
  for k, (caption, pane) in enumerate(zip(captions, panes, strict=True)):
    page.paste(Image.fromarray(pane.outlined), (k * step, _HEADER))
    page.paste(Image.fromarray(pane.overlay), (k * step, lower))
    draw.text((k * step, lower + height + 2 * _GAP), caption, _FAINT, _font(11), 'ls')
  return page


def _sheet(blocks: list[Image.Image], limits: tuple[float, float]) -> Image.Image:
  """Blocks of one size in rows of nearly equal length, the colour scale, and what is what."""
  rows = -(-len(blocks) // _TYPES_ACROSS)
  across = -(-len(blocks) // rows)
  width, height = (side + _MARGIN for side in blocks[0].size)
  right, bottom = _MARGIN + across * width, _MARGIN + rows * height
  page = Image.new('RGB', (right + _BAR + _MARGIN, bottom + _HEADER), _PAPER)
  for k, block in enumerate(blocks):
    page.paste(block, (_MARGIN + k % across * width, _MARGIN + k // across * height))
  draw = ImageDraw.Draw(page)
  draw.text((right, _MARGIN + _HEADER - _GAP), 'score', _FAINT, _font(12), 'ls')
  page.paste(_colour_bar(rows * height - 2 * _HEADER - _MARGIN, limits), (right, _MARGIN + _HEADER))
  legend = 'above: image, ground truth outlined\nbelow: anomaly map, one colour scale for all'
  draw.multiline_text((_MARGIN, bottom - _GAP), legend, _FAINT, _font(11))
  return page


def panes_of(
  image: np.ndarray,
  mask: np.ndarray,
  anomaly_map: np.ndarray,
  limits: tuple[float, float],
  longer: int,
) -> Panes:
  """The views of one image.

  Args:
    image: u8[H, W, 3], RGB.
    mask: bool[H, W], True where anomalous; all False where nothing is to be outlined.
    anomaly_map: f[H, W].
    limits: (low, high) of the colour scale, see `colour_limits`.
    longer: pixels of the longer side of each view.
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
  overlay = grey + _OPACITY[_levels(values, limits)][..., None] * (heat - grey)
  return Panes(photo, np.where(outline, _OUTLINE, photo), heat, np.rint(overlay).astype(np.uint8))


def _levels(values: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
  """Map values as steps u8[...] of the colour scale."""
  low, high = limits
  scale = 255 / (high - low) if high > low else 0.0
  return np.rint(np.clip((values - low) * scale, 0, 255)).astype(np.uint8)


def _outline(mask: np.ndarray, width: int) -> np.ndarray:
  """A line around the regions of bool[H, W], and along the edge of the image where they reach it.

  It keeps a pixel's distance and covers no region: defects are often as thin as the line.
  """
  square = np.ones((3, 3))
  near = ndimage.binary_dilation(mask, square)
  line = ndimage.binary_dilation(near, square, width)
  line[width:-width, width:-width] &= ~near[width:-width, width:-width]
  return line


def _colour_bar(height: int, limits: tuple[float, float]) -> Image.Image:
  """The colour scale with the values of its ends and quarters."""
  page = Image.new('RGB', (_BAR, height), _PAPER)
  draw = ImageDraw.Draw(page)
  ramp = _COLOURS[np.rint(np.linspace(255, 0, height)).astype(int)]
  page.paste(Image.fromarray(np.repeat(ramp[:, None], 12, axis=1)), (0, 0))
  for k, value in enumerate(np.linspace(limits[1], limits[0], 5)):
    y = round(k * (height - 1) / 4)
    draw.line([(12, y), (15, y)], _FAINT)
    draw.text((19, y), f'{value:.3g}', _FAINT, _font(11), {0: 'lt', 4: 'lb'}.get(k, 'lm'))
  return page


@functools.cache
def _font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
  """The font that matplotlib brings along, its size in pixels."""
  name = 'DejaVuSans-Bold.ttf' if bold else 'DejaVuSans.ttf'
  return ImageFont.truetype(pathlib.Path(matplotlib.get_data_path(), 'fonts', 'ttf', name), size)


def _shortened(text: str, font: ImageFont.FreeTypeFont, room: float) -> str:
  """The text, or as much of its end as there is room for; what cannot be drawn is replaced."""
  text = ''.join(each if each.isprintable() else '\ufffd' for each in text)
  if font.getlength(text) <= room:
    return text
  while text and font.getlength(f'…{text}') > room:
    text = text[1:]
  return f'…{text}'


def _relative_path(name: str) -> pathlib.PurePosixPath:
  """Where the picture of an image goes."""
  path = pathlib.PurePosixPath(name)
  if path.is_absolute() or '..' in path.parts:
    raise ValueError(f'the image name {name!r} leads out of the folder of pictures')
  return path if path.suffix == '.png' else path.with_name(files.fitting(path.name, '.png'))


def _write(path: pathlib.Path, picture: Image.Image) -> None:
  """Writes a PNG under a temporary name and renames it once it is whole."""
  encoded = io.BytesIO()
  picture.save(encoded, 'PNG', compress_level=4)
  files.write(path, encoded.getvalue())
