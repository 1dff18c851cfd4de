"""Anomalies made on normal images of any kind, by which a detector can be judged without labels.

Five kinds, each on every image: a piece of the image pasted elsewhere in other light (CutPaste, Li
et al. 2021, arXiv 2104.04015), a blurred and a smeared spot, a scratch (a line, or a scar: a thin
strip pasted elsewhere) and a stain. Such anomalies choose among detectors that are trained on
normal images alone (SWSA, Fung et al. 2023, arXiv 2310.10461). They lie where the image has
contrast rather than on an empty background. Each blends new content into the image, new =
(1 - a) image + a content, where a falls smoothly from 1 to 0; the mask is a > 0. In images with a
region of interest they lie there and are made of what is there.

These are not the defects of the embedded textures' test images (`defects`): what chooses a detector
must not be what it is tested on.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from patch_svdd_jax.data.defect_shapes import curve, sign, spot, uniform
from patch_svdd_jax.data.lighting import to_grey_levels

AREA = (0.002, 0.05)  # of a spot or a pasted piece, as a share of the image
_LEAST_RADIUS = 2.0  # pixels
# The least mean change in the mask: in grey levels, and in standard deviations of the image.
LEAST_LEVELS, LEAST_DEVIATIONS = 4.0, 0.15
_MOST_DRAWS = 30


class Scene(NamedTuple):
  """A normal image.

  Attributes:
    pixels: f64[H, W, 3], grey levels.
    deviation: of all its values.
    coloured: whether its channels differ.
    places: f64[H * W], the cumulated probabilities of its pixels to be the place of an anomaly.
    region: bool[H, W], in which anomalies lie; None where they lie anywhere.
  """

  pixels: np.ndarray
  deviation: float
  coloured: bool
  places: np.ndarray
  region: np.ndarray | None = None

  @property
  def side(self) -> float:
    """Returns the side of a square with as many pixels."""
    height, width = self.pixels.shape[:2]
    return float(np.sqrt(height * width))


class Window(NamedTuple):
  """The part of an image around a place.

  Attributes:
    part: rows and columns of the image that it covers.
    rows: f64[h, w], pixels from the place downwards.
    columns: f64[h, w], to the right.
  """

  part: tuple[slice, slice]
  rows: np.ndarray
  columns: np.ndarray


class Change(NamedTuple):
  """Content f64[h, w, 3] that is blended into a part of an image with the weight f64[h, w]."""

  part: tuple[slice, slice]
  weight: np.ndarray
  content: np.ndarray


def observe(image: np.ndarray, region: np.ndarray | None = None) -> Scene:
  """Returns what anomalies need to know of an image u8[H, W, 3] and its region bool[H, W]."""
  if region is not None:
    return _observe_inside(image, region)
  pixels = image.astype(np.float64)
  grey = pixels.mean(axis=-1)
  size = max(1, min(grey.shape) // 8)
  mean = ndimage.uniform_filter(grey, size)
  contrast = np.sqrt(np.maximum(ndimage.uniform_filter(grey**2, size) - mean**2, 0))
  # One place in five is any pixel: plain faces of objects are spoilt too.
  places = np.cumsum(contrast + 0.25 * contrast.mean() + 1e-3)
  coloured = bool((image != image[..., :1]).any())
  return Scene(pixels, float(pixels.std()), coloured, places / places[-1])


def _observe_inside(image: np.ndarray, region: np.ndarray) -> Scene:
  """Returns the scene of a region that is not empty, around which all has its mean colour."""
  inside = image[region].astype(np.float64)
  pixels = np.where(region[..., None], image, inside.mean(axis=0))
  grey, share = pixels.mean(axis=-1), region.astype(np.float64)
  size = max(1, min(grey.shape) // 8)
  # Of the pixels of the region alone.
  covered = np.maximum(ndimage.uniform_filter(share, size), 1 / size**2)
  mean = ndimage.uniform_filter(grey * share, size) / covered
  squares = ndimage.uniform_filter(grey**2 * share, size) / covered
  contrast = np.sqrt(np.maximum(squares - mean**2, 0)) * share
  places = np.cumsum((contrast + 0.25 * contrast[region].mean() + 1e-3) * share)
  coloured = bool((inside != inside[:, :1]).any())
  return Scene(pixels, float(inside.std()), coloured, places / places[-1], region)


def draw_place(rng: np.random.Generator, scene: Scene, reach: float) -> tuple[float, float]:
  """Draws the (row, column) of a pixel with contrast, so far from the edges where there is room."""
  height, width = scene.pixels.shape[:2]
  index = min(int(np.searchsorted(scene.places, rng.random())), height * width - 1)
  row, column = divmod(index, width)
  margin = min(reach, (height - 1) / 2), min(reach, (width - 1) / 2)
  return (
    float(np.clip(row, margin[0], height - 1 - margin[0])),
    float(np.clip(column, margin[1], width - 1 - margin[1])),
  )


def window(scene: Scene, place: tuple[float, float], reach: float) -> Window:
  """Returns the window of the pixels that are at most `reach` away along an axis."""
  rows, columns = (
    slice(max(0, int(at - reach)), min(size, int(at + reach) + 2))
    for at, size in zip(place, scene.pixels.shape[:2], strict=True)
  )
  grid = np.mgrid[rows, columns].astype(np.float64)
  return Window((rows, columns), grid[0] - place[0], grid[1] - place[1])


def turn(
  rows: np.ndarray, columns: np.ndarray, angle: float, stretch: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the coordinates along axes turned by an angle; areas stay under any stretch."""
  sine, cosine = np.sin(angle), np.cos(angle)
  return (rows * cosine - columns * sine) * stretch, (rows * sine + columns * cosine) / stretch


