"""Brings the scores of the images that calibrate a detector up to date where its banks grow.

More rows can only bring a patch's nearest row nearer: its distance becomes the lesser of the one
before and that to the new rows. So the distances are kept, and where the patches' embeddings are.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import ml_collections
import numpy as np

from patch_svdd_jax.data import Split
from patch_svdd_jax.detection import region_of_interest
from patch_svdd_jax.detection.bank_building import Bank
from patch_svdd_jax.models.architecture import scale_name, strides_of
from patch_svdd_jax.search import memory_bank, nearer


@dataclasses.dataclass(frozen=True)
class Evidence:
  """The patches of the n images that calibrate a detector.

  Attributes:
    distances: f32[n, rows, columns] of each scale's name, to the nearest row of the banks that the
      image is scored by; NaN where a patch does not count.
    places: i64[n], which of the images of the memory bank each is; -1 where it is none of them.
    rows: f32[N, D] of each scale's name, the embeddings of those that are none, in their order.
  """

  distances: Mapping[str, np.ndarray]
  places: np.ndarray
  rows: Mapping[str, np.ndarray]

  def to_arrays(self) -> dict[str, object]:
    """Returns what is saved; arrays of no size cannot be."""
    rows = {name: rows for name, rows in self.rows.items() if rows.size}
    return {'distances': dict(self.distances), 'places': self.places} | (
      {'rows': rows} if rows else {}
    )

  @classmethod
  def from_arrays(cls, arrays: Mapping[str, object]) -> 'Evidence':
    """Returns what `to_arrays` gave."""
    return cls(**{'rows': {}, **arrays})  # type: ignore[arg-type]


def obstacle(config: ml_collections.ConfigDict, needs_regions: bool) -> str | None:
  """Returns the setting by which a detector cannot take further images; None where it can."""
  score = config.score
  if score.coreset < 1:
    return f'config.score.coreset={score.coreset:g} keeps a part of the memory bank'
  if score.outliers:
    return f'config.score.outliers={score.outliers:g} drops rows of the memory bank'
  if score.compare != 'patches':
    return f'config.score.compare={score.compare!r} keeps a mean in place of the memory bank'
  if score.neighbours > 1:
    return f'config.score.neighbours={score.neighbours} takes means of several distances'
  if needs_regions:
    return 'each image has a region of interest of its own'
  return None


def places_of(scored: Split, bank: Split) -> np.ndarray:
  """Returns which image of a bank each of those that are scored is, i64[n]; -1 if it is none."""
  numbers = {name: index for index, name in enumerate(bank.names)}
  return np.array([numbers.get(name, -1) for name in scored.names], np.int64)


def counted_of(
  config: ml_collections.ConfigDict, region: np.ndarray | None
) -> Mapping[int, np.ndarray] | None:
  """Returns the patches of any image that count, bool[1, rows, columns] by scale; None: all."""
  return region_of_interest.counted_patches(config, None if region is None else region[None])


def nearer_distances(
  evidence: Evidence,
  config: ml_collections.ConfigDict,
  region: np.ndarray | None,
  banks: Mapping[int, Bank],
  rows: Mapping[int, np.ndarray],
) -> dict[str, np.ndarray]:
  """Returns the distances of the evidence's patches to their rows so far and to further ones.

  Args:
    evidence: of the images.
    config: the whole config.
    region: bool[H, W], that all images have in common.
    banks: of the detector, with the images of the evidence that are in them.
    rows: f32[N, D] of each scale, the further ones.
  """
  counted = counted_of(config, region)
  found = {}
  for k in strides_of(config):
    name, bank = scale_name(k), banks[k]
    before = evidence.distances[name]
    inside = np.ones(before.shape[1:], bool) if counted is None else counted[k][0]
    queries = embeddings_of(evidence, name, memory_bank.to_rows(bank), int(inside.sum()))
    new = memory_bank.from_rows(rows[k], screen=bank.screen)
    after = before.copy()
    after[:, inside] = nearer.least(queries, before[:, inside].ravel(), new).reshape(
      len(before), -1
    )
    found[name] = after
  return found


def embeddings_of(evidence: Evidence, name: str, rows: np.ndarray, patches: int) -> np.ndarray:
  """Returns the embeddings f32[n * patches, D] of the evidence's images at one scale.

  Args:
    evidence: of n images.
    name: of the scale.
    rows: f32[N, D] of the memory bank, image after image.
    patches: that count, of each image.
  """
  in_bank = rows.reshape(-1, patches, rows.shape[1])
  found = np.empty((len(evidence.places), *in_bank.shape[1:]), np.float32)
  there = evidence.places >= 0
  found[there] = in_bank[evidence.places[there]]
  if not there.all():
    found[~there] = evidence.rows[name].reshape(-1, *in_bank.shape[1:])
  return found.reshape(-1, rows.shape[1])


def extended(
  evidence: Evidence, distances: Mapping[str, np.ndarray], added: Sequence[int]
) -> Evidence:
  """Returns evidence with other distances, of more images that are in the bank at some places."""
  return Evidence(
    distances, np.concatenate([evidence.places, np.array(added, np.int64)]), evidence.rows
  )
