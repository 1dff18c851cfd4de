"""A trained detector: encoder, mean image and memory banks; it fits, scores, saves and loads."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import orbax.checkpoint as ocp

from patch_svdd_jax import configuration
from patch_svdd_jax.data import image_size
from patch_svdd_jax.data.dataset import is_fixed
from patch_svdd_jax.detection import anomaly_map, bank_building, projection, region_of_interest
from patch_svdd_jax.detection.bank_building import Bank
from patch_svdd_jax.detection.calibration import Calibration
from patch_svdd_jax.detection.recalibration import Evidence
from patch_svdd_jax.detection.scores import Scores, in_batches, timed
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.models import architecture, embedding, features, geometry, mean_image
from patch_svdd_jax.models.architecture import scale_name, strides_of
from patch_svdd_jax.models.encoder import Params
from patch_svdd_jax.search import memory_bank, nearest
from patch_svdd_jax.system import (
  digests,
  distributed,
  files,
  numbered,
  orbax_manager,
  working_copy,
)
from patch_svdd_jax.system.batching import Progress
from patch_svdd_jax.system.digests import digest, digest_parts
from patch_svdd_jax.system.sharding import local_mesh, replicate

FOLDER = 'model'
# Versions that a save leaves at most where it keeps the older ones.
KEPT = 10


class Addition(NamedTuple):
  """A normal image that was added to a detector.

  Attributes:
    name: of its file.
    digest: of its file.
    time: when, as ISO 8601 has it.
    file: of its copy in the workdir's folder of additions; '' where there is none.
  """

  name: str
  digest: str
  time: str
  file: str = ''


class Origin(NamedTuple):
  """What a detector was made from: all that its memory banks depend on.

  Attributes:
    config: the whole config.
    step: training steps its encoder has taken; 0 is untrained or imported.
    images: digest of the normal images that it was fitted on, see `digest_normal`.
    additions: normal images that were added since; their rows lie behind the others.
  """

  config: ml_collections.ConfigDict
  step: int
  images: str
  additions: tuple[Addition, ...] = ()


def digest_normal(images: np.ndarray, regions: np.ndarray | None, share: float) -> str:
  """Returns a digest that tells normal images, and what of them counts, from others.

  Args:
    images: u8[N, H, W, 3].
    regions: bool[N, H, W], see `region_of_interest`; None: all patches count.
    share: config.data.region_share.
  """
  if regions is None:
    return digest(images)
  bits = np.packbits(regions[:1] if is_fixed(regions) else regions)
  return digest_parts(digest(images).encode(), bits.tobytes(), repr(float(share)).encode())


@dataclasses.dataclass(frozen=True)
class Detector:
  """A fitted detector.

  Attributes:
    origin: what it was made from.
    params: the encoder's, and the projection where there is one (`models.features`), on all local
      devices.
    mean: f32[H, W, 3] or f32[1, 1, 3] in grey levels, on all local devices.
    banks: the memory bank of each receptive field, on the devices or on the host.
    calibration: by normal images that are not in the banks; None before
      `calibration_scores.calibrate`.
    dropped: f64[N], the share of each normal image's patches that are in no bank because they are
      outlying (config.score.outliers): defects, perhaps. None where none were to be dropped.
    region: bool[H, W], the region of interest that all images have in common, see
      `region_of_interest`; None where all of an image counts, or each image has its own.
    evidence: by which the calibration is brought up to date where images are added; None where none
      can be, or the detector was saved before there was one.
  """

  origin: Origin
  params: Params
  mean: jax.Array
  banks: Mapping[int, Bank]
  calibration: Calibration | None = None
  dropped: np.ndarray | None = None
  region: np.ndarray | None = None
  evidence: Evidence | None = None

  @property
  def config(self) -> ml_collections.ConfigDict:
    """The whole config it was made with."""
    return self.origin.config

  @property
  def main_map(self) -> str:
    """The name of the map that verdicts are made by: the product where there are several scales."""
    scales = self.config.encoder.scales
    return 'product' if len(scales) > 1 else scale_name(scales[0])

  @property
  def needs_regions(self) -> bool:
    """Whether each image has to come with a region of its own."""
    return bool(self.config.data.region) and self.region is None

  @classmethod
  def fit(
    cls,
    config: ml_collections.ConfigDict,
    params: Params,
    images: np.ndarray,
    *,
    step: int,
    progress: Progress = iter,
    regions: np.ndarray | None = None,
  ) -> 'Detector':
    """Embeds the patches of normal images that count into memory banks.

    Args:
      config: the whole config.
      params: the encoder's.
      images: u8[N, H, W, 3].
      step: training steps that the encoder has taken.
      progress: wraps the iterables of batches and of rows.
      regions: bool[N, H, W], of these images, see `Split.regions`; None: all patches count.

    Raises:
      UserError: config.score asks for what there is not, or no patch counts.
    """
    config = image_size.resolved(config, images.shape[1:3])
    params = replicate(params)
    mean = jnp.asarray(mean_image.training_mean(images, config.train.mean, regions))
    mean = replicate(mean)
    bank_building.check_neighbours(config, len(images), images.shape[1:3], regions)
    params = projection.fit(config, params, mean, images, regions)
    strides = strides_of(config)
    built = bank_building.build(config, params, mean, images, strides, progress, regions)
    origin = Origin(config, step, digest_normal(images, regions, config.data.region_share))
    region = regions[0].copy() if is_fixed(regions) else None
    return cls(origin, params, mean, built.banks, dropped=built.dropped, region=region)

  def score(
    self, images: np.ndarray, progress: Progress = iter, regions: np.ndarray | None = None
  ) -> Scores:
    """Scores images u8[N, H, W, 3] of the size it was fitted on (any size, with a channel mean).

    Args:
      images: to be scored.
      progress: wraps the iterable of batches.
      regions: bool[N, H, W], of these images; None: the region that all have in common, or all.

    Raises:
      UserError: the images have another size than the mean image or the region, or each needs a
        region of its own.
    """
    regions = self.regions_of(images, regions)
    size = images.shape[1:3]
    if self.mean.shape[:2] not in ((1, 1), size):
      raise UserError(
        f'images of {size[0]}x{size[1]} pixels do not fit the mean image of '
        f'{self.mean.shape[0]}x{self.mean.shape[1]}: use the same config.data.image_size, or train '
        f"with config.train.mean='channel'"
      )
    arch = architecture.from_config(self.config.encoder)
    embed = embedding.make_embed_batch(
      arch,
      strides_of(self.config),
      self.config.score.tile,
      features.from_config(self.config.score),
    )
    devices = local_mesh().size
    batch = devices * min(self.config.score.batch_size, -(-len(images) // devices))

    def score_batch(part: np.ndarray, inside: np.ndarray | None) -> Scores:
      return self._score_batch(part.reshape(devices, -1, *part.shape[1:]), embed, inside)

    return in_batches(score_batch, images, batch, progress, regions)

  def regions_of(self, images: np.ndarray, regions: np.ndarray | None = None) -> np.ndarray | None:
    """Returns the regions of images u8[N, H, W, 3], bool[N, H, W], or None; see `score`."""
    if regions is None and self.region is not None:
      regions = np.broadcast_to(self.region, (len(images), *self.region.shape))
    if regions is None:
      if self.needs_regions:
        raise UserError(
          'the detector judges a region of each image that is its own: give it with the image'
        )
      return None
    if regions.shape != images.shape[:3]:
      raise UserError(
        f'regions {list(regions.shape)} do not fit images {list(images.shape[:3])}: use the same '
        'config.data.image_size'
      )
    return regions

  def _score_batch(
    self, images: np.ndarray, embed: embedding.EmbedBatch, regions: np.ndarray | None
  ) -> Scores:
    """Scores images u8[devices, B, H, W, 3] with the embeddings that `embed` gives.

    Their regions are bool[devices * B, H, W], or None.
    """
    seconds: dict[str, float] = {}
    count = images.shape[0] * images.shape[1]
    with timed(seconds, 'embed', count):
      grids = jax.block_until_ready(embed(self.params, self.mean, images))
    with timed(seconds, 'search', count):
      counted = region_of_interest.counted_patches(self.config, regions)
      found = {
        scale_name(k): self._nearest(k, grid, counted[k] if counted else None)
        for k, grid in grids.items()
      }
      jax.block_until_ready(found)
    with timed(seconds, 'map', count):
      distances = {name: each.distances.mean(axis=-1) for name, each in found.items()}
      # Through jax, `grids` comes in the order of its numbers; maps come in that of the config.
      scales = {
        scale_name(k): self._map(
          distances[scale_name(k)], k, images.shape[2:4], counted[k] if counted else None, regions
        )
        for k in strides_of(self.config)
      }
      joined = anomaly_map.aggregate(scales, self.config.score.scale_weights)
      maps = {name: np.asarray(each) for name, each in joined.items()}
      norms = {
        f'embedding norm {scale_name(k)}': np.ravel(
          mean_norm_of(grid, counted[k].reshape(grid.shape[:-1])) if counted else mean_norm(grid)
        )
        for k, grid in grids.items()
      }
      image_scores = {name: anomaly_map.image_score(each) for name, each in maps.items()}
      on_host = {name: np.asarray(distances[name]) for name in scales}
    return Scores(
      maps,
      image_scores,
      on_host,
      {name: jax.device_get(found[name].fallback_fraction) for name in scales},
      seconds,
      norms,
    )

  def _nearest(
    self, receptive_field: int, grid: jax.Array, counted: np.ndarray | None
  ) -> nearest.Neighbours:
    """Returns the nearest rows for each of f32[devices, B, rows, columns, D].

    Distances and indices come back as [devices * B, rows, columns, k], NaN and 0 of patches that
    do not count by bool[devices * B, rows, columns]: those are not searched for.
    """
    queries: Any = grid.reshape(-1, grid.shape[-1])
    if jax.process_count() > 1:
      # Every process has embedded the same images on its own devices.
      queries = np.asarray(queries)
    if counted is not None:
      places = region_of_interest.searched(counted)
      queries = queries[places]
    found = self._search(receptive_field, queries)
    if counted is not None:
      shape = (counted.size, self.config.score.neighbours)
      found = found._replace(
        distances=jnp.full(shape, jnp.nan).at[places].set(found.distances),
        indices=jnp.zeros(shape, jnp.int32).at[places].set(found.indices),
      )
    shape = (-1, *grid.shape[2:4], self.config.score.neighbours)
    return found._replace(
      distances=found.distances.reshape(shape), indices=found.indices.reshape(shape)
    )

  def _search(self, receptive_field: int, queries: jax.Array) -> nearest.Neighbours:
    """Returns the nearest rows for each of f32[Q, D]."""
    return nearest.search(queries, self.banks[receptive_field], self.config.score.neighbours)

  def _map(
    self,
    distances: Any,
    receptive_field: int,
    size: geometry.ImageSize,
    counted: np.ndarray | None,
    regions: np.ndarray | None,
  ) -> jax.Array:
    """Returns the map f32[B, height, width] of one scale's distances f32[B, rows, columns]."""
    options: Any = {
      'image_size': size,
      'receptive_field': receptive_field,
      'stride': strides_of(self.config)[receptive_field],
    }
    found: jax.Array
    if counted is None or regions is None:
      found = anomaly_map.upsample(distances, **options)
    else:
      if is_fixed(regions):
        counted, regions = counted[:1], regions[:1]
      found = anomaly_map.upsample_inside(distances, counted, regions, **options)
    return found

  def main_maps(
    self, distances: Mapping[str, np.ndarray], size: geometry.ImageSize, batch: int = 8
  ) -> np.ndarray:
    """Returns the main map f32[N, H, W] of patch distances f32[N, rows, columns] of each scale.

    Args:
      distances: by the scales' names.
      size: (height, width) of the images.
      batch: how many are mapped at a time.
    """
    count = len(next(iter(distances.values())))
    maps = np.empty((count, *size), np.float32)
    regions = None if self.region is None else np.broadcast_to(self.region, (batch, *size))
    counted = region_of_interest.counted_patches(self.config, regions)
    for first in range(0, count, batch):
      taken = np.minimum(np.arange(first, first + batch), count - 1)
      scales = {
        scale_name(k): self._map(
          distances[scale_name(k)][taken], k, size, counted[k] if counted else None, regions
        )
        for k in strides_of(self.config)
      }
      joined = anomaly_map.aggregate(scales, self.config.score.scale_weights)
      maps[first : first + batch] = np.asarray(joined[self.main_map])[: count - first]
    return maps

  def save(self, workdir: pathlib.Path, *, keep: bool = False) -> None:
    """Saves the detector in `workdir`/model, as the version that counts from then on.

    Args:
      workdir: of the run.
      keep: whether the versions before it stay, KEPT with this one, so that `undo` can go back to
        them; otherwise they go once this is whole. One that is being read meanwhile stays until the
        next save.
    """
    # As numpy arrays: those of jax could be loaded on as many devices only.
    arrays: dict[str, Any] = jax.device_get({'params': self.params, 'mean': self.mean})
    arrays['banks'] = {scale_name(k): memory_bank.to_rows(bank) for k, bank in self.banks.items()}
    if self.calibration:
      arrays['calibration'] = dataclasses.asdict(self.calibration)
    if self.dropped is not None:
      arrays['dropped'] = self.dropped
    if self.region is not None:
      arrays['region'] = self.region
    if self.evidence is not None:
      arrays['evidence'] = self.evidence.to_arrays()
    about = self.origin._asdict() | {'config': self.config.to_dict()}
    about['additions'] = [each._asdict() for each in self.origin.additions]
    items = {'arrays': ocp.args.StandardSave(arrays), 'about': ocp.args.JsonSave(about)}
    files.check_text(workdir.absolute())
    with manager(workdir) as models:
      # Numbered by saves, not by steps: one of the same step must not go before this is whole.
      number = (models.latest_step() or 0) + 1
      size = sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(arrays))
      files.check_room(workdir / FOLDER, size)
      orbax_manager.save(models, number, items)
    if distributed.is_first():
      with files.explained(workdir / FOLDER):
        numbered.remove_older(workdir / FOLDER, KEPT if keep else 1)
      working_copy.wake(workdir)

  @classmethod
  def load(cls, workdir: pathlib.Path) -> 'Detector':
    """Loads the detector of a workdir onto the local devices, however many there are.

    While another process saves one in its place, it is the whole old or the whole new one.

    Raises:
      UserError: there is none, or it is damaged.
    """
    return load_identified(workdir)[0]


