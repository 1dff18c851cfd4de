"""How training goes: a progress bar, metrics as JSON lines, and TensorBoard events."""

import json
import os
import pathlib
from collections.abc import Mapping

from tensorboardX import SummaryWriter
from tqdm import tqdm

METRICS = 'metrics.jsonl'
EVENTS = 'tensorboard'


def keep_until(path: pathlib.Path, step: int) -> None:
  """Drops the lines after `step`, which a run that resumes there will write again."""
  if not path.exists():
    return
  kept = []
  for line in path.read_text().splitlines(keepends=True):
    # A line without its end was cut off when a process was killed.
    if line.endswith('\n') and json.loads(line)['step'] <= step:
      kept.append(line)
  unfinished = path.with_suffix('.tmp')
  unfinished.write_text(''.join(kept))
  os.replace(unfinished, path)


class TrainingMonitor:
  """Records the metrics of every call of the train step; a context manager."""

  def __init__(self, workdir: pathlib.Path, first_step: int, steps: int, pairs_per_step: int):
    keep_until(workdir / METRICS, first_step)
    self._lines = (workdir / METRICS).open('a')
    self._events = SummaryWriter(str(workdir / EVENTS), purge_step=first_step + 1)
    self._bar = tqdm(initial=first_step, total=steps, desc='Compiling', unit='step')
    self._step = first_step
    self._pairs_per_step = pairs_per_step

  def __enter__(self) -> 'TrainingMonitor':
    return self

  def __exit__(self, *_: object) -> None:
    self._bar.close()
    self._lines.close()
    self._events.close()

  def start(self) -> None:
    """Starts the bar's clock: its speed and time left are those of training."""
    self._bar.set_description('Training')
    self._bar.unpause()

  def record(self, step: int, metrics: Mapping[str, float], seconds: float) -> None:
    """Takes the mean metrics of the call that ended at `step` after `seconds` of computing.

    Compilation, evaluation and saving are not in `seconds`, so that the speeds are the step's own.
    """
    rate = (step - self._step) / seconds
    speeds = {'steps_per_s': rate, 'pairs_per_s': rate * self._pairs_per_step}
    self._lines.write(json.dumps({'step': step, **metrics, **speeds}) + '\n')
    self._lines.flush()
    for name, value in {**metrics, **speeds}.items():
      self._events.add_scalar(name, value, step)
    self._bar.set_postfix_str(
      f'loss {metrics["loss"]:.3f}, {speeds["pairs_per_s"]:.4g} pairs/s', refresh=False
    )
    self._bar.update(step - self._step)
    self._step = step
