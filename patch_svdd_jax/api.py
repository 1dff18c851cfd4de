"""The Python interface: numpy arrays in, numpy arrays out."""

import datetime
import pathlib
import tempfile
from collections.abc import Iterable

import ml_collections
import numpy as np

from patch_svdd_jax import config_rules, configuration
from patch_svdd_jax.data import arrays
from patch_svdd_jax.detection import additions, inspection
from patch_svdd_jax.detection.additions import Moved
from patch_svdd_jax.detection.detector import Addition, Detector
from patch_svdd_jax.detection.inspection import Inspection
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.experiments import training_run
from patch_svdd_jax.experiments.restart import clear_run
from patch_svdd_jax.system import devices, working_copy
from patch_svdd_jax.system.batching import Progress


def no_bars(title: str) -> Progress:
  """Shows no progress."""
  del title
  return lambda batches: batches


class PatchSVDD:
  """An anomaly detector that learns from normal images.

    detector = PatchSVDD.fit(normal_images)
    found = detector.predict(images, false_alarm_rate=0.05)
    found.scores, found.p_values, found.alarms, found.maps

  Attributes:
    detector: encoder, memory banks and calibration.
  """

  def __init__(self, detector: Detector):
    self.detector = detector

  @classmethod
  def fit(
    cls,
    images: Iterable[np.ndarray] | np.ndarray,
    config: ml_collections.ConfigDict | str = 'folder',
    *,
    region: np.ndarray | Iterable[np.ndarray] | None = None,
    workdir: str | pathlib.Path | None = None,
    restart: bool = False,
  ) -> 'PatchSVDD':
    """Trains an encoder on normal images, embeds them, and calibrates.

    Args:
      images: u8[N, h, w, 3] in RGB order, or an iterable of u8[h, w, 3] or u8[h, w] of any sizes.
      config: a config, or the name of one as `--config` takes it, as 'folder' or 'laptop'; of
        config.data the name, category, root and region do not count.
      region: of interest, where images are judged: bool[h, w], for all images, or one for each, of
        the same aspect ratio; None for all of the images.
      workdir: where checkpoints and metrics are kept, and the same call goes on from; None keeps
        nothing.
      restart: whether what a run has left in the workdir is removed first, and training begins
        anew.

    Raises:
      UserError: a setting or an image is at fault, or the workdir has a run of other images.
      StoppedError: it was stopped by Ctrl-C or SIGTERM.
    """
    devices.check()
    if isinstance(config, str):
      config = configuration.read(config)
    if not isinstance(config, ml_collections.ConfigDict):
      raise UserError(f'config is of type {type(config).__name__}: give a ConfigDict, or a name')
    config = config.copy_and_resolve_references()
    own = '' if region is None else 'arrays'
    config.data.update(name='arrays', category='', root='', region=own)
    config_rules.validate(config)
    dataset = arrays.dataset(arrays.listed(images), config.data, region)
    with (
      tempfile.TemporaryDirectory() as temporary,
      working_copy.opened(temporary if workdir is None else workdir) as folder,
    ):
      if restart:
        clear_run(folder)
      config = training_run.check_resumable(config, folder)
      detector, _ = training_run.train(config, folder, dataset, progress=no_bars, calibrated=True)
    return cls(detector)

  @property
  def config(self) -> ml_collections.ConfigDict:
    """The config it was made with."""
    return self.detector.config

  def predict(
    self,
    images: Iterable[np.ndarray] | np.ndarray,
    *,
    false_alarm_rate: float = 0.01,
    pixel_false_alarm_rate: float = 0.01,
    names: Iterable[str] | None = None,
    region: np.ndarray | Iterable[np.ndarray] | None = None,
  ) -> Inspection:
    """Scores images and judges them, as `patch-svdd predict` does.

    Args:
      images: as of `fit`.
      false_alarm_rate: share of normal images that may be called anomalous. What cannot be ensured
        by the normal images there are is said in `limits(...).warnings`.
      pixel_false_alarm_rate: share of the pixels of a normal image that may be.
      names: of the images, for errors; their numbers if None.
      region: of interest, as for `fit`; None: the one that all images have in common, if any.

    Raises:
      UserError: there are no images, one of them or a rate is none, or the detector is not
        calibrated.
    """
    devices.check()
    # It may have been changed since it was checked.
    config_rules.validate(self.config, training=False)
    limit = inspection.limits(self.detector, false_alarm_rate, pixel_false_alarm_rate)
    given = arrays.listed(images)
    texts = arrays.named(names, len(given))
    split = arrays.resized(given, self.config.data, texts)
    split = arrays.lit(split, self.config.data, region, self.detector.region)
    return inspection.inspect(self.detector, split, limit)

  def add(
    self,
    images: Iterable[np.ndarray] | np.ndarray,
    *,
    false_alarm_rate: float = 0.01,
    names: Iterable[str] | None = None,
  ) -> Moved:
    """Adds good images to the memory banks and the calibration, without training.

    Args:
      images: as for `fit`.
      false_alarm_rate: at which thresholds before and after are compared.
      names: of the images; their numbers if None.

    Returns:
      What that has moved. `save` keeps the detector with them.

    Raises:
      UserError: an image is unusable, or no images can be added to this detector.
    """
    devices.check()
    given = arrays.listed(images)
    split = arrays.resized(given, self.config.data, arrays.named(names, len(given)))
    split = arrays.lit(split, self.config.data, fixed=self.detector.region)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')
    kept = tuple(
      Addition(name, digest, now) for name, digest in zip(split.names, split.digests, strict=True)
    )
    self.detector, moved = additions.add(self.detector, split, kept, false_alarm_rate)
    return moved

  def save(self, workdir: str | pathlib.Path) -> None:
    """Saves it in `workdir`/model, where `load` and `patch-svdd predict --model` find it."""
    with working_copy.opened(workdir) as folder:
      self.detector.save(folder)

  @classmethod
  def load(cls, workdir: str | pathlib.Path) -> 'PatchSVDD':
    """Loads what `save` or `patch-svdd train` left in a workdir.

    Raises:
      UserError: there is nothing.
    """
    devices.check()
    with working_copy.opened(workdir) as folder:
      return cls(Detector.load(folder))