@jax.jit
def mean_norm(grid: jax.Array) -> jax.Array:
  """Returns the mean norm, f32[devices, B], of embeddings f32[devices, B, rows, columns, D]."""
  return jnp.sqrt(jnp.sum(grid**2, axis=-1)).mean(axis=(2, 3))


@jax.jit
def mean_norm_of(grid: jax.Array, counted: jax.Array) -> jax.Array:
  """Returns `mean_norm` of the embeddings that count, bool[devices, B, rows, columns]."""
  norms = jnp.sqrt(jnp.sum(grid**2, axis=-1))
  total = jnp.where(counted, norms, 0.0).sum(axis=(2, 3))
  return total / jnp.maximum(counted.sum(axis=(2, 3)), 1)


class Saved(NamedTuple):
  """A saved detector, read from one numbered folder.

  Attributes:
    origin: what it was made from.
    arrays: its numbers, as `Detector.save` named them.
    digest: of the contents of the folder.
  """

  origin: Origin
  arrays: Mapping[str, Any]
  digest: str

  def placed(self) -> Detector:
    """Returns the detector on the local devices."""
    arrays = self.arrays
    banks = {
      k: bank_building.place(arrays['banks'][scale_name(k)])
      for k in self.origin.config.encoder.scales
    }
    params, mean = replicate((arrays['params'], arrays['mean']))
    saved = arrays.get('calibration')
    calibrated = Calibration(**saved) if saved else None
    evidence = arrays.get('evidence')
    return Detector(
      self.origin,
      params,
      mean,
      banks,
      calibrated,
      arrays.get('dropped'),
      arrays.get('region'),
      Evidence.from_arrays(evidence) if evidence else None,
    )


