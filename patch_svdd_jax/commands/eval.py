"""Measures a detector on labelled test images, beside an untrained encoder of the same shape.

The workdir is one that train or import-authors made. Its own config says which data it is measured
on; another --config, or single keys, can say otherwise. The memory bank is always that of the
config's training images: one that was saved is used if it fits, otherwise the images are embedded
again.

WORKDIR/eval gets report.html, one page that shows it all, metrics.json, maps.npz, overview.png and
overlays/, on one colour scale. The checkpoint is the one that held-out normal images choose; with
--every_checkpoint all that training has kept (config.checkpoint.keep) are measured besides, into
metrics.json and checkpoints.png. The verdicts in the report are those of the false-alarm rates.
--mvtec_maps writes the maps for the evaluation code that MVTec publishes, of the images' own sizes.

  python eval.py --workdir runs/screw
  python eval.py --workdir runs/authors --config configs/mvtec.py:screw --config.data.root=DATA
"""

import argparse
import functools
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import ml_collections
import numpy as np

from patch_svdd_jax import (
  bank_building,
  checkpoint_table,
  configuration,
  data,
  distributed,
  inspection,
  metrics,
  monitoring,
  mvtec_maps,
  results,
  shift,
  train_state,
)
from patch_svdd_jax.checkpoints import Checkpoints
from patch_svdd_jax.commands import console
from patch_svdd_jax.detector import Detector, digest, saved_origin
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.evaluation import Evaluation, evaluate
from patch_svdd_jax.inspection import Inspection, Limits


def boolean(text: str) -> bool:
  """True or false, as in --random_encoder=false."""
  if text.lower() not in ('true', 'false'):
    raise argparse.ArgumentTypeError(f'{text!r} is neither true nor false')
  return text.lower() == 'true'


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the options of `eval`."""
  console.add_config_argument(parser, required=False)
  parser.add_argument('--workdir', required=True, type=console.folder, help='folder of the run')
  console.add_rate_arguments(parser)
  console.add_distributed_argument(parser)
  parser.add_argument(
    '--random_encoder',
    type=boolean,
    default=True,
    metavar='true|false',
    help='measure an untrained encoder of the same shape too (default true): without that row a '
    'trained figure means little',
  )
  parser.add_argument(
    '--every_checkpoint',
    action='store_true',
    help='measure every checkpoint that was kept, to see what choosing one without labels costs',
  )
  parser.add_argument(
    '--mvtec_maps',
    type=console.folder,
    metavar='FOLDER',
    help="write the maps as FOLDER/CATEGORY/test/DEFECT/ID.tiff, as MVTec's code reads them",
  )


def read_config(
  name: str | None, rest: Sequence[str], workdir: pathlib.Path
) -> ml_collections.ConfigDict:
  """The workdir's config, or `--config`, with the overrides.

  Raises:
    UserError: its encoder is another than the workdir's.
  """
  own = configuration.load(workdir)
  config = configuration.override(
    configuration.read(name) if name else own.copy_and_resolve_references(), rest
  )
  changed = configuration.differences(own, config, ['encoder', 'train.mean'])
  if max(config.encoder.scales) <= max(own.encoder.scales):
    # Fewer scales need nothing that the encoder does not have.
    changed = [line for line in changed if not line.startswith('config.encoder.scales:')]
  if changed:
    raise UserError(f'{workdir} holds an encoder of another config: {"; ".join(changed)}')
  return config


def restore_encoder(
  checkpoints: Checkpoints, workdir: pathlib.Path, step: int | None
) -> train_state.Params:
  """The encoder of a checkpoint."""
  # Of the shapes it was saved in: the config may ask for fewer scales.
  shapes = jax.eval_shape(functools.partial(train_state.init_encoder, configuration.load(workdir)))
  return checkpoints.restore_encoder(
    jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes), step
  )


def load_labelled(config: ml_collections.ConfigDict) -> data.Dataset:
  """The data set of `config.data`, which has test images.

  Raises:
    UserError: it has none, or cannot be loaded.
  """
  dataset = data.load(config)
  if not len(dataset.test):
    raise UserError(f'{dataset.name} has no test images: put some into test/good and test/<defect>')
  return dataset


def get_detector(
  config: ml_collections.ConfigDict, workdir: pathlib.Path, dataset: data.Dataset
) -> Detector:
  """The chosen checkpoint's detector; fitted anew where the saved one has another origin."""
  normal = dataset.train.images
  with Checkpoints(workdir) as checkpoints:
    step = checkpoints.chosen
    saved = saved_origin(workdir)
    if (
      saved
      and (saved.step, saved.images) == (step, digest(normal))
      and not configuration.differences(saved.config, config, ['encoder', 'score'])
    ):
      return Detector.load(workdir)
    params = restore_encoder(checkpoints, workdir, step)
  return Detector.fit(
    config,
    params,
    normal,
    step=step or 0,
    progress=console.progress('Embedding normal images'),
  )


