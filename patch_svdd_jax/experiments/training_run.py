"""A training run in a workdir: it goes on where it was, and ends with a fitted detector."""

import contextlib
import logging
import pathlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NamedTuple

import ml_collections

from patch_svdd_jax import config_rules, configuration, data
from patch_svdd_jax.data import image_size, report, value_range
from patch_svdd_jax.detection import bank_building, calibration_scores
from patch_svdd_jax.detection.detector import Detector
from patch_svdd_jax.experiments import additions_run, data_record
from patch_svdd_jax.models import judged_patches, mean_image
from patch_svdd_jax.models.architecture import strides_of
from patch_svdd_jax.models.encoder import Params
from patch_svdd_jax.system import distributed, files, profiling, signals
from patch_svdd_jax.system.batching import Progress
from patch_svdd_jax.system.profiling import Profile
from patch_svdd_jax.training import (
  checkpoint_selection,
  loop,
  monitoring,
  train_state,
  validation,
)
from patch_svdd_jax.training.checkpoints import Checkpoints
from patch_svdd_jax.training.collapse import CollapseWatch
from patch_svdd_jax.training.monitoring import SilentMonitor, TrainingMonitor

# What may differ when a run is resumed: it changes where a run ends or what is kept, not its steps.
FREE = (
  *configuration.WITHOUT_EFFECT,
  'config.checkpoint.every:',
  'config.train.on_collapse:',
  'config.score.',
)