def load_identified(workdir: pathlib.Path) -> tuple[Detector, str]:
  """Loads as `Detector.load`; returns the digest of what was read besides."""
  saved = _read(workdir, lambda _: True)
  if saved is None:
    raise UserError(f'no fitted detector in {workdir / FOLDER}: train first, or check --workdir')
  return saved.placed(), saved.digest


def load_where(workdir: pathlib.Path, fits: Callable[[Origin], bool]) -> Detector | None:
  """Loads as `Detector.load` a detector whose origin fits; None where there is no such one.

  Raises:
    UserError: it is damaged.
  """
  saved = _read(workdir, fits)
  return saved.placed() if saved else None


def saved_origin(workdir: pathlib.Path) -> Origin | None:
  """Returns what the detector saved in `workdir` was made from; None where there is none.

  Raises:
    UserError: it is damaged.
  """
  return numbered.read_newest(workdir / FOLDER, _origin, _remedy(workdir))


def versions(workdir: pathlib.Path) -> list[int]:
  """Returns the numbers of the detectors that are saved in `workdir`; the last one counts."""
  return [int(place.name) for place in numbered.all_of(workdir / FOLDER)]


def undo(workdir: pathlib.Path, steps: int = 1) -> int:
  """Removes the newest versions of the detector saved in `workdir`; the one before them counts.

  Args:
    workdir: of the run.
    steps: how many are removed, at least 1.

  Returns:
    The number of the version that counts.

  Raises:
    UserError: there are no earlier versions or too few, or the one to go back to is damaged.
  """
  folder = workdir / FOLDER
  places = numbered.all_of(folder)
  if steps >= len(places):
    kept = max(0, len(places) - 1)
    raise UserError(
      f'{folder} has {kept or "no"} earlier version{"s" * (kept != 1)} to go back to'
      + (f': ask for at most {kept}' if kept else '')
    )
  before = places[-1 - steps]
  if found := digests.damage(before):
    raise UserError(f'{before} is damaged ({found}): {_remedy(workdir)}')
  with files.explained(folder):
    for _ in range(steps):
      numbered.remove_newest(folder)
  # A number that is used again must not meet its former files in a store.
  working_copy.upload(workdir)
  return int(before.name)


