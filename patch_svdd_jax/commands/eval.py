"""Measures a detector on labelled test images, beside what needs no training.

That is an untrained encoder of the same shape, scored as the trained one is (random_encoder), and
patches described by the means of their 4 x 4 cells, whitened (thumbnail), unless a scale is no
multiple of 4 pixels or the detector itself is scored so. --no-random-encoder leaves both out.

The workdir is one that train or import-authors made. Its own config says which data it is measured
on; another --config, or single keys, can say otherwise. The memory bank is always that of the
config's training images: one that was saved is used if it fits, otherwise the images are embedded
again.

WORKDIR/eval gets report.html, one page that shows it all, metrics.json, maps.npz, overview.png and
overlays/, on one colour scale. The checkpoint is the one that held-out normal images choose; with
--every-checkpoint all that training has kept (config.checkpoint.keep) are measured besides, into
metrics.json and checkpoints.png. The verdicts in the report are those of the false-alarm rates.
--mvtec-maps writes the maps for the evaluation code that MVTec publishes, of the images' own sizes.

  python eval.py --workdir runs/screw
  python eval.py --workdir runs/authors --config configs/mvtec.py:screw --config.data.root=DATA

Of a workdir of all categories (train --config configs/mvtec.py:all) each is measured anew.
"""

import argparse
import functools
import pathlib
import sys
from collections.abc import Mapping, Sequence

import ml_collections

