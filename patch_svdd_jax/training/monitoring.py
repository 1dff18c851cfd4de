"""How training goes: a progress bar, metrics as JSON lines, and TensorBoard events."""

import contextlib
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence

from tqdm import tqdm

from patch_svdd_jax.system import files
from patch_svdd_jax.training.event_file import EventFile

METRICS = 'metrics.jsonl'
EVENTS = 'tensorboard'


def keep_until(path: pathlib.Path, step: int) -> None:
  """Drops the lines after `step`, which a run that resumes there will write again."""
  if not path.exists():
    return
  kept = [line for line, values in whole_lines(path) if values['step'] <= step]
  files.write(path, ''.join(kept).encode())


def whole_lines(path: pathlib.Path) -> list[tuple[str, dict[str, float]]]:
  """Returns the lines of a file and what they say.

  One without its end was cut off when a process was killed; one that is no JSON was garbled by the
  disk. Neither is worth refusing to train.
  """
  found = []
  for line in path.read_text(encoding='utf-8', errors='replace').split('\n')[:-1]:
    with contextlib.suppress(ValueError):
      values = json.loads(line)
      if isinstance(values, dict) and 'step' in values:
        found.append((f'{line}\n', values))
  return found


def read(workdir: pathlib.Path) -> list[dict[str, float]]:
  """Returns the lines that were recorded; none where nothing was."""
  path = workdir / METRICS
  return [values for _, values in whole_lines(path)] if path.exists() else []


class MetricsFiles:
  """The metrics of one run in its workdir: JSON lines and TensorBoard events."""

  def __init__(self, workdir: pathlib.Path, first_step: int, pairs_per_step: int):
    self.workdir = workdir
    self.step = first_step
    with files.explained(workdir):
      keep_until(workdir / METRICS, first_step)
      self._lines = (workdir / METRICS).open('a', encoding='utf-8', newline='\n')
      (workdir / EVENTS).mkdir(exist_ok=True)
      self._events = EventFile(workdir / EVENTS, first_step)
    self._pairs_per_step = pairs_per_step

  def write(self, step: int, metrics: Mapping[str, float], seconds: float) -> float:
    """Takes what `TrainingMonitor.record` does; returns the pairs a second."""
    rate = (step - self.step) / seconds
    speeds = {'steps_per_s': rate, 'pairs_per_s': rate * self._pairs_per_step}
    self.append(step, {**metrics, **speeds})
    self.step = step
    return speeds['pairs_per_s']

  def append(self, step: int, values: Mapping[str, float]) -> None:
    """Writes named values at a step."""
    with files.explained(self.workdir):
      self._lines.write(json.dumps({'step': step, **values}) + '\n')
      self._lines.flush()
      self._events.write(step, values)

  def close(self) -> None:
    """Closes both files."""
    with files.explained(self.workdir), contextlib.closing(self._events):
      self._lines.close()


class ProgressBar:
  """The bar of a run or a population: its speed and time left; a context manager."""

  def __init__(self, first_step: int, steps: int, title: str):
    self._bar = tqdm(initial=first_step, total=steps, desc='Compiling', unit='step')
    self._title = title

  def __exit__(self, *_: object) -> None:
    self._bar.close()

  def start(self) -> None:
    """Starts the bar's clock: its speed and time left are those of training."""
    self._bar.set_description(self._title)
    self._bar.unpause()

  def warn(self, text: str) -> None:
    """Shows a line above the bar."""
    self._bar.write(f'warning: {text}', file=sys.stderr)

  def _advance(self, step: int, loss: float, pairs_per_s: float) -> None:
    self._bar.set_postfix_str(f'loss {loss:.3f}, {pairs_per_s:.4g} pairs/s', refresh=False)
    self._bar.update(step - self._bar.n)


class TrainingMonitor(ProgressBar):
  """Records the metrics of every call of the train step; a context manager."""

  def __init__(self, workdir: pathlib.Path, first_step: int, steps: int, pairs_per_step: int):
    self._files = MetricsFiles(workdir, first_step, pairs_per_step)
    super().__init__(first_step, steps, 'Training')

  def __enter__(self) -> 'TrainingMonitor':
    return self

  def __exit__(self, *_: object) -> None:
    super().__exit__()
    self._files.close()

  def record(self, step: int, metrics: Mapping[str, float], seconds: float) -> None:
    """Takes the mean metrics of the call that ended at `step` after `seconds` of computing.

    Compilation, evaluation and saving are not in `seconds`, so that the speeds are the step's own.
    """
    pairs_per_s = self._files.write(step, metrics, seconds)
    self._advance(step, metrics['loss'], pairs_per_s)

  def record_validation(self, step: int, statistics: Mapping[str, float]) -> None:
    """Takes the statistics of the held-out images at `step`, recorded as 'held_out/...'."""
    if statistics:
      self._files.append(step, {f'held_out/{name}': value for name, value in statistics.items()})


class PopulationMonitor(ProgressBar):
  """Writes metrics of runs that are trained at once, each with a workdir of its own."""

  def __init__(
    self,
    workdirs: Sequence[pathlib.Path],
    first_steps: Sequence[int],
    steps: int,
    pairs_per_step: int,
    title: str,
  ):
    self._files = [
      MetricsFiles(workdir, first, pairs_per_step)
      for workdir, first in zip(workdirs, first_steps, strict=True)
    ]
    super().__init__(min(first_steps), steps, title)

  def __enter__(self) -> 'PopulationMonitor':
    return self

  def __exit__(self, *_: object) -> None:
    super().__exit__()
    for writer in self._files:
      writer.close()

  def record(
    self, step: int, members: Mapping[int, tuple[int, Mapping[str, float]]], seconds: float
  ) -> None:
    """Takes the step that all have reached, and of each that moved its own step and metrics."""
    pairs = sum(
      self._files[index].write(reached, metrics, seconds)
      for index, (reached, metrics) in members.items()
    )
    if members:
      losses = [metrics['loss'] for _, metrics in members.values()]
      self._advance(step, sum(losses) / len(losses), pairs)

  def lost(self, index: int, step: int) -> None:
    """Says that a member's loss is no longer finite."""
    self.warn(
      f'{self._files[index].workdir}: the loss became infinite or NaN at step {step + 1}; the '
      'others go on'
    )


class SilentMonitor:
  """Records nothing: of several processes, the first one does."""

  def __enter__(self) -> 'SilentMonitor':
    return self

  def __exit__(self, *_: object) -> None:
    pass

  def start(self) -> None:
    """Does as `TrainingMonitor.start`."""

  def record(self, step: int, metrics: Mapping[str, float], seconds: float) -> None:
    """Does as `TrainingMonitor.record`."""

  def record_validation(self, step: int, statistics: Mapping[str, float]) -> None:
    """Does as `TrainingMonitor.record_validation`."""

  def warn(self, text: str) -> None:
    """Does as `TrainingMonitor.warn`."""
