"""Ways from a file to a score: the detector, with other searches too, and its exported files.

Each runs in a process of its own, where it is made by `Contender` functions below and asked for
`one` image or a `stream` of them, which go the way that `serve` and `predict` go.
"""

import dataclasses
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from patch_svdd_jax.benchmarking import peers
from patch_svdd_jax.benchmarking.peers import Search
from patch_svdd_jax.data import Split, image_stream
from patch_svdd_jax.data.file_search import Source
from patch_svdd_jax.detection import inspection
from patch_svdd_jax.detection.detector import Detector
from patch_svdd_jax.detection.inspection import Limits
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.evaluation.evaluate import peak_memory
from patch_svdd_jax.models.geometry import ImageSize
from patch_svdd_jax.search import memory_bank
from patch_svdd_jax.search.nearest import Neighbours

# The false-alarm rates that verdicts are made at; they change no time worth speaking of.
RATE = 0.01
# What an exported file does in one program: it cannot be divided.
PROGRAM = 'program'


class Answer(NamedTuple):
  """The scores f32[N] of images, and the seconds of each stage, an image."""

  scores: np.ndarray
  seconds: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Contender:
  """A way from images to scores.

  Attributes:
    inspect: scores a split, padded to so many images.
    data: `config.data`, by which files are decoded.
    alone: what one image is padded to.
    batch: images that are scored at a time.
    region: of interest, bool[H, W], that all images have in common.
  """

  inspect: Callable[[Split, int], Answer]
  data: ml_collections.ConfigDict
  alone: int
  batch: int
  region: np.ndarray | None = None


class Once(NamedTuple):
  """One image by itself: seconds from its file to its verdict, those of each stage, its score."""

  seconds: float
  stages: dict[str, float]
  score: float


class Streamed(NamedTuple):
  """Images in batches, decoded ahead: seconds of all, of each stage an image, the scores f32[N].

  The stage 'decode' has the time of a processor, since other stages run meanwhile.
  """

  seconds: float
  stages: dict[str, float]
  scores: np.ndarray


def one(contender: Contender, source: Source) -> Once:
  """Scores one file, waiting for each stage before the next, as `serve` does."""
  start = time.perf_counter()
  split = image_stream.read(source, contender.data, region=contender.region)
  decoded = time.perf_counter()
  found = contender.inspect(split, contender.alone)
  seconds = time.perf_counter() - start
  return Once(seconds, {'decode': decoded - start} | dict(found.seconds), float(found.scores[0]))


def stream(contender: Contender, sources: Sequence[Source]) -> Streamed:
  """Scores files in batches, while threads decode the next ones, as `predict` does.

  Raises:
    UserError: a file cannot be read.
  """
  scores, stages = [], {'decode': 0.0}
  start = time.perf_counter()
  for batch in image_stream.batches(sources, contender.batch, contender.data, contender.region):
    if batch.split is None or batch.failures:
      raise UserError(batch.failures[0][1])
    found = contender.inspect(batch.split, contender.batch)
    scores.append(found.scores)
    stages['decode'] += batch.seconds / len(sources)
    for stage, each in found.seconds.items():
      stages[stage] = stages.get(stage, 0.0) + each * len(batch.split) / len(sources)
  return Streamed(time.perf_counter() - start, stages, np.concatenate(scores))


def peak(contender: Contender) -> int:
  """Returns the most bytes that the contender's process, or its device, has held."""
  del contender
  return peak_memory()


def load(workdir: pathlib.Path, size: ImageSize) -> Detector:
  """Loads a detector for images of a size, of which its mean image must be too."""
  return resize(Detector.load(workdir), size)


def resize(detector: Detector, size: ImageSize) -> Detector:
  """Returns the detector for images of another size."""
  config = detector.config.copy_and_resolve_references()
  config.data.image_size = size
  return dataclasses.replace(detector, origin=detector.origin._replace(config=config))


def limits(detector: Detector) -> Limits:
  """Returns those that verdicts are made by.

  Raises:
    UserError: the detector is not calibrated.
  """
  return inspection.limits(detector, RATE, RATE)


