"""Synthetic defects on grey textures, each with the exact mask of the pixels it may change.

Every kind blends new content into an image, new = (1 - a) image + a content, where a falls smoothly
from 1 to 0; the mask is a > 0. 'blurred', 'coarse', 'foreign' and 'smeared' keep the mean
brightness of the place they change: what is wrong there is the structure.
"""

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from patch_svdd_jax.data.defect_shapes import curve, sign, spot, uniform

Defect = tuple[np.ndarray, np.ndarray]  # u8[H, W] and the mask of what differs, bool[H, W]
_LEAST_CHANGE = 0.3  # mean change within the mask, in standard deviations of the image
_MOST_DRAWS = 100


def _blend(image: np.ndarray, content: np.ndarray, weight: np.ndarray) -> np.ndarray:
  """Blends content into u8[H, W]; pixels of weight 0 stay as they are."""
  mixed = (1 - weight) * image + weight * content
  blended: np.ndarray = np.clip(np.rint(mixed), 0, 255).astype(np.uint8)
  return blended


def _grid(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  grid = np.indices(image.shape).astype(np.float64)
  return grid[0], grid[1]


def _centre(rng: np.random.Generator, image: np.ndarray, margin: float) -> tuple[float, float]:
  height, width = image.shape
  return uniform(rng, margin, height - margin), uniform(rng, margin, width - margin)


def _spot(
  rng: np.random.Generator, image: np.ndarray, radius: tuple[float, float], feather: float
) -> tuple[np.ndarray, tuple[float, float]]:
  """Returns an irregular spot inside the image.

  Args:
    rng: source of its place and shape.
    image: u8[H, W].
    radius: range of its mean radius in pixels; the outline wavers by up to a third.
    feather: width of its soft edge in pixels.

  Returns:
    (weight f64[H, W], centre (row, column)).
  """
  mean = uniform(rng, *radius)
  centre = _centre(rng, image, mean * 4 / 3 + 1)
  rows, columns = _grid(image)
  return spot(rng, rows - centre[0], columns - centre[1], mean, feather), centre


def _matched(content: np.ndarray, image: np.ndarray, weight: np.ndarray) -> np.ndarray:
  """Gives content the mean of what it covers and, at most doubled, the image's spread there."""
  mean = np.average(content, weights=weight)
  spread = np.sqrt(np.average((content - mean) ** 2, weights=weight))
  gain = min(image.std() / max(spread, 1.0), 2.0)
  matched: np.ndarray = np.average(image, weights=weight) + (content - mean) * gain
  return matched


def _flattened(image: np.ndarray, weight: np.ndarray) -> np.ndarray:
  """Returns the image with less than half of its contrast about its weighted mean."""
  flattened: np.ndarray = 0.6 * np.average(image, weights=weight) + 0.4 * image
  return flattened


def scratch(rng: np.random.Generator, image: np.ndarray, other: np.ndarray) -> Defect:
  """Returns a thin curved line, darker or brighter than the texture, two to three pixels wide."""
  del other
  start = np.array(_centre(rng, image, 12))
  angle, length = uniform(rng, 0, 2 * np.pi), uniform(rng, 40, 70)
  direction = np.array([np.sin(angle), np.cos(angle)])
  # Towards the middle, so that most of it stays inside.
  if direction @ (np.array(image.shape) / 2 - start) < 0:
    direction = -direction
  end = start + length * direction
  bend = (start + end) / 2 + uniform(rng, -12, 12) * np.array([direction[1], -direction[0]])
  distance = curve(*_grid(image), (start, bend, end), count=200)
  weight = np.clip(uniform(rng, 1.2, 1.7) + 0.5 - distance, 0, 1)
  level = image.mean() + sign(rng) * 1.6 * image.std()
  return _blend(image, np.full(image.shape, level), 0.85 * weight), weight > 0


def stain(rng: np.random.Generator, image: np.ndarray, other: np.ndarray) -> Defect:
  """Adds a smooth darkening or brightening that lowers the texture's contrast."""
  del other
  weight, _ = _spot(rng, image, (14, 20), feather=8)
  shift = sign(rng) * uniform(rng, 1.0, 1.5) * image.std()
  return _blend(image, _flattened(image, weight) + shift, weight), weight > 0


def dent(rng: np.random.Generator, image: np.ndarray, other: np.ndarray) -> Defect:
  """Adds a round, worn dent: brighter on the flank that faces the light, darker opposite."""
  del other
  radius = uniform(rng, 12, 17)
  row, column = _centre(rng, image, radius + 2)
  rows, columns = _grid(image)
  rows, columns = (rows - row) / radius, (columns - column) / radius
  light = uniform(rng, 0, 2 * np.pi)
  squared = rows**2 + columns**2
  weight = np.clip(4 * (1 - squared), 0, 1)
  slope = rows * np.sin(light) + columns * np.cos(light)
  shade = uniform(rng, 2.2, 3.0) * image.std() * slope * np.maximum(1 - squared, 0)
  return _blend(image, _flattened(image, weight) + shade, weight), weight > 0


def foreign(rng: np.random.Generator, image: np.ndarray, other: np.ndarray) -> Defect:
  """Pastes another texture, as bright as the pixels it covers and as rough as the image."""
  weight, _ = _spot(rng, image, (14, 20), feather=3)
  height, width = image.shape
  top = int(rng.random() * (other.shape[0] - height + 1))
  left = int(rng.random() * (other.shape[1] - width + 1))
  content = other[top : top + height, left : left + width].astype(np.float64)
  return _blend(image, _matched(content, image, weight), weight), weight > 0


def coarse(rng: np.random.Generator, image: np.ndarray, other: np.ndarray) -> Defect:
  """Returns the texture itself, enlarged two to three times about the middle of the spot."""
  del other
  weight, centre = _spot(rng, image, (14, 20), feather=3)
  zoom = uniform(rng, 2.0, 3.0)
  rows, columns = _grid(image)
  source = [centre[0] + (rows - centre[0]) / zoom, centre[1] + (columns - centre[1]) / zoom]
  content = ndimage.map_coordinates(image.astype(np.float64), source, order=1, mode='nearest')
  return _blend(image, _matched(content, image, weight), weight), weight > 0


def smeared(rng: np.random.Generator, image: np.ndarray, other: np.ndarray) -> Defect:
  """Returns the texture wiped along one direction."""
  del other
  weight, _ = _spot(rng, image, (14, 20), feather=3)
  angle = uniform(rng, 0, np.pi)
  rows, columns = _grid(image)
  wiped = [
    ndimage.map_coordinates(
      image.astype(np.float64),
      [rows + step * np.sin(angle), columns + step * np.cos(angle)],
      order=1,
      mode='nearest',
    )
    for step in range(-7, 8)
  ]
  return _blend(image, _matched(np.mean(wiped, axis=0), image, weight), weight), weight > 0


def blurred(rng: np.random.Generator, image: np.ndarray, other: np.ndarray) -> Defect:
  """Returns the texture out of focus."""
  del other
  weight, _ = _spot(rng, image, (14, 20), feather=4)
  content = ndimage.gaussian_filter(image.astype(np.float64), uniform(rng, 2.2, 3.0))
  return _blend(image, content, weight), weight > 0


KINDS: dict[str, Callable[[np.random.Generator, np.ndarray, np.ndarray], Defect]] = {
  'blurred': blurred,
  'coarse': coarse,
  'dent': dent,
  'foreign': foreign,
  'scratch': scratch,
  'smeared': smeared,
  'stain': stain,
}


def add_defect(rng: np.random.Generator, kind: str, image: np.ndarray, other: np.ndarray) -> Defect:
  """Adds one defect that can be seen.

  Where the texture has nothing to spoil (no joint to blur inside a brick) another place is drawn.

  Args:
    rng: source of its place, shape and strength.
    kind: a key of KINDS.
    image: u8[H, W], grey, 80 pixels or more in height and width.
    other: u8[H', W'], a different texture, at least as large.

  Returns:
    (u8[H, W], bool[H, W]), the image and its mask; outside the mask nothing has changed.
  """
  for _ in range(_MOST_DRAWS):
    changed, mask = KINDS[kind](rng, image, other)
    change = np.abs(changed.astype(int) - image)[mask].mean()
    if change >= _LEAST_CHANGE * image.std():
      break
  return changed, mask
