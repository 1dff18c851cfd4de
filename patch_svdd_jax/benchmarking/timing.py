"""Fair timing: contenders take turns, so that a machine's slow minute is everyone's."""

import time
from collections.abc import Callable, Iterable, Mapping

import numpy as np


def interleave(
  calls: Mapping[str, Callable[[], object]], rounds: Iterable[int]
) -> dict[str, np.ndarray]:
  """Returns the seconds of each call in each round, f64[rounds].

  Every other round goes backwards: no call always follows the same one, whose threads may still
  spin.

  Args:
    calls: each returns when its work is done.
    rounds: their numbers; each calls everyone once.
  """
  seconds: dict[str, list[float]] = {name: [] for name in calls}
  for number in rounds:
    for name in list(calls)[:: -1 if number % 2 else 1]:
      start = time.perf_counter()
      calls[name]()
      seconds[name].append(time.perf_counter() - start)
  return {name: np.array(values) for name, values in seconds.items()}