def of_detector(detector: Detector) -> Contender:
  """Makes one of a detector."""
  limit = limits(detector)

  def inspect(split: Split, size: int) -> Answer:
    found = inspection.inspect_padded(detector, split, limit, size)
    return Answer(found.scores, found.seconds)

  return Contender(
    inspect,
    detector.config.data,
    alone=jax.local_device_count(),
    batch=inspection.batch_size(detector),
    region=detector.region,
  )


def make_ours(workdir: pathlib.Path, size: ImageSize) -> Contender:
  """Makes one of the detector as it is."""
  return of_detector(load(workdir, size))


@dataclasses.dataclass(frozen=True)
class OtherSearch(Detector):
  """A detector without memory banks, whose nearest rows another library finds.

  Attributes:
    searches: of each receptive field.
  """

  searches: Mapping[int, Search] = dataclasses.field(default_factory=dict)

  def _search(self, receptive_field: int, queries: jax.Array) -> Neighbours:
    found = np.asarray(self.searches[receptive_field](np.asarray(queries)), np.float32)
    distances = jnp.asarray(found.reshape(len(queries), -1))
    # Nobody asks for the numbers of the rows.
    return Neighbours(distances, jnp.full(distances.shape, -1), jnp.float32(0))


def centred(prepare: Callable[[np.ndarray, int], Search], rows: np.ndarray, k: int) -> Search:
  """Prepares a search among rows f32[N, D] less their mean, which changes no distance.

  Beside the mean the distances are so small that those who compute them by products would lose
  their digits.
  """
  centre = rows.mean(axis=0, dtype=np.float64, keepdims=True).astype(np.float32)
  search = prepare(rows - centre, k)
  return lambda queries: search(queries - centre)


def with_search(detector: Detector, name: str) -> OtherSearch:
  """Returns the detector with the search of a peer, by its name."""
  prepare, neighbours = peers.PEERS[name].prepare, detector.config.score.neighbours
  searches = {
    k: centred(prepare, memory_bank.to_rows(bank), neighbours) for k, bank in detector.banks.items()
  }
  return OtherSearch(
    detector.origin, detector.params, detector.mean, {}, detector.calibration, searches=searches
  )


def make_with_search(workdir: pathlib.Path, size: ImageSize, name: str) -> Contender:
  """Makes one of the detector with the search of a peer."""
  return of_detector(with_search(load(workdir, size), name))


# Images u8[N, H, W, 3] to the results of an exported file, by name.
Score = Callable[[np.ndarray], Mapping[str, Any]]


def of_export(score: Score, config: ml_collections.ConfigDict) -> Contender:
  """Makes one of an exported detector, which brings images to the same light itself.

  Args:
    score: runs it.
    config: the detector's.
  """
  data = config.data.copy_and_resolve_references()
  data.light, data.region = 'kept', ''

  def inspect(split: Split, size: int) -> Answer:
    count = len(split)
    start = time.perf_counter()
    found = score(split.images[np.resize(np.arange(count), size)])
    scores = np.asarray(found['score'])[:count]
    return Answer(scores, {PROGRAM: (time.perf_counter() - start) / count})

  return Contender(inspect, data, alone=1, batch=int(config.score.batch_size))


def make_stablehlo(path: pathlib.Path, config: ml_collections.ConfigDict) -> Contender:
  """Makes one of a file in .stablehlo."""
  exported = jax.export.deserialize(bytearray(path.read_bytes()))
  call = jax.jit(exported.call)
  return of_export(lambda images: jax.device_get(call(images)), config)


def make_onnx(path: pathlib.Path, config: ml_collections.ConfigDict) -> Contender:
  """Makes one of a file in .onnx, on ONNX Runtime's CPU."""
  import onnxruntime

  onnxruntime.set_default_logger_severity(3)  # what it says of the graph is nobody's business
  session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
  names = [output.name for output in session.get_outputs()]
  return of_export(
    lambda images: dict(zip(names, session.run(None, {'images': images}), strict=True)), config
  )
