"""An evaluation of the detector in a workdir: it is loaded or fitted anew, and measured."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np

from patch_svdd_jax import config_rules, configuration, data
from patch_svdd_jax.data import duplicates, report
from patch_svdd_jax.detection import distribution_shift, inspection
from patch_svdd_jax.detection.detector import (
  Detector,
  Origin,
  digest_normal,
  load_where,
  saved_origin,
)
from patch_svdd_jax.detection.inspection import Inspection, Limits
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.evaluation import threshold_transfer
from patch_svdd_jax.evaluation.evaluate import (
  Evaluation,
  defects_outside,
  evaluate,
  warn_of_defects_outside,
)
from patch_svdd_jax.evaluation.training_gain import TrainingGain, references
from patch_svdd_jax.experiments import data_record, gain_record, region_run
from patch_svdd_jax.models import encoder
from patch_svdd_jax.reporting import checkpoint_table, compared, evaluation_files
from patch_svdd_jax.reporting.html.evaluated import ReportContext
from patch_svdd_jax.system import distributed, profiling
from patch_svdd_jax.system.batching import Progress
from patch_svdd_jax.system.profiling import Profile
from patch_svdd_jax.training import monitoring
from patch_svdd_jax.training.checkpoints import Checkpoints


def read_config(
  name: str | None, rest: Sequence[str], workdir: pathlib.Path
) -> ml_collections.ConfigDict:
  """Returns the workdir's config, or `--config`, with the overrides.

  Raises:
    UserError: a setting is bad, or its encoder is another than the workdir's.
  """
  own = configuration.load(workdir)
  config = configuration.read(name) if name else region_run.of_detector(own, workdir)
  config = configuration.override(config.copy_and_resolve_references(), rest)
  config = configuration.absolute_places(config)
  config_rules.validate(config, training=False)
  # How an encoder was first drawn is nothing to one that has learned.
  free = ['config.encoder.init:']
  if max(config.encoder.scales) <= max(own.encoder.scales):
    # Fewer scales need nothing that the encoder does not have.
    free.append('config.encoder.scales:')
  changed = [
    line
    for line in configuration.differences(own, config, ['encoder', 'train.mean'])
    if not line.startswith(tuple(free))
  ]
  if changed:
    raise UserError(f'{workdir} holds an encoder of another config: {"; ".join(changed)}')
  return config


def restore_encoder(
  checkpoints: Checkpoints, workdir: pathlib.Path, step: int | None
) -> encoder.Params:
  """Returns the encoder of a checkpoint."""
  # Of the shapes it was saved in: the config may ask for fewer scales.
  shapes = jax.eval_shape(functools.partial(encoder.init_encoder, configuration.load(workdir)))
  return checkpoints.restore_encoder(
    jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes), step
  )


def load_labelled(config: ml_collections.ConfigDict) -> data.Dataset:
  """Returns the data set of `config.data`, which has test images.

  Raises:
    UserError: it has none, some of them cannot be used, or it cannot be loaded.
  """
  dataset = data.load(config)
  check_complete(dataset)
  if not len(dataset.test):
    raise UserError(f'{dataset.name} has no test images: put some into test/good and test/<defect>')
  return dataset


def check_complete(dataset: data.Dataset) -> None:
  """Refuses to measure on some test images where others cannot be used.

  Figures of those that are left would pass for figures of the data set.

  Raises:
    UserError: names those that cannot be used.
  """
  if dataset.report.cases('test_file_unusable'):
    raise UserError(f'{dataset.name}: {report.unusable(dataset.report)}')


def other_data(workdir: pathlib.Path, dataset: data.Dataset) -> str | None:
  """Returns how images to train on differ from those of the workdir's run, in words.

  None where they do not, or where the workdir's detector was fitted on these, or an encoder was
  imported without images.
  """
  found = data_record.contents(dataset, data_record.TRAINING)
  changed = data_record.difference(data_record.read(workdir).get(data_record.RUN), found)
  origin = saved_origin(workdir) if changed else None
  return None if origin and is_fitted_on(origin, origin.config, dataset.train) else changed


def is_fitted_on(origin: Origin, config: ml_collections.ConfigDict, normal: data.Split) -> bool:
  """Returns whether a detector was fitted on these normal images, as far as a config counts."""
  return origin.images == digest_normal(normal.images, normal.regions, config.data.region_share)


def check_data(workdir: pathlib.Path, dataset: data.Dataset) -> None:
  """Refuses to measure a run on other training images than those that it began with.

  Raises:
    UserError: says which images are others.
  """
  if changed := other_data(workdir, dataset):
    raise UserError(
      f'the encoder in {workdir} has learned from other images than its data set has now '
      f'({changed}): train anew, or let `patch-svdd build-bank` fit the detector on these'
    )


def get_detector(
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  dataset: data.Dataset,
  progress: Callable[[str], Progress],
) -> Detector:
  """Returns the chosen checkpoint's detector, fitted anew if the saved one is another's."""
  normal = dataset.train
  with Checkpoints(workdir) as checkpoints:
    step = checkpoints.chosen

    def fits(saved: Origin) -> bool:
      return (
        saved.step == step
        and is_fitted_on(saved, config, normal)
        and not configuration.differences(saved.config, config, ['encoder', 'score'])
      )

    if detector := load_where(workdir, fits):
      return detector
    params = restore_encoder(checkpoints, workdir, step)
  return Detector.fit(
    config,
    params,
    normal.images,
    step=step or 0,
    progress=progress('Embedding normal images'),
    regions=normal.regions,
  )


class Measured(NamedTuple):
  """What a detector scored, beside what, the other checkpoints if asked for, and what to mind."""

  dataset: data.Dataset
  detector: Detector
  evaluation: Evaluation
  others: dict[str, Evaluation]
  rows: list[checkpoint_table.CheckpointRow]
  warnings: list[str]
  copies: list[duplicates.Duplicate]
  gain: TrainingGain | None

  def summary(self) -> dict[str, Any]:
    """Returns the contents of metrics.json."""
    return evaluation_files.summary(
      self.dataset.test, self.evaluation, self.others, self.rows, self.copies, self.gain
    )


def evaluate_run(
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  dataset: data.Dataset,
  *,
  progress: Callable[[str], Progress],
  random_encoder: bool,
  every_checkpoint: bool = False,
  false_alarm_rate: float = 0.01,
  pixel_false_alarm_rate: float = 0.01,
  profile: Profile = profiling.OFF,
) -> Measured:
  """Measures the detector of a workdir, and writes WORKDIR/eval.

  Args:
    config: whole, as of `read_config`.
    workdir: of the run.
    dataset: of the config, with test images.
    progress: makes what wraps the batches of a task with this title.
    random_encoder: whether what needs no training is measured too: an untrained encoder, scored
      as the trained one is, and whitened thumbnails. Where images are held out, also what training
      gains on synthetic anomalies.
    every_checkpoint: whether every checkpoint that was kept is.
    false_alarm_rate: of the report's verdicts and of ClassF1, where the detector is calibrated.
    pixel_false_alarm_rate: of the regions that it shows and of SegF1.
    profile: records some of the batches that the detector scores.
  """
  config = data.resolved(config, dataset)
  distributed.meet()
  detector = get_detector(config, workdir, dataset, progress)
  limit = None
  if detector.calibration:
    limit = inspection.limits(detector, false_alarm_rate, pixel_false_alarm_rate)
  evaluation = evaluate(
    detector,
    dataset.test,
    profile.around('score', progress('Scoring')),
    dataset.categories,
    dataset.lights,
  )
  others: dict[str, Evaluation] = {}
  gain: TrainingGain | None = None
  if config.score.coreset < 1:
    full = config.copy_and_resolve_references()
    full.score.coreset = 1.0
    others[compared.FULL_BANK] = fit_and_evaluate(
      full, detector.params, dataset, 'full bank', progress
    )
  if random_encoder:
    untrained = encoder.init_encoder(config)
    for reference, own in references(config).items():
      name = compared.REFERENCES[reference]
      others[name] = fit_and_evaluate(own, untrained, dataset, compared.words(name), progress)
    gain = gain_record.measure(detector, workdir, dataset, progress)
  rows: list[checkpoint_table.CheckpointRow] = []
  if every_checkpoint:
    rows = evaluate_checkpoints(config, workdir, dataset, evaluation, progress)
  found = inspection.judge(detector, evaluation.scores, dataset.test, limit) if limit else None
  evaluation = dataclasses.replace(evaluation, stages=stage_seconds(dataset, evaluation, found))
  if limit:
    transfer = threshold_transfer.measure(
      inspection.calibrated(detector),
      limit,
      dataset.test,
      evaluation.scores,
      evaluation.maps[evaluation.main_map],
    )
    evaluation = dataclasses.replace(evaluation, thresholds=transfer)
  copies = duplicates.find(dataset)
  warnings = warnings_of_images(dataset.test, copies)
  if limit and found:
    warnings += what_to_mind(detector, limit, found)
  if gain and (lost := gain.warning()):
    warnings.append(lost)
  if distributed.is_first():
    context = ReportContext(
      title=f'{dataset.name}, {detector.origin.step} steps',
      config=config,
      history=monitoring.read(workdir),
      threshold=limit.image if limit else None,
      found=found,
      warnings=[*dataset.report.lines(), *warnings],
      copies=copies,
      gain=gain,
      data=dataset.report,
    )
    evaluation_files.write_evaluation(
      workdir / 'eval', dataset.test, evaluation, others, context, rows
    )
  return Measured(dataset, detector, evaluation, others, rows, warnings, copies, gain)


def stage_seconds(
  dataset: data.Dataset, evaluation: Evaluation, found: Inspection | None
) -> dict[str, float]:
  """Returns the seconds an image of each stage, from what was prepared of its file on."""
  decode = dataset.decode_seconds
  stages = {} if decode is None else {'decode': decode}
  return stages | dict(found.seconds if found else evaluation.scores.seconds)


def warnings_of_images(test: data.Split, copies: Sequence[duplicates.Duplicate]) -> list[str]:
  """Returns warnings of copies among test images, and of defects that no region shows."""
  texts = [duplicates.warn(copies)] if copies else []
  outside = defects_outside(test)
  return [*texts, *([warn_of_defects_outside(outside)] if outside else [])]


def what_to_mind(detector: Detector, limit: Limits, found: Inspection) -> list[str]:
  """Returns warnings of the rates, and of test images that look unlike the normal ones."""
  texts = distribution_shift.of_batch(inspection.calibrated(detector).statistics, found.statistics)
  return [*limit.warnings, *([distribution_shift.warn(texts)] if texts else [])]


def evaluate_checkpoints(
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  dataset: data.Dataset,
  chosen: Evaluation,
  progress: Callable[[str], Progress],
) -> list[checkpoint_table.CheckpointRow]:
  """Measures every checkpoint that was kept, but for the chosen one, which has been."""
  figures = {}
  with Checkpoints(workdir) as checkpoints:
    for step in checkpoints.steps:
      evaluation = chosen
      if step != checkpoints.chosen:
        params = restore_encoder(checkpoints, workdir, step)
        evaluation = fit_and_evaluate(config, params, dataset, f'step {step}', progress)
      figures[step] = evaluation.maps[evaluation.main_map]
    return checkpoint_table.make(figures, checkpoints.statistics, checkpoints.chosen)


def fit_and_evaluate(
  config: ml_collections.ConfigDict,
  params: encoder.Params,
  dataset: data.Dataset,
  title: str,
  progress: Callable[[str], Progress],
) -> Evaluation:
  """Measures a detector that the evaluated one is compared with."""
  detector = Detector.fit(
    config,
    params,
    dataset.train.images,
    step=0,
    progress=progress(f'Embedding normal images, {title}'),
    regions=dataset.train.regions,
  )
  return evaluate(
    detector, dataset.test, progress(f'Scoring, {title}'), dataset.categories, dataset.lights
  )
