"""The lines of results: what is predicted of an image, or why it could not be read."""

import json
from typing import Any, NamedTuple

from patch_svdd_jax.detection.prediction import Prediction

# What a finished run has written, and the lines of one that is unfinished.
LINES, TABLE, PAGE = 'results.jsonl', 'results.csv', 'report.html'
UNFINISHED = f'{LINES}.partial'
# What lines of `watch` have besides, which are never written anew: the id of each.
EVENT = 'id'


class Failure(NamedTuple):
  """An image that could not be read, by its name, and why."""

  name: str
  error: str

  def to_json(self) -> dict[str, Any]:
    """Returns the failure as a JSON object."""
    return {'image': self.name, 'error': self.error}


Line = Prediction | Failure


def parse(line: str | bytes) -> Line | None:
  """Returns what a line says; None where it says nothing of an image."""
  try:
    record = json.loads(line)
    if 'error' in record:
      found: Line = Failure(record['image'], record['error'])
    else:
      found = Prediction.from_json(record)
    return found if isinstance(found.name, str) else None
  except (KeyError, TypeError, ValueError):
    return None
