"""Orbax's keeper of numbered folders, for one process, or several.

Orbax has all processes take part in a save, on one disk that they share. Where each has a copy of a
folder in a store, the first one saves by itself, and the others fetch it.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp

from patch_svdd_jax.system import digests, distributed, files, working_copy

Handlers = Mapping[str, type[ocp.StandardCheckpointHandler] | type[ocp.JsonCheckpointHandler]]


def make(folder: pathlib.Path, handlers: Handlers, **options: Any) -> ocp.CheckpointManager:
  """Returns a manager of a folder, which is made where it is missing.

  Args:
    folder: an absolute path.
    handlers: the class of each item's handler.
    **options: of `ocp.CheckpointManagerOptions`.

  Raises:
    UserError: the folder cannot be made.
  """
  processes: dict[str, Any] = {}
  if _is_apart(folder):
    own = jax.process_index()
    processes['multiprocessing_options'] = ocp.options.MultiprocessingOptions(
      primary_host=own, active_processes={own}, barrier_sync_key_prefix=f'process_{own}'
    )
  with files.explained(folder):
    folder.mkdir(parents=True, exist_ok=True)
    return ocp.CheckpointManager(
      folder,
      item_handlers={name: handler(**processes) for name, handler in handlers.items()},
      # A state that is donated to the next step must be on disk before that.
      options=ocp.CheckpointManagerOptions(
        enable_async_checkpointing=False, create=False, **processes, **options
      ),
    )


def save(
  manager: ocp.CheckpointManager, number: int, items: Mapping[str, Any], **options: Any
) -> None:
  """Saves items under a number, and seals them; all processes see it afterwards.

  Raises:
    UserError: they cannot be written.
  """
  folder = pathlib.Path(manager.directory)
  with files.orbax_writes(folder):
    if distributed.is_first() or not _is_apart(folder):
      manager.save(number, args=ocp.args.Composite(**items), force=True, **options)
    if distributed.is_first():
      digests.seal(folder / str(number))
  if not _is_apart(folder):
    working_copy.wake(folder)
    return
  distributed.share(folder)
  if not distributed.is_first():
    manager.reload()


def _is_apart(folder: pathlib.Path) -> bool:
  """Returns whether other processes have copies of a folder, each its own."""
  return jax.process_count() > 1 and working_copy.of(folder) is not None
