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
from patch_svdd_jax.detection import anomaly_map, bank_building, projection
from patch_svdd_jax.detection.bank_building import Bank
from patch_svdd_jax.detection.calibration import Calibration
from patch_svdd_jax.detection.scores import Scores, in_batches, timed
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.models import architecture, embedding, features, mean_image
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
from patch_svdd_jax.system.digests import digest
from patch_svdd_jax.system.sharding import local_mesh, replicate

FOLDER = 'model'
# Versions that a save leaves at most where it keeps the older ones.
KEPT = 10


class Origin(NamedTuple):
  """What a detector was made from: all that its memory banks depend on.

  Attributes:
    config: the whole config.
    step: training steps its encoder has taken; 0 is untrained or imported.
    images: digest of the normal images.
  """

  config: ml_collections.ConfigDict
  step: int
  images: str


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
  """

  origin: Origin
  params: Params
  mean: jax.Array
  banks: Mapping[int, Bank]
  calibration: Calibration | None = None
  dropped: np.ndarray | None = None

  @property
  def config(self) -> ml_collections.ConfigDict:
    """The whole config it was made with."""
    return self.origin.config

  @property
  def main_map(self) -> str:
    """The name of the map that verdicts are made by: the product where there are several scales."""
    scales = self.config.encoder.scales
    return 'product' if len(scales) > 1 else scale_name(scales[0])

  @classmethod
  def fit(
    cls,
    config: ml_collections.ConfigDict,
    params: Params,
    images: np.ndarray,
    *,
    step: int,
    progress: Progress = iter,
  ) -> 'Detector':
    """Embeds all patches of the normal images u8[N, H, W, 3] into memory banks."""
    config = image_size.resolved(config, images.shape[1:3])
    params = replicate(params)
    mean = jnp.asarray(mean_image.training_mean(images, config.train.mean))
    mean = replicate(mean)
    params = projection.fit(config, params, mean, images)
    built = bank_building.build(config, params, mean, images, strides_of(config), progress)
    origin = Origin(config, step, digest(images))
    return cls(origin, params, mean, built.banks, dropped=built.dropped)

  def score(self, images: np.ndarray, progress: Progress = iter) -> Scores:
    """Scores images u8[N, H, W, 3] of the size it was fitted on (any size, with a channel mean).

    Raises:
      UserError: the images have another size than the mean image.
    """
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

    def score_batch(part: np.ndarray) -> Scores:
      return self._score_batch(part.reshape(devices, -1, *part.shape[1:]), embed)

    return in_batches(score_batch, images, batch, progress)

  def _score_batch(self, images: np.ndarray, embed: embedding.EmbedBatch) -> Scores:
    """Scores images u8[devices, B, H, W, 3] with the embeddings that `embed` gives."""
    seconds: dict[str, float] = {}
    count = images.shape[0] * images.shape[1]
    with timed(seconds, 'embed', count):
      grids = jax.block_until_ready(embed(self.params, self.mean, images))
    with timed(seconds, 'search', count):
      found = {scale_name(k): self._nearest(k, grid) for k, grid in grids.items()}
      jax.block_until_ready(found)
    with timed(seconds, 'map', count):
      distances = {name: each.distances.mean(axis=-1) for name, each in found.items()}
      # Through jax, `grids` comes in the order of its numbers; maps come in that of the config.
      scales = {
        scale_name(k): anomaly_map.upsample(
          distances[scale_name(k)],
          image_size=images.shape[2:4],
          receptive_field=k,
          stride=stride,
        )
        for k, stride in strides_of(self.config).items()
      }
      joined = anomaly_map.aggregate(scales, self.config.score.scale_weights)
      maps = {name: np.asarray(each) for name, each in joined.items()}
      norms = {
        f'embedding norm {scale_name(k)}': np.ravel(mean_norm(grid)) for k, grid in grids.items()
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

  def _nearest(self, receptive_field: int, grid: jax.Array) -> nearest.Neighbours:
    """Returns the nearest rows for each of f32[devices, B, rows, columns, D].

    Distances and indices come back as [devices * B, rows, columns, k].
    """
    queries: Any = grid.reshape(-1, grid.shape[-1])
    if jax.process_count() > 1:
      # Every process has embedded the same images on its own devices.
      queries = np.asarray(queries)
    found = nearest.search(
      queries,
      self.banks[receptive_field],
      self.config.score.neighbours,
    )
    shape = (-1, *grid.shape[2:4], self.config.score.neighbours)
    return found._replace(
      distances=found.distances.reshape(shape), indices=found.indices.reshape(shape)
    )

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
    about = self.origin._asdict() | {'config': self.config.to_dict()}
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
    return Detector(self.origin, params, mean, banks, calibrated, arrays.get('dropped'))


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
  return Origin(**about | {'config': config})


def _remedy(workdir: pathlib.Path) -> str:
  return f'remove {workdir / FOLDER}, and `patch-svdd build-bank` makes it anew'


def manager(workdir: pathlib.Path) -> ocp.CheckpointManager:
  """Returns orbax's manager of a workdir's detectors; `numbered` removes the older ones."""
  handlers = {'arrays': ocp.StandardCheckpointHandler, 'about': ocp.JsonCheckpointHandler}
  return orbax_manager.make((workdir / FOLDER).absolute(), handlers)