def draw_radius(rng: np.random.Generator, scene: Scene, area: tuple[float, float] = AREA) -> float:
  """Draws the radius of a disc that takes such a share of the image, evenly on a log scale."""
  share = np.exp(uniform(rng, np.log(area[0]), np.log(area[1])))
  return max(_LEAST_RADIUS, scene.side * float(np.sqrt(share / np.pi)))


def draw_spot(
  rng: np.random.Generator, scene: Scene, softness: float
) -> tuple[Window, np.ndarray, float]:
  """Draws an irregular, perhaps oblong spot: its window, its weight f64[h, w], and its radius.

  Its soft edge is the given share of the radius wide, but at least a pixel.
  """
  radius = draw_radius(rng, scene)
  stretch = np.exp(uniform(rng, 0, np.log(1.5)))
  reach = radius * 4 / 3 * stretch + 1
  around = window(scene, draw_place(rng, scene, radius), reach)
  rows, columns = turn(around.rows, around.columns, uniform(rng, 0, np.pi), stretch)
  return around, spot(rng, rows, columns, radius, max(1.0, softness * radius)), radius


def surroundings(scene: Scene, part: tuple[slice, slice], reach: int) -> np.ndarray:
  """Returns a part of the image with `reach` more pixels on all sides, mirrored at the edges."""
  (height, width), (rows, columns) = scene.pixels.shape[:2], part
  taken = scene.pixels[
    max(0, rows.start - reach) : rows.stop + reach,
    max(0, columns.start - reach) : columns.stop + reach,
  ]
  missing = [
    (max(0, reach - at.start), max(0, at.stop + reach - size))
    for at, size in ((rows, height), (columns, width))
  ]
  return np.pad(taken, [*missing, (0, 0)], mode='symmetric')


def pasted(
  rng: np.random.Generator, scene: Scene, around: Window, place: tuple[float, float], angle: float
) -> np.ndarray:
  """Returns what lies about another place, turned, perhaps mirrored, a little darker or brighter.

  Args:
    rng: source of the mirroring and the light.
    scene: the image.
    around: the window to fill.
    place: (row, column) of the image that comes to the middle of it.
    angle: that the content is turned by.

  Returns:
    f64[h, w, 3].
  """
  rows, columns = turn(around.rows, around.columns * sign(rng), angle)
  source = [rows + place[0], columns + place[1]]
  channels = [
    ndimage.map_coordinates(channel, source, order=1, mode='mirror')
    for channel in np.moveaxis(scene.pixels, -1, 0)
  ]
  gain = np.exp(uniform(rng, -0.15, 0.15))
  light = uniform(rng, -0.15, 0.15) * scene.deviation
  content: np.ndarray = gain * np.stack(channels, axis=-1) + light
  return content


