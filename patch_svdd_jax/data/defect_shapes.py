"""Outlines of drawn defects, on grids of pixels: irregular spots and curved lines.

All random numbers come from `Generator.random`, the plainest of its methods and the least likely to
change with numpy.
"""

import numpy as np


def uniform(rng: np.random.Generator, low: float, high: float) -> float:
  """Draws a number from low to high."""
  return low + (high - low) * rng.random()


def sign(rng: np.random.Generator) -> int:
  """Draws 1 or -1."""
  return 1 if rng.random() < 0.5 else -1


def spot(
  rng: np.random.Generator, rows: np.ndarray, columns: np.ndarray, mean: float, feather: float
) -> np.ndarray:
  """Returns the weight f64[H, W] of an irregular spot, 1 inside and 0 outside.

  Args:
    rng: source of its shape.
    rows: f64[H, W], pixels from its centre.
    columns: f64[H, W], likewise.
    mean: its mean radius in pixels; the outline wavers by up to a third.
    feather: width of its soft edge in pixels.
  """
  angle = np.arctan2(rows, columns)
  outline = mean + sum(mean / 9 * np.cos(k * angle + uniform(rng, 0, 2 * np.pi)) for k in (2, 3, 4))
  weight: np.ndarray = np.clip((outline - np.hypot(rows, columns)) / feather, 0, 1)
  return weight


def curve(
  rows: np.ndarray, columns: np.ndarray, path: tuple[np.ndarray, np.ndarray, np.ndarray], count: int
) -> np.ndarray:
  """Returns the distance in pixels of each place to a curve, f64[H, W].

  Args:
    rows: f64[H, W], of the places.
    columns: f64[H, W], likewise.
    path: start, control point and end (row, column) of the quadratic Bezier curve.
    count: points that stand for the curve.
  """
  start, bend, end = path
  t = np.linspace(0, 1, count)[:, None]
  points = (1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end
  squared = (rows[..., None] - points[:, 0]) ** 2 + (columns[..., None] - points[:, 1]) ** 2
  distance: np.ndarray = np.sqrt(squared.min(axis=-1))
  return distance