def _read(workdir: pathlib.Path, fits: Callable[[Origin], bool]) -> Saved | None:
  def read(place: pathlib.Path) -> Saved | None:
    origin = _origin(place)
    if not fits(origin):
      return None
    arrays = ocp.StandardCheckpointHandler().restore(
      place.absolute() / 'arrays', args=ocp.args.StandardRestore()
    )
    return Saved(origin, arrays, digests.of_folder(place))

  return numbered.read_newest(workdir / FOLDER, read, _remedy(workdir))


def _origin(place: pathlib.Path) -> Origin:
  about = ocp.JsonCheckpointHandler().restore(place / 'about')
  config = configuration.from_json(json.dumps(about['config']), str(place), configuration.BEFORE)
  additions = tuple(Addition(**each) for each in about.get('additions', ()))
  return Origin(**about | {'config': config, 'additions': additions})


def _remedy(workdir: pathlib.Path) -> str:
  return f'remove {workdir / FOLDER}, and `patch-svdd build-bank` makes it anew'


def manager(workdir: pathlib.Path) -> ocp.CheckpointManager:
  """Returns orbax's manager of a workdir's detectors; `numbered` removes the older ones."""
  handlers = {'arrays': ocp.StandardCheckpointHandler, 'about': ocp.JsonCheckpointHandler}
  return orbax_manager.make((workdir / FOLDER).absolute(), handlers)