def strip(around: Window, angle: float, length: float, width: float) -> np.ndarray:
  """Returns the weight f64[h, w] of a turned rectangle with edges a pixel soft."""
  rows, columns = turn(around.rows, around.columns, angle)
  inside = np.minimum(width / 2 - np.abs(rows), length / 2 - np.abs(columns))
  weight: np.ndarray = np.clip(inside + 0.5, 0, 1)
  return weight


def cut_and_paste(rng: np.random.Generator, scene: Scene) -> Change:
  """Pastes a rectangle of the image elsewhere."""
  area = np.pi * draw_radius(rng, scene) ** 2
  aspect = np.exp(uniform(rng, 0, np.log(3)))
  length, width = np.sqrt(area * aspect), np.sqrt(area / aspect)
  reach = np.hypot(length, width) / 2 + 1
  around = window(scene, draw_place(rng, scene, width / 2), reach)
  weight = strip(around, uniform(rng, 0, np.pi), length, width)
  source = draw_place(rng, scene, width / 2)
  content = pasted(rng, scene, around, source, uniform(rng, 0, 2 * np.pi))
  return Change(around.part, weight, content)


def blur(rng: np.random.Generator, scene: Scene) -> Change:
  """Puts a spot out of focus."""
  around, weight, _ = draw_spot(rng, scene, 0.3)
  width = max(1.0, uniform(rng, 0.008, 0.02) * scene.side)
  reach = int(3 * width) + 1
  content = ndimage.gaussian_filter(
    surroundings(scene, around.part, reach), width, axes=(0, 1), truncate=3
  )
  return Change(around.part, weight, content[reach:-reach, reach:-reach])


def smear(rng: np.random.Generator, scene: Scene) -> Change:
  """Wipes a spot along one direction."""
  around, weight, _ = draw_spot(rng, scene, 0.3)
  angle, length = uniform(rng, 0, np.pi), max(3.0, uniform(rng, 0.04, 0.12) * scene.side)
  reach = int(length / 2) + 1
  taken = surroundings(scene, around.part, reach)
  height, width = weight.shape
  steps = np.linspace(-length / 2, length / 2, 2 * reach)
  tops, lefts = np.rint(steps * np.sin(angle)), np.rint(steps * np.cos(angle))
  content = np.zeros((height, width, 3))
  for top, left in zip(tops.astype(int) + reach, lefts.astype(int) + reach, strict=True):
    content += taken[top : top + height, left : left + width]
  return Change(around.part, weight, content / steps.size)


def scratch(rng: np.random.Generator, scene: Scene) -> Change:
  """Draws a thin curved line, darker or brighter than what it crosses, or pastes a thin strip."""
  length = uniform(rng, 0.12, 0.35) * scene.side
  width = max(1.5, uniform(rng, 0.006, 0.02) * scene.side)
  angle = uniform(rng, 0, np.pi)
  place = draw_place(rng, scene, length / 3)
  around = window(scene, place, length * 0.6 + width)
  if rng.random() < 0.5:
    weight = strip(around, angle, length, width)
    source = draw_place(rng, scene, length / 3)
    return Change(
      around.part, weight, pasted(rng, scene, around, source, uniform(rng, 0, 2 * np.pi))
    )
  along = np.array([np.sin(angle), np.cos(angle)])
  bend = uniform(rng, -0.4, 0.4) * length * np.array([along[1], -along[0]])
  path = (-along * length / 2, bend, along * length / 2)
  distance = curve(around.rows, around.columns, path, count=64)
  weight = np.clip(width / 2 + 0.5 - distance, 0, 1)
  level = np.average(scene.pixels[around.part].reshape(-1, 3), axis=0, weights=weight.ravel())
  content = level + sign(rng) * draw_shift(rng, scene)
  opacity = uniform(rng, 0.5, 0.9)
  return Change(around.part, opacity * weight, np.broadcast_to(content, (*weight.shape, 3)))


