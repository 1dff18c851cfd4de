"""Beginning anew in a folder: what a run has made there goes, and nothing else."""

import pathlib
import shutil
from collections.abc import Iterable, Sequence

from patch_svdd_jax import configuration
from patch_svdd_jax.data import report
from patch_svdd_jax.detection import detector
from patch_svdd_jax.experiments import data_record, gain_record
from patch_svdd_jax.system import distributed, files, working_copy
from patch_svdd_jax.training import checkpoints, monitoring

# In this order: a run that lost its checkpoints begins anew, and until then it knows its data.
RUN = (
  checkpoints.FOLDER,
  detector.FOLDER,
  'eval',
  monitoring.METRICS,
  monitoring.EVENTS,
  gain_record.FILE,
  report.FILE,
  configuration.FILE,
  data_record.FILE,
)


def clear_run(workdir: pathlib.Path) -> None:
  """Removes what a run has made in its workdir; returns when all processes may begin.

  Raises:
    UserError: it cannot be removed.
  """
  clear([workdir], RUN)


def clear_experiment(workdir: pathlib.Path, record: str, runs: Iterable[pathlib.Path] = ()) -> None:
  """Removes the record of an experiment, and what its runs have made; otherwise as `clear_run`.

  Args:
    workdir: of the experiment.
    record: the name of its JSON file.
    runs: the workdirs of its runs.
  """
  clear(runs, RUN)
  clear([workdir], [record, data_record.FILE])


def clear(folders: Iterable[pathlib.Path], names: Sequence[str]) -> None:
  """Removes files and folders of these names from folders."""
  for folder in folders:
    if distributed.is_first():
      for name in names:
        remove(folder / name)
      # What is made next must not be found in a store beside what was to go.
      working_copy.upload(folder)
    distributed.share(folder)
  distributed.meet()


def remove(place: pathlib.Path) -> None:
  """Removes a file, or a folder with all that is in it, which first loses its name."""
  doomed = place.with_name(f'{place.name}.removed')
  with files.explained(place):
    # Of a process that was killed meanwhile.
    shutil.rmtree(doomed, ignore_errors=True)
    if place.is_dir() and not place.is_symlink():
      place.rename(doomed)
      shutil.rmtree(doomed)
    else:
      place.unlink(missing_ok=True)