from patch_svdd_jax.commands import console, every_category
from patch_svdd_jax.evaluation import metrics, mvtec_maps
from patch_svdd_jax.evaluation.evaluate import Evaluation
from patch_svdd_jax.experiments.evaluation_run import (
  Measured,
  check_data,
  evaluate_run,
  load_labelled,
  other_data,
  read_config,
)
from patch_svdd_jax.reporting import (
  category_table,
  checkpoint_table,
  compared,
  evaluation_files,
  speed,
  threshold_table,
)
from patch_svdd_jax.reporting.table import markdown
from patch_svdd_jax.system import distributed, profiling
from patch_svdd_jax.system.profiling import Profile


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the options of `eval`."""
  console.add_config_argument(parser, required=False)
  parser.add_argument('--workdir', required=True, type=console.path, help='folder of the run')
  console.add_rate_arguments(parser)
  console.add_distributed_argument(parser)
  console.add_profile_arguments(parser, 'batches of images')
  parser.add_argument(
    '--random-encoder',
    action=argparse.BooleanOptionalAction,
    default=True,
    help='measure an untrained encoder of the same shape and whitened thumbnails of patches too '
    '(the default): without these rows a trained figure means little; where images are held out, '
    'all are compared on synthetic anomalies of these besides',
  )
  parser.add_argument(
    '--every-checkpoint',
    action='store_true',
    help='measure every checkpoint that was kept, to see what choosing one without labels costs',
  )
  parser.add_argument(
    '--mvtec-maps',
    type=console.path,
    metavar='FOLDER',
    help="write the maps as FOLDER/CATEGORY/test/DEFECT/ID.tiff, as MVTec's code reads them",
  )


def print_tables(evaluation: Evaluation, others: Mapping[str, Evaluation]) -> None:
  """Prints a table of maps, and for the main map one of defect types and one of lights."""

  def row(name: str, figures: dict[str, float]) -> list[str]:
    return [name, *(console.figure(figures[metric]) for metric in metrics.TITLES)]

  rows = [row(name, figures) for name, figures in evaluation.maps.items()]
  for other, each in others.items():
    title = compared.words(other)
    rows += [row(f'{title} {name}', figures) for name, figures in each.maps.items()]
  print(markdown(['map', *metrics.TITLES.values()], rows))
  if types := evaluation.per_defect[evaluation.main_map]:
    rows = [row(defect, figures) for defect, figures in types.items()]
    print('\n' + markdown([f'defect ({evaluation.main_map})', *metrics.TITLES.values()], rows))
  if lights := evaluation.per_lighting.get(evaluation.main_map):
    rows = [row(light, figures) for light, figures in lights.items()]
    print('\n' + markdown([f'light ({evaluation.main_map})', *metrics.TITLES.values()], rows))
  print('F1 and mIoU are at the threshold that is best for these test labels.')
  if others:
    print(compared.explain(others))
  section = threshold_table.make(evaluation.thresholds, evaluation.main_map)
  print(f'\n{section.to_text()}')


def print_categories(evaluation: Evaluation, others: Mapping[str, Evaluation]) -> None:
  """Prints one table of categories for the main map, beside what needs no training."""
  name = evaluation.main_map
  rows = [
    category_table.row(
      category,
      figures,
      {other: each.per_category[name][category] for other, each in others.items()},
    )
    for category, figures in evaluation.per_category[name].items()
  ]
  print('\n' + category_table.with_mean(rows))


def print_reduction(share: float, errors: Mapping[str, Mapping[str, float]]) -> None:
  """Prints how much farther the nearest rows of the smaller memory bank are."""
  for name, error in errors.items():
    print(
      f'{name}: with {share:.3g} of the memory bank the nearest patch is {error["relative"]:.3%} '
      f'farther on average, {error["max"]:.3g} at most'
    )


def print_checkpoints(name: str, rows: Sequence[checkpoint_table.CheckpointRow]) -> None:
  """Prints one table of checkpoints, measured on one map."""
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
      *(console.figure(row.figures[metric]) for metric in shown),
      '' if row.score is None else f'{row.score:.3f}',
      ', '.join(row.marks),
    ]
    for row in rows
  ]
  print('\n' + markdown(header, lines))


def print_timing(timing: dict[str, float]) -> None:
  """Prints what the search did, and what the whole evaluation took."""
  print(
    f'distances to {timing["bank_rows"]:,.0f} patches {timing["search_gflop_per_s"]:.3g} GFLOP/s, '
    f'{timing["search_fallback_fraction"]:.2%} fell back; metrics {timing["metrics_seconds"]:.3g} '
    f's; peak memory {timing["peak_memory_mib"]:,.0f} MiB'
  )


def evaluate(
  options: argparse.Namespace,
  rest: Sequence[str],
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  profile: Profile = profiling.OFF,
) -> Measured:
  """Evaluates one detector, prints, writes."""
  dataset = load_labelled(config.data)
  # Data that were asked for may be others; those of the run may not have become others.
  if not (options.config or any(argument.startswith('--config.data.') for argument in rest)):
    check_data(workdir, dataset)
  elif changed := other_data(workdir, dataset):
    console.print_warnings(
      [f'the memory bank is of other images than the encoder has learned from ({changed})']
    )
  maps_folder = options.mvtec_maps
  if maps_folder and not dataset.categories:
    maps_folder /= dataset.name.rpartition('/')[-1]
  if maps_folder:
    mvtec_maps.check(maps_folder, dataset.test.names)
  console.print_data(dataset)
  measured = evaluate_run(
    config,
    workdir,
    dataset,
    progress=console.progress,
    random_encoder=options.random_encoder,
    every_checkpoint=options.every_checkpoint,
    false_alarm_rate=options.false_alarm_rate,
    pixel_false_alarm_rate=options.pixel_false_alarm_rate,
    profile=profile,
  )
  _, detector, evaluation, others, rows, warnings, _, gain = measured
  console.print_warnings(warnings)
  sys.stderr.flush()
  print(f'{dataset.name}, {detector.origin.step} steps, {len(dataset.test)} test images')
  print_tables(evaluation, others)
  if dataset.categories:
    print_categories(evaluation, others)
  if rows:
    print_checkpoints(evaluation.main_map, rows)
  if compared.FULL_BANK in others:
    print_reduction(
      config.score.coreset,
      evaluation_files.reduction(evaluation, others[compared.FULL_BANK]),
    )
  if gain:
    print(gain.summary())
  console.print_banks(detector)
  print_timing(evaluation.timing)
  files = 'report.html, metrics.json, maps.npz, overview.png, overlays'
  print(f'written: {workdir / "eval"}: {files}')
  if maps_folder and distributed.is_first():
    maps = evaluation.scores.maps[evaluation.main_map]
    mvtec_maps.write(maps_folder, dataset.test.names, maps, dataset.test.sizes)
    print(f'written: {maps_folder}')
  print(speed.summary(speed.one_after_another(evaluation.stages), evaluation.stages))
  return measured


def output_folder(options: argparse.Namespace) -> pathlib.Path:
  """Returns the folder that only one run at a time may write to."""
  workdir: pathlib.Path = options.workdir
  return workdir if every_category.is_of_all(workdir) else workdir / 'eval'


def run(options: argparse.Namespace, rest: Sequence[str]) -> int:
  """Evaluates the workdir's detector, or those of all categories."""
  workdir = options.workdir
  if every_category.is_of_all(workdir):
    console.refuse_profile(options)
    one = functools.partial(evaluate, options, rest)
    return every_category.measure_all(options.config, rest, workdir, one)
  with console.profile(options) as profile:
    evaluate(options, rest, read_config(options.config, rest, workdir), workdir, profile)
  return 0
