"""Something limited, such as memory, shared by threads that wait for their part in turn."""

import collections
import contextlib
import threading
from collections.abc import Iterator


class Shares:
  """So much of something; who asks first is served first, so that large parts are not put off."""

  def __init__(self, total: int):
    self._total = self._free = total
    self._waiting: collections.deque[object] = collections.deque()
    self._changed = threading.Condition()

  @contextlib.contextmanager
  def take(self, amount: int) -> Iterator[None]:
    """Waits until so much is free, or all where that is less, and holds it meanwhile."""
    amount, turn = min(amount, self._total), object()
    with self._changed:
      self._waiting.append(turn)
      self._changed.wait_for(lambda: self._waiting[0] is turn and amount <= self._free)
      self._waiting.popleft()
      self._free -= amount
      self._changed.notify_all()
    try:
      yield
    finally:
      with self._changed:
        self._free += amount
        self._changed.notify_all()