class StopRequest:
  """Remembers a Ctrl-C or SIGTERM, so that a run can save before it leaves.

  Of several processes, which all have to ask at the same step, any one's signal stops all.
  """

  def __init__(self) -> None:
    self.signal = 0

  def __call__(self) -> bool:
    self.signal = distributed.maximum(self.signal)
    return bool(self.signal)

  @contextlib.contextmanager
  def listening(self) -> Iterator['StopRequest']:
    """Catches the signals while training runs; a second one is not waited for."""

    def note(number: int, _: FrameType | None) -> None:
      if self.signal:
        return
      self.signal = number
      print('\nstopping after this call of the train step ...', file=sys.stderr)
      if not signals.heed(number):
        signal.signal(number, before[number])

    if threading.current_thread() is not threading.main_thread():
      yield self  # Python tells signals to the main thread alone
      return
    before: dict[int, Any] = {
      number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
      with signals.patient(None):
        yield self
    finally:
      for number, handler in before.items():
        signal.signal(number, handler)


def check_resumable(
  config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> ml_collections.ConfigDict:
  """Refuses to resume with another config than the workdir was started with, shown key by key.

  What config.data leaves to the training images may be any.

  Returns:
    The config, where config.data.value_range is open with that of the workdir.
  """
  if not (workdir / configuration.FILE).exists():
    return config
  before = configuration.load(workdir)
  sides = zip(config.data.image_size, before.data.image_size, strict=True)
  config = value_range.resolved(config, before.data.value_range)
  same_size = image_size.resolved(config, [side or own for side, own in sides])
  # A cosine decay ends at the last step: another end is another rate at every step.
  free = FREE if config.train.decay == 'cosine' else (*FREE, 'config.train.steps:')
  configuration.check_unchanged(before, same_size, workdir, free)
  return config


class StoppedError(Exception):
  """Training was told to stop, and has saved; `status` is that of the command."""

  def __init__(self, workdir: pathlib.Path, step: int, number: int):
    super().__init__(
      f'stopped at step {step} of {workdir}: run the same command, without --restart, to resume'
    )
    self.status = 128 + number


class TrainedEncoder(NamedTuple):
  """An encoder that was trained to the end.

  Attributes:
    config: the whole config, with the images' size.
    params: of the chosen checkpoint.
    step: that it has taken.
    reason: which checkpoint that is and why, in words.
  """

  config: ml_collections.ConfigDict
  params: Params
  step: int
  reason: str


def train(
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  dataset: data.Dataset,
  *,
  progress: Callable[[str], Progress],
  calibrated: bool = False,
  profile: Profile = profiling.OFF,
) -> tuple[Detector, str]:
  """Trains from the newest checkpoint of a workdir on, then fits the detector and saves it.

  Args:
    config: whole, let pass by `config_rules.validate` and `check_resumable`.
    workdir: of the run; made where it is missing.
    dataset: of the config.
    progress: makes what wraps the batches of a task with this title.
    calibrated: whether the detector's scores of normal images are measured too.
    profile: records some of the steps.

  Returns:
    The detector, and which checkpoint it is made of and why, in words.

  Raises:
    StoppedError: on Ctrl-C or SIGTERM.
    UserError: a setting makes no sense for these images, or the run cannot go on, as where it began
      with others.
  """
  trained = train_encoder(config, workdir, dataset, calibrated, profile)
  detector = fit_detector(
    trained.config,
    trained.params,
    workdir,
    dataset,
    step=trained.step,
    progress=progress,
    calibrated=calibrated,
  )
  return detector, trained.reason


def check_neighbours(
  config: ml_collections.ConfigDict, dataset: data.Dataset, calibrated: bool
) -> None:
  """Refuses, before hours of training, what the detector's memory banks will have too few rows for.

  Raises:
    UserError: names config.score.neighbours.
  """
  images = count = len(dataset.train)
  if calibrated:
    images = calibration_scores.fewest_images(config, count, len(dataset.held_out))
  height, width = dataset.train.images.shape[1:3]
  bank_building.check_neighbours(config, images, (height, width), dataset.train.regions)


def train_encoder(
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  dataset: data.Dataset,
  calibrated: bool = False,
  profile: Profile = profiling.OFF,
) -> TrainedEncoder:
  """Trains from the newest checkpoint of a workdir on, without a detector; otherwise as `train`."""
  normal = dataset.train.images
  is_open = not all(config.data.image_size)
  config = data.resolved(check_resumable(config, workdir), dataset)
  if is_open:
    config_rules.validate(config)
    check_resumable(config, workdir)
  check_neighbours(config, dataset, calibrated)
  regions = dataset.train.regions
  if regions is not None:
    judged_patches.check(config, regions)
    if text := judged_patches.warning(config, regions):
      logging.getLogger(__name__).warning('%s', text)
  data_record.begin(workdir, data_record.RUN, data_record.contents(dataset, data_record.TRAINING))
  mean = mean_image.training_mean(normal, config.train.mean, regions)
  validate = validation.make_validation(
    config,
    strides_of(config),
    normal,
    dataset.held_out.images,
    mean,
    data.regions_of(dataset.train, dataset.held_out),
  )
  initial = train_state.init_state(config)
  if distributed.is_first():
    configuration.save(config, workdir)
    if dataset.report.groups:
      files.write_json(workdir / report.FILE, dataset.report.to_json())
  with Checkpoints(workdir, config.checkpoint.keep) as checkpoints:
    state = checkpoints.restore(initial) or initial
    monitor: TrainingMonitor | SilentMonitor = SilentMonitor()
    if distributed.is_first():
      monitor = TrainingMonitor(
        workdir, int(state.step), config.train.steps, loop.pairs_per_step(config)
      )
    stop = StopRequest()
    with monitor, stop.listening():
      outcome = loop.fit(
        config,
        state,
        normal,
        mean,
        loop.Callbacks(
          monitor,
          checkpoints,
          validate,
          CollapseWatch(config, monitoring.read(workdir)),
          stop,
          profile,
        ),
        regions,
      )
    # Also at the last step: the detector is fitted by the same command then.
    if not outcome.finished or stop():
      raise StoppedError(workdir, int(outcome.state.step), stop.signal)
    step = checkpoints.chosen or 0
    params = checkpoints.restore_encoder(outcome.state.params['encoder'], step)
    reason = checkpoint_selection.explain(checkpoints.statistics, step)
  return TrainedEncoder(config, params, step, reason)


def fit_detector(
  config: ml_collections.ConfigDict,
  params: Params,
  workdir: pathlib.Path,
  dataset: data.Dataset,
  *,
  step: int,
  progress: Callable[[str], Progress],
  calibrated: bool,
  keep: bool = False,
) -> Detector:
  """Fits the detector of an encoder that took so many steps, and saves it.

  Arguments are those of `train` and of `Detector.save`.
  """
  config = data.resolved(config, dataset)
  check_neighbours(config, dataset, calibrated)
  detector = Detector.fit(
    config,
    params,
    dataset.train.images,
    step=step,
    progress=progress('Embedding'),
    regions=dataset.train.regions,
  )
  if calibrated:
    detector = calibration_scores.calibrate(
      detector, dataset.train, dataset.held_out, progress('Calibrating')
    )
  if calibrated:
    detector = additions_run.again(workdir, detector)
  detector.save(workdir, keep=keep)
  return detector
