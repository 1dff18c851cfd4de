"""Train states on disk, with orbax.

A checkpoint is a folder `<step>` with the items 'encoder' (parameters), 'trainer' (the rest of the
train state) and 'metrics' (the statistics of the held-out images, where there are any). Orbax
writes under another name and renames, so a folder with a number is complete. What happened to it
since is known by its digests: training goes on from the newest one that is whole.
"""

import contextlib
import logging
import pathlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.models.encoder import Params
from patch_svdd_jax.system import digests, distributed, files, orbax_manager, working_copy
from patch_svdd_jax.training import checkpoint_selection
from patch_svdd_jax.training.train_state import TrainState

FOLDER = 'checkpoints'


def mismatch_message(expected: Any, found: Any) -> str | None:
  """Returns the first parameter whose shape is not the expected one, in words."""
  named = {
    name: {
      jax.tree_util.keystr(path, simple=True, separator='/'): tuple(leaf.shape)
      for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
    for name, tree in (('expected', expected), ('found', found))
  }
  for path in sorted(named['expected'].keys() | named['found'].keys()):
    here, there = named['expected'].get(path), named['found'].get(path)
    if here != there:
      return f'{path} is {there or "absent"} there and {here or "absent"} in the config'
  return None


def _damaged(folder: pathlib.Path, found: str) -> str:
  return f'{folder} is damaged ({found}): put a copy in its place, or remove it and run train again'


class Checkpoints:
  """The checkpoints of one workdir; the newest `keep` and the chosen one are kept."""

  def __init__(self, workdir: pathlib.Path, keep: int = 1):
    self.folder = workdir.absolute() / FOLDER
    files.check_text(self.folder)
    with self._statistics_named():
      self._manager = orbax_manager.make(
        self.folder,
        dict.fromkeys(('encoder', 'trainer'), ocp.StandardCheckpointHandler),
        best_fn=checkpoint_selection.score,
        preservation_policy=AnyPreservationPolicy(
          [
            LatestN(keep),
            BestN(
              get_metric_fn=checkpoint_selection.score,
              n=1,
              keep_checkpoints_without_metrics=False,
            ),
          ]
        ),
      )

  @contextlib.contextmanager
  def _statistics_named(self) -> Iterator[None]:
    """Names the checkpoint whose statistics orbax, which reads those of all, cannot read."""
    try:
      yield
    except ValueError as error:
      for folder in self.folder.glob('[0-9]*'):
        if found := digests.damage(folder):
          raise UserError(_damaged(folder, found)) from error
      raise

  def __enter__(self) -> 'Checkpoints':
    return self

  def __exit__(self, *_: object) -> None:
    self._manager.close()

  @property
  def latest(self) -> int | None:
    """The newest complete checkpoint's step."""
    step: int | None = self._manager.latest_step()
    return step

  @property
  def steps(self) -> list[int]:
    """The steps of all complete checkpoints, ascending."""
    return sorted(self._manager.all_steps())

  @property
  def chosen(self) -> int | None:
    """The step of the highest `checkpoint_selection.score`; the newest where none has one."""
    return self._manager.best_step() or self.latest

  @property
  def statistics(self) -> dict[int, dict[str, float] | None]:
    """Those of the held-out images, by the checkpoint's step; None where there are none."""
    return {step: self._manager.metrics(step) for step in self.steps}

  def save(self, state: TrainState, statistics: Mapping[str, float]) -> None:
    """Saves a train state under its step; one without statistics is not chosen over others."""
    trainer = {'classifiers': state.params['classifiers'], 'opt_state': state.opt_state}
    items = {'encoder': state.params['encoder'], 'trainer': trainer}
    self._save(int(state.step), items, dict(statistics) or None)

  def save_encoder(self, params: Params) -> None:
    """Saves an encoder that was not trained here, as step 0."""
    self._save(0, {'encoder': params}, None)

  def _save(self, step: int, items: Mapping[str, Any], statistics: dict[str, float] | None) -> None:
    # As numpy arrays: of jax's that lie on several devices orbax has each write a slice, for which
    # it compiles programs in the middle of a run.
    items = jax.device_get(items)
    files.check_room(self.folder, sum(leaf.nbytes for leaf in jax.tree.leaves(items)))
    arguments = {name: ocp.args.StandardSave(item) for name, item in items.items()}
    orbax_manager.save(self._manager, step, arguments, metrics=statistics)

  def restore(self, like: TrainState) -> TrainState | None:
    """Returns the newest whole train state, or None where there is no checkpoint yet.

    Newer ones that are damaged lose their names.

    Args:
      like: a state of the shapes that the config asks for.

    Raises:
      UserError: the checkpoint has other shapes, or holds an encoder alone; none is whole.
    """
    self._set_damaged_aside()
    if self.latest is None:
      return None
    # As numpy arrays, whole in every process; orbax binds jax's to a device, for which the train
    # step would be compiled to another program.
    like = jax.device_get(like)
    trainer = {'classifiers': like.params['classifiers'], 'opt_state': like.opt_state}
    encoder = self.restore_encoder(like.params['encoder'], self.latest)
    trainer = self._restore('trainer', trainer, self.latest)
    params = {'encoder': encoder, 'classifiers': trainer['classifiers']}
    state = TrainState(jax.numpy.int32(self.latest), params, trainer['opt_state'])
    placed: TrainState = jax.device_put(state)
    return placed

  def restore_encoder(self, like: Params, step: int | None) -> Params:
    """Returns the encoder of a checkpoint.

    Args:
      like: an encoder of the shapes that the config asks for.
      step: the checkpoint's; None, as of `latest` and `chosen` where there is none, is an error.

    Raises:
      UserError: there is no checkpoint, or it has other shapes.
    """
    params: Params = self._restore('encoder', like, step)
    return params

  def _set_damaged_aside(self) -> None:
    damaged = {}
    for step in reversed(self.steps):
      found = digests.damage(self.folder / str(step))
      if found is None:
        break
      damaged[step] = found
    if not damaged:
      return
    if len(damaged) == len(self.steps):
      # Renamed, the next run would start from the beginning, and say nothing.
      step, found = next(iter(damaged.items()))
      raise UserError(
        f'{self.folder / str(step)} is damaged ({found}) and no other is whole: put a copy in its '
        'place, or train in another --workdir'
      )
    # Every process has looked before the first one renames.
    distributed.meet()
    for step, found in damaged.items():
      folder = self.folder / str(step)
      logging.getLogger(__name__).warning(
        '%s is damaged (%s): going on from an older one', working_copy.shown(folder), found
      )
      if distributed.is_first():
        with files.explained(folder):
          folder.rename(self.folder / f'damaged_{step}_{time.time_ns()}')
    distributed.share(self.folder)
    self._manager.reload()

  def _restore(self, item: str, like: Any, step: int | None) -> Any:
    if step is None:
      raise UserError(f'no checkpoint in {self.folder}: train first, or check --workdir')
    folder = self.folder / str(step)
    if found := digests.damage(folder):
      raise UserError(_damaged(folder, found))
    try:
      return self._read(item, like, step)
    except (OSError, ValueError) as error:
      # Without digests it is for orbax to find out. All that is missing or garbled raises these, by
      # its documentation; anything else is no fault of the checkpoint.
      reason = str(error).partition('\n')[0]
      raise UserError(
        f'{folder} cannot be read ({reason}): remove it and run train again'
      ) from error

  def _read(self, item: str, like: Any, step: int) -> Any:
    folder, saved = self.folder / str(step), self._manager.item_metadata(step)
    if saved is None or saved.get(item) is None:
      raise UserError(
        f'{folder} holds no {item!r}: it was imported, not trained here; train in another --workdir'
      )
    mismatch = mismatch_message(like, saved[item])
    if mismatch:
      raise UserError(f'{folder} is of another shape than the config: {mismatch}')
    arguments = ocp.args.Composite(**{item: ocp.args.StandardRestore(like)})
    return self._manager.restore(step, args=arguments)[item]