def print_tables(evaluation: Evaluation, others: Mapping[str, Evaluation]) -> None:
  """One table of maps, and one of defect types for the last map."""

  def row(name: str, figures: dict[str, float]) -> list[str]:
    return [name, *(f'{figures[metric]:.4f}' for metric in metrics.TITLES)]

  rows = [row(name, figures) for name, figures in evaluation.maps.items()]
  for other, compared in others.items():
    title = other.replace('_', ' ')
    rows += [row(f'{title} {name}', figures) for name, figures in compared.maps.items()]
  print(console.table(['map', *metrics.TITLES.values()], rows))
  name, types = list(evaluation.per_defect.items())[-1]
  if types:
    rows = [row(defect, figures) for defect, figures in types.items()]
    print('\n' + console.table([f'defect ({name})', *metrics.TITLES.values()], rows))
  print('F1 is at the threshold that is best for these test labels.')


def print_reduction(share: float, errors: Mapping[str, Mapping[str, float]]) -> None:
  """How much farther the nearest rows of the smaller memory bank are."""
  for name, error in errors.items():
    print(
      f'{name}: with {share:.3g} of the memory bank the nearest patch is {error["relative"]:.3%} '
      f'farther on average, {error["max"]:.3g} at most'
    )


def measure_checkpoints(
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  dataset: data.Dataset,
  chosen: Evaluation,
) -> list[checkpoint_table.Row]:
  """Measures every checkpoint that was kept, but for the chosen one, which has been."""
  maps = {}
  with Checkpoints(workdir) as checkpoints:
    for step in checkpoints.steps:
      if step == checkpoints.chosen:
        maps[step] = chosen.maps
        continue
      params = restore_encoder(checkpoints, workdir, step)
      maps[step] = fit_and_evaluate(config, params, dataset, f'step {step}').maps
    return checkpoint_table.make(maps, checkpoints.statistics, checkpoints.chosen)


def print_checkpoints(name: str, rows: Sequence[checkpoint_table.Row]) -> None:
  """One table of checkpoints, measured on one map."""
  shown = checkpoint_table.BEST
  header = [
    'step',
    *(f'{metrics.TITLES[metric]} ({name})' for metric in shown),
    'held-out score',
    '',
  ]
  lines = [
    [
      str(row.step),
      *(f'{row.figures[metric]:.4f}' for metric in shown),
      '' if row.score is None else f'{row.score:.3f}',
      ', '.join(row.marks),
    ]
    for row in rows
  ]
  print('\n' + console.table(header, lines))


def fit_and_evaluate(
  config: ml_collections.ConfigDict, params: train_state.Params, dataset: data.Dataset, title: str
) -> Evaluation:
  """Measures a detector that the evaluated one is compared with."""
  detector = Detector.fit(
    config,
    params,
    dataset.train.images,
    step=0,
    progress=console.progress(f'Embedding normal images, {title}'),
  )
  return evaluate(detector, dataset.test, console.progress(f'Scoring, {title}'))


def print_timing(timing: dict[str, float]) -> None:
  """What each stage took."""
  print(
    f'embedding {timing["embed_images_per_s"]:.3g} images/s; distances to '
    f'{timing["bank_rows"]:,.0f} patches {timing["search_images_per_s"]:.3g} images/s, '
    f'{timing["search_gflop_per_s"]:.3g} GFLOP/s, {timing["search_unproven"]:.2%} unproven by the '
    f'first look; maps {timing["map_images_per_s"]:.3g} images/s; '
    f'all {timing["images_per_s"]:.3g} images/s; metrics {timing["metrics_seconds"]:.3g} s; peak '
    f'memory {timing["peak_memory_mib"]:,.0f} MiB'
  )


