"""Results as lines of JSON on standard output."""

from patch_svdd_jax.line.journal import Event
from patch_svdd_jax.line.outbox import AwayError
from patch_svdd_jax.system import streams


class JsonLines:
  """Prints each event."""

  name = 'json'

  def send(self, event: Event) -> None:
    """Prints it; see `Sink`."""
    print(event.body.decode())
    if lost := streams.lost_output():
      raise AwayError(f'standard output was lost: {lost.strerror}')

  def close(self) -> None:
    """Does nothing: standard output is not this module's."""
