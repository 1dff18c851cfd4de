"""The maps and scores of images, and what they were made from; scored batch by batch."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import jax
import numpy as np

from patch_svdd_jax.data.dataset import is_fixed
from patch_svdd_jax.detection import anomaly_map
from patch_svdd_jax.system.batching import Progress, pad_images

# From a file to a verdict, in this order. Scoring is the three in the middle.
STAGES = ('decode', 'embed', 'search', 'map', 'verdict')


@dataclasses.dataclass(frozen=True)
class Scores:
  """What scoring gives, by map: 'k64', 'k32', ..., and 'sum' and 'product' of several scales.

  Attributes:
    maps: f32[N, H, W] each.
    images: f32[N] each, the maps' maxima.
    distances: f32[N, rows, columns] of each scale, of the patches to the nearest normal ones (their
      mean distance where config.score.neighbours is more than one); NaN of a patch that does not
      count, see `region_of_interest`.
    fallback_fraction: of each scale, the share of patches that took more than k passes.
    seconds: of each stage ('embed', 'search', 'map'), an image.
    norms: f32[N] of each scale, as 'embedding norm k64': the mean L2 norm of an image's embeddings;
      none of what has no encoder.
  """

  maps: dict[str, np.ndarray]
  images: dict[str, np.ndarray]
  distances: dict[str, np.ndarray]
  fallback_fraction: dict[str, float]
  seconds: dict[str, float]
  norms: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

  @property
  def main_map(self) -> str:
    """The name of the map that verdicts are made by, see `anomaly_map.main_map`."""
    return anomaly_map.main_map(self.images)

  @classmethod
  def concatenate(cls, parts: Sequence['Scores']) -> 'Scores':
    """Joins batches; `fallback_fraction` and `seconds` become the means of theirs.

    The seconds of the first batch, which compiles, are left out unless it is the only one.
    """

    def joined(of_parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
      return {name: np.concatenate([part[name] for part in of_parts]) for name in of_parts[0]}

    def mean(of_parts: list[dict[str, float]]) -> dict[str, float]:
      return {name: float(np.mean([part[name] for part in of_parts])) for name in of_parts[0]}

    return cls(
      joined([part.maps for part in parts]),
      joined([part.images for part in parts]),
      joined([part.distances for part in parts]),
      mean([part.fallback_fraction for part in parts]),
      mean([part.seconds for part in parts[1:] or parts]),
      joined([part.norms for part in parts]),
    )

  def first(self, count: int) -> 'Scores':
    """Returns those of the first images."""
    maps, images, distances, norms = (
      {name: values[:count] for name, values in each.items()}
      for each in (self.maps, self.images, self.distances, self.norms)
    )
    return Scores(maps, images, distances, self.fallback_fraction, self.seconds, norms)

  def of_main_map(self) -> 'Scores':
    """Returns those of the main map alone: all maps take several times its memory."""
    name = self.main_map
    return dataclasses.replace(self, maps={name: self.maps[name]}, images={name: self.images[name]})


@contextmanager
def timed(seconds: dict[str, float], stage: str, images: int) -> Iterator[None]:
  """Takes the seconds of the body, an image, as those of a stage, which traces show."""
  start = time.perf_counter()
  with jax.profiler.TraceAnnotation(stage):
    yield
  seconds[stage] = (time.perf_counter() - start) / images


def in_batches(
  score: Callable[[np.ndarray, np.ndarray | None], Scores],
  images: np.ndarray,
  batch: int,
  progress: Progress,
  regions: np.ndarray | None = None,
) -> Scores:
  """Scores images u8[N, H, W, 3] and their regions bool[N, H, W], `batch` at a time.

  The last batch is padded: another size would be compiled anew.
  """
  parts = []
  # No comprehension: where an error leaves it, its frame would keep the progress bar from closing.
  for first in progress(range(0, len(images), batch)):
    taken = slice(first, first + batch)
    inside = None if regions is None else pad_regions(regions[taken], batch)
    parts.append(score(pad_images(images[taken], batch), inside))
  return Scores.concatenate(parts).first(len(images))


def pad_regions(regions: np.ndarray, count: int) -> np.ndarray:
  """Returns regions bool[N, H, W] with the last one repeated behind, `count` in all; N > 0."""
  if is_fixed(regions):
    return np.broadcast_to(regions[0], (count, *regions.shape[1:]))
  return np.concatenate([regions, np.repeat(regions[-1:], count - len(regions), axis=0)])
