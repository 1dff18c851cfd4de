"""Orbax's keeper of numbered folders, which of several processes the first one alone writes.

Orbax would have all take part, on one disk that they share. What is saved here is whole in each
process, and each may have a disk of its own.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp

from patch_svdd_jax.system import digests, distributed, files

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
  if jax.process_count() > 1:
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
  """Saves items under a number, in the first process, and seals them; all see it afterwards.

  Raises:
    UserError: they cannot be written.
  """
  folder = pathlib.Path(manager.directory)
  if distributed.is_first():
    with files.orbax_writes(folder):
      manager.save(number, args=ocp.args.Composite(**items), force=True, **options)
      digests.seal(folder / str(number))
  distributed.share(folder)
  if not distributed.is_first():
    manager.reload()
