"""How a line does, while it runs: a line on a terminal once a second, elsewhere now and then."""

import sys
import time
from collections.abc import Callable, Sequence

from tqdm import tqdm

from patch_svdd_jax.line.latency import text
from patch_svdd_jax.line.outbox import Outbox
from patch_svdd_jax.line.running import Running

# Seconds between two texts on a terminal, and elsewhere.
TERMINAL, ELSEWHERE = 1.0, 10.0


def counts(images: int, alarms: int, failures: int) -> str:
  """Returns how many images there were, as `predict` says it."""
  return f'{images:,} images: {alarms:,} alarms, {failures:,} could not be read'


def status(line: Running, outboxes: Sequence[Outbox]) -> str:
  """Returns one line of what has come, what waits, and how long it takes."""
  latency = line.latency
  parts = [
    counts(line.images, line.alarms, line.failures),
    f'{line.waiting:,} waiting',
    f'{line.feed.dropped:,} frames dropped' if line.feed.dropped else '',
    f'p50 {text(latency.latest(0.5))}, p95 {text(latency.latest(0.95))}',
    *(f'{box.sink.name}: {box.waiting:,} to send' for box in outboxes if box.waiting),
  ]
  return '; '.join(filter(None, parts))


class Display:
  """Shows the status of a line on standard error, as often as it is worth it."""

  def __init__(self, outboxes: Sequence[Outbox], clock: Callable[[], float] = time.monotonic):
    self._outboxes, self._clock = outboxes, clock
    self._is_terminal = sys.stderr.isatty()
    self._next = clock()
    self._last = ''
    self._bar = tqdm(bar_format='{desc}', disable=not self._is_terminal, leave=False)

  def __call__(self, line: Running) -> None:
    """Shows it, if it is time."""
    now = self._clock()
    if now < self._next:
      return
    shown = status(line, self._outboxes)
    if self._is_terminal:
      self._next = now + TERMINAL
      self._bar.set_description_str(shown)
    else:
      self._next = now + ELSEWHERE
      if shown != self._last and line.images:
        print(shown, file=sys.stderr)
      self._last = shown

  def close(self) -> None:
    """Clears the line."""
    self._bar.close()
