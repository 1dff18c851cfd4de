"""What is found of one image: in pages, in answers of the server, and as a line of JSON."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from patch_svdd_jax.detection.regions import Region
from patch_svdd_jax.models.geometry import ImageSize


@dataclasses.dataclass(frozen=True)
class Prediction:
  """What is found of one image.

  Attributes:
    name: its path; any text.
    score: of the image.
    p_value: the share of normal images that score so high; None where it is unknown.
    alarm: the verdict; None where there is none.
    size: (height, width) of the file, in pixels.
    regions: where it looks anomalous, in pixels of the file.
    warnings: what shows that it looks otherwise than normal images.
    digest: of the content of its file; '' where there is none.
  """

  name: str
  score: float
  p_value: float | None = None
  alarm: bool | None = None
  size: ImageSize = (1, 1)
  regions: tuple[Region, ...] = ()
  warnings: tuple[str, ...] = ()
  digest: str = ''

  @property
  def verdict(self) -> str:
    """'alarm' or 'pass'; '' where there is none."""
    return {None: '', True: 'alarm', False: 'pass'}[self.alarm]

  def to_json(self) -> dict[str, Any]:
    """Returns a JSON object: sizes as [width, height], boxes as [left, top, width, height]."""
    record = {
      'image': self.name,
      'verdict': self.verdict,
      'score': self.score,
      'p_value': self.p_value,
      'size': [self.size[1], self.size[0]],
      'regions': [region._asdict() | {'box': list(region.box)} for region in self.regions],
      'warnings': list(self.warnings),
    }
    return record | ({'digest': self.digest} if self.digest else {})

  @classmethod
  def from_json(cls, record: Mapping[str, Any]) -> 'Prediction':
    """Returns what `to_json` gave, of an image with a verdict.

    Raises:
      KeyError, TypeError, ValueError: it gave something else.
    """
    width, height = record['size']
    return cls(
      record['image'],
      record['score'],
      record['p_value'],
      record['verdict'] == 'alarm',
      (height, width),
      tuple(Region(tuple(each['box']), each['area'], each['score']) for each in record['regions']),
      tuple(record['warnings']),
      record.get('digest', ''),
    )