def stain(rng: np.random.Generator, scene: Scene) -> Change:
  """Darkens or brightens a spot smoothly; tints it where the image has colours."""
  around, weight, _ = draw_spot(rng, scene, uniform(rng, 0.4, 1.0))
  tint = np.array([uniform(rng, 0.3, 1.0) for _ in range(3)]) if scene.coloured else np.ones(3)
  shift = sign(rng) * draw_shift(rng, scene) * tint
  return Change(around.part, weight, scene.pixels[around.part] + shift)


def draw_shift(rng: np.random.Generator, scene: Scene) -> float:
  """Draws by how many grey levels an anomaly is darker or brighter."""
  return uniform(rng, 0.4, 1.5) * float(np.clip(scene.deviation, 20, 50))


KINDS: dict[str, Callable[[np.random.Generator, Scene], Change]] = {
  'cut_and_paste': cut_and_paste,
  'blur': blur,
  'smear': smear,
  'scratch': scratch,
  'stain': stain,
}


def apply(
  image: np.ndarray, change: Change, region: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the image u8[H, W, 3] with the change in its region, and its mask bool[H, W]."""
  changed, mask = image.copy(), np.zeros(image.shape[:2], bool)
  blend = change.weight if region is None else change.weight * region[change.part]
  weight = blend[..., None]
  mixed = (1 - weight) * image[change.part] + weight * change.content
  changed[change.part] = to_grey_levels(mixed)
  mask[change.part] = blend > 0
  return changed, mask


def add(
  rng: np.random.Generator, kind: str, image: np.ndarray, scene: Scene
) -> tuple[np.ndarray, np.ndarray] | None:
  """Adds one anomaly that can be seen; other places are drawn where there is nothing to spoil.

  Args:
    rng: source of its place, shape and strength.
    kind: a key of KINDS.
    image: u8[H, W, 3].
    scene: of the image, see `observe`.

  Returns:
    (u8[H, W, 3], bool[H, W]), the image and its mask, outside which nothing has changed; None where
    no draw can be seen, as there is nothing to blur in an image of one colour.
  """
  least = max(LEAST_LEVELS, LEAST_DEVIATIONS * scene.deviation)
  for _ in range(_MOST_DRAWS):
    changed, mask = apply(image, KINDS[kind](rng, scene), scene.region)
    if mask.any() and np.abs(changed[mask].astype(int) - image[mask]).mean() >= least:
      return changed, mask
  return None


def make(
  images: np.ndarray,
  *,
  seed: int,
  kinds: Sequence[str] = tuple(KINDS),
  regions: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, list[str]]:
  """Makes an anomaly of every kind on every image.

  An anomaly depends on the seed, the image, its number and the kind alone.

  Args:
    images: u8[N, H, W, 3], normal ones, 32 pixels or more along a side.
    seed: at least 0.
    kinds: keys of KINDS.
    regions: bool[N, H, W], in which anomalies lie; none where they are empty. None: anywhere.

  Returns:
    (images u8[M, H, W, 3], masks bool[M, H, W], M kinds), by image, then by kind; M is
    N * len(kinds) less those that no draw makes visible.
  """
  numbers = {kind: number for number, kind in enumerate(KINDS)}
  found = []
  for index, image in enumerate(images):
    region = None if regions is None else regions[index]
    if region is not None and not region.any():
      continue
    scene = observe(image, region)
    for kind in kinds:
      added = add(np.random.default_rng([seed, index, numbers[kind]]), kind, image, scene)
      if added is not None:
        found.append((*added, kind))
  size = images.shape[1:3]
  return (
    np.array([changed for changed, _, _ in found], np.uint8).reshape(-1, *size, 3),
    np.array([mask for _, mask, _ in found], bool).reshape(-1, *size),
    [kind for _, _, kind in found],
  )
