"""Train states on disk, with orbax.

A checkpoint is a folder `<step>` with the items 'encoder' (parameters) and 'trainer' (the rest of
the train state). Orbax writes under another name and renames, so a folder with a number is
complete.
"""

import errno
import os
import pathlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.training import Params, TrainState

# No space left, over the quota, over the largest size of a file.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)


def error_number(error: Exception) -> int | None:
  """The errno of an OSError, or of a ValueError by which tensorstore reports one."""
  quoted = re.search(r"os_error_code='(\d+)'", str(error))
  return int(quoted[1]) if quoted else getattr(error, 'errno', None)


@contextmanager
def explain_disk_errors(folder: pathlib.Path) -> Iterator[None]:
  """Turns what a disk can do to a writer into one line."""
  verbosity = logging.get_verbosity()
  # Orbax raises what its threads raise, and logs it with a traceback besides.
  logging.set_verbosity(logging.FATAL)
  try:
    yield
  except (OSError, ValueError) as error:
    number = error_number(error)
    if number in FULL:
      raise UserError(
        f'no space left on the disk of {folder}: free some and run the same command again; the '
        f'checkpoints there are whole'
      ) from error
    if number in READ_ONLY:
      raise UserError(f'cannot write to {folder}: {os.strerror(number)}') from error
    raise
  finally:
    logging.set_verbosity(verbosity)


def describe_mismatch(expected: Any, found: Any) -> str | None:
  """The first parameter whose shape is not the expected one, in words."""
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


class Checkpoints:
  """The checkpoints of one workdir; the newest `keep` of them are kept."""

  def __init__(self, workdir: str | pathlib.Path, keep: int = 1):
    self.folder = pathlib.Path(workdir).absolute() / 'checkpoints'
    with explain_disk_errors(self.folder):
      self._manager = ocp.CheckpointManager(
        self.folder,
        item_handlers={name: ocp.StandardCheckpointHandler() for name in ('encoder', 'trainer')},
        options=ocp.CheckpointManagerOptions(
          max_to_keep=keep,
          # The state is donated to the next step: it must be on disk before that.
          enable_async_checkpointing=False,
        ),
      )

  def __enter__(self) -> 'Checkpoints':
    return self

  def __exit__(self, *_: object) -> None:
    self._manager.close()

  @property
  def latest(self) -> int | None:
    """The newest complete checkpoint's step."""
    return self._manager.latest_step()

  def save(self, state: TrainState) -> None:
    """Saves a train state under its step."""
    trainer = {'classifiers': state.params['classifiers'], 'opt_state': state.opt_state}
    self._save(int(state.step), encoder=state.params['encoder'], trainer=trainer)

  def save_encoder(self, params: Params) -> None:
    """Saves an encoder that was not trained here, as step 0."""
    self._save(0, encoder=params)

  def _save(self, step: int, **items: Any) -> None:
    arguments = {name: ocp.args.StandardSave(item) for name, item in items.items()}
    with explain_disk_errors(self.folder):
      self._manager.save(step, args=ocp.args.Composite(**arguments), force=True)

  def restore(self, like: TrainState) -> TrainState | None:
    """The newest train state, or None where there is no checkpoint yet.

    Args:
      like: a state of the shapes that the config asks for.

    Raises:
      UserError: the checkpoint has other shapes, or holds an encoder alone.
    """
    if self.latest is None:
      return None
    trainer = {'classifiers': like.params['classifiers'], 'opt_state': like.opt_state}
    encoder = self.restore_encoder(like.params['encoder'])
    trainer = self._restore('trainer', trainer)
    params = {'encoder': encoder, 'classifiers': trainer['classifiers']}
    state = TrainState(jax.numpy.int32(self.latest), params, trainer['opt_state'])
    # Orbax binds arrays to a device, for which the train step would be compiled to another program.
    return jax.device_put(jax.device_get(state))

  def restore_encoder(self, like: Params) -> Params:
    """The newest encoder.

    Raises:
      UserError: there is no checkpoint, or it has other shapes.
    """
    return self._restore('encoder', like)

  def _restore(self, item: str, like: Any) -> Any:
    if self.latest is None:
      raise UserError(f'no checkpoint in {self.folder}: train first, or check --workdir')
    saved = self._manager.item_metadata(self.latest)
    if saved is None or saved.get(item) is None:
      raise UserError(
        f'{self.folder / str(self.latest)} holds no {item!r}: it was imported, not trained here; '
        f'train in another --workdir'
      )
    mismatch = describe_mismatch(like, saved[item])
    if mismatch:
      raise UserError(
        f'{self.folder / str(self.latest)} is of another shape than the config: {mismatch}'
      )
    arguments = ocp.args.Composite(**{item: ocp.args.StandardRestore(like)})
    return self._manager.restore(self.latest, args=arguments)[item]