class Measured(NamedTuple):
  """What a detector scored, beside what, the other checkpoints if asked for, and what to mind."""

  detector: Detector
  evaluation: Evaluation
  others: dict[str, Evaluation]
  rows: list[checkpoint_table.Row]
  warnings: list[str]


def measure(
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  dataset: data.Dataset,
  *,
  random_encoder: bool,
  every_checkpoint: bool = False,
  false_alarm_rate: float = 0.01,
  pixel_false_alarm_rate: float = 0.01,
) -> Measured:
  """Measures the detector of a workdir, and writes WORKDIR/eval.

  Args:
    config: whole, as of `read_config`.
    workdir: of the run.
    dataset: of the config, with test images.
    random_encoder: whether an untrained encoder is measured too.
    every_checkpoint: whether every checkpoint that was kept is.
    false_alarm_rate: of the report's verdicts, where the detector is calibrated.
    pixel_false_alarm_rate: of the regions that it shows.
  """
  distributed.meet()
  detector = get_detector(config, workdir, dataset)
  limit = None
  if detector.calibration:
    limit = inspection.limits(detector, false_alarm_rate, pixel_false_alarm_rate)
  evaluation = evaluate(detector, dataset.test, console.progress('Scoring'))
  others: dict[str, Evaluation] = {}
  if config.score.coreset < 1:
    full = config.copy_and_resolve_references()
    full.score.coreset = 1.0
    others[results.FULL_BANK] = fit_and_evaluate(full, detector.params, dataset, 'full bank')
  if random_encoder:
    untrained = train_state.init_encoder(config)
    others[results.RANDOM_ENCODER] = fit_and_evaluate(config, untrained, dataset, 'random encoder')
  rows: list[checkpoint_table.Row] = []
  if every_checkpoint:
    rows = measure_checkpoints(config, workdir, dataset, evaluation)
  found = inspection.judge(detector, evaluation.scores, dataset.test, limit) if limit else None
  warnings = what_to_mind(detector, limit, found) if limit and found else []
  if distributed.is_first():
    results.write(
      workdir / 'eval',
      dataset.test,
      evaluation,
      others,
      rows,
      title=f'{dataset.name}, {detector.origin.step} steps',
      config=config,
      history=monitoring.read(workdir),
      threshold=limit.image if limit else None,
      found=found,
      warnings=warnings,
    )
  return Measured(detector, evaluation, others, rows, warnings)


def what_to_mind(detector: Detector, limit: Limits, found: Inspection) -> list[str]:
  """What to say of the rates, and of test images that look otherwise than the normal ones."""
  texts = shift.of_batch(inspection.calibrated(detector).statistics, found.statistics)
  return [*limit.warnings, *([shift.warn(texts)] if texts else [])]


def run(options: argparse.Namespace, rest: Sequence[str]) -> int:
  """Evaluates, prints, writes."""
  workdir = options.workdir
  config = read_config(options.config, rest, workdir)
  bank_building.check(config.score)
  dataset = load_labelled(config.data)
  detector, evaluation, others, rows, warnings = measure(
    config,
    workdir,
    dataset,
    random_encoder=options.random_encoder,
    every_checkpoint=options.every_checkpoint,
    false_alarm_rate=options.false_alarm_rate,
    pixel_false_alarm_rate=options.pixel_false_alarm_rate,
  )
  for text in warnings:
    print(f'warning: {text}', file=sys.stderr)
  sys.stderr.flush()
  print(f'{dataset.name}, {detector.origin.step} steps, {len(dataset.test)} test images')
  print_tables(evaluation, others)
  if rows:
    print_checkpoints(list(evaluation.maps)[-1], rows)
  if results.FULL_BANK in others:
    print_reduction(config.score.coreset, results.reduction(evaluation, others[results.FULL_BANK]))
  console.print_banks(detector)
  print_timing(evaluation.timing)
  files = 'report.html, metrics.json, maps.npz, overview.png, overlays'
  print(f'written: {workdir / "eval"}: {files}')
  if options.mvtec_maps and distributed.is_first():
    folder = options.mvtec_maps / dataset.name.rpartition('/')[-1]
    maps = evaluation.scores.maps[detector.last_map]
    mvtec_maps.write(folder, dataset.test.names, maps, dataset.test.sizes)
    print(f'written: {folder}')
  return 0
