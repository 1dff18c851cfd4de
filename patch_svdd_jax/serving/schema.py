"""What requests are answered with, for `/openapi.json`."""

from pydantic import BaseModel, ConfigDict, Field


class _Exact(BaseModel):
  model_config = ConfigDict(extra='forbid')


class Error(_Exact):
  """Why a request was refused."""

  error: str = Field(description='the reason, in one line')


class Region(_Exact):
  """Where an image is anomalous."""

  box: tuple[int, int, int, int] = Field(description='left, top, width, height in pixels')
  area: int = Field(description='square pixels')
  score: float = Field(description="the map's largest value in it")


class Map(_Exact):
  """An anomaly map as colours to lay over the image."""

  png: str = Field(description='base64 of a PNG with transparency; stretch it over the image')
  scale: tuple[float, float] = Field(
    description='the map values of the first and the last colour; their middle is the threshold'
  )


class Answer(_Exact):
  """What is found of an image; sizes and boxes are in pixels of the image, upright."""

  image: str = Field(description='the name of the file')
  verdict: str = Field(description="'alarm' or 'pass'")
  score: float = Field(description='anomaly score, higher is more anomalous')
  p_value: float = Field(description='the share of normal images that score as high')
  size: tuple[int, int] = Field(description='width, height')
  regions: list[Region] = Field(description='of an alarm; the highest score first')
  warnings: list[str] = Field(description='what shows that it looks otherwise than normal images')
  map: Map | None = Field(None, description='with ?map=true')
  photo: str | None = Field(None, description='with ?photo=true: base64 of a JPEG of the image')


class Model(_Exact):
  """The detector."""

  name: str = Field(description='the folder of its run')
  step: int = Field(description='training steps')
  images: str = Field(description='digest of the normal images in its memory bank')


class Threshold(_Exact):
  """What is above `value` is called anomalous."""

  value: float
  rate_asked: float = Field(description='the false-alarm rate that was asked for')
  rate: float = Field(description='the one that the threshold is for')
  ensured: bool = Field(description='whether the normal images are enough to ensure it')


class Queue(_Exact):
  """Requests that are read, decoded, waiting or scored."""

  length: int
  bound: int = Field(description='beyond it the answer is 503')


class Bounds(_Exact):
  """What is accepted."""

  request_bytes: int  # of a request's body
  pixels: int  # of an image


class RegionChange(_Exact):
  """How far the detector is made anew with another region of interest."""

  state: str = Field(description="'none', 'building', 'saved' or 'failed'")
  share: float = Field(description='of the work that is done, from 0 to 1')
  seconds_left: float | None = Field(description='null as long as it cannot be told')
  error: str = Field(description="why it has failed; '' otherwise")


class Added(_Exact):
  """What a good image has changed; pairs are before and after."""

  version: int = Field(description='of the detector, that scores from now on')
  images: tuple[int, int] = Field(description='normal images that calibrate')
  threshold: tuple[float, float] = Field(description='of scores, at the false-alarm rate')
  median: tuple[float, float] = Field(description='score of the normal images')
  score: float = Field(description='of the image, before it was added')
  p_value: float = Field(description='of that score')
  alarm: bool = Field(description='whether it was anomalous before')


class Undone(_Exact):
  """Where an undo has led."""

  version: int = Field(description='of the detector, that scores from now on')
  images: int = Field(description='images that are no longer in it')


class Health(_Exact):
  """The server's state."""

  ready: bool
  model: Model
  threshold: Threshold
  pixel_threshold: Threshold
  calibration_images: int
  queue: Queue
  bounds: Bounds
  scored: int = Field(description='images since the start')
  warnings: list[str] = Field(description='of the rates')
  region: RegionChange | None = Field(
    description='of the region of interest; null where it cannot be changed'
  )
  additions: bool = Field(description='whether good images may be added')
  shift: list[str] = Field(description='how the latest 100 images differ from normal ones')
