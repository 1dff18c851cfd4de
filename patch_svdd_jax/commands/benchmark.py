"""Measures how fast a detector is on this machine, and its training.

patch-svdd benchmark predict
patch-svdd benchmark predict --model runs/parts --images parts/test --json speed.json
patch-svdd benchmark runtime --model runs/parts
patch-svdd benchmark train --devices 1 2 --batch 64 256 --json train.json
patch-svdd benchmark compare train.json theirs.json
"""

import argparse
import dataclasses
import functools
import pathlib
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from patch_svdd_jax.benchmarking import record, report, whole_detector
from patch_svdd_jax.benchmarking.measuring import OURS, Row
from patch_svdd_jax.benchmarking.preparation import CONFIG, FINER, Facts
from patch_svdd_jax.commands import (
  benchmark_compare,
  benchmark_runtime,
  benchmark_train,
  benchmarked_model,
  console,
  outputs,
)
from patch_svdd_jax.commands.console import positive
from patch_svdd_jax.data import file_search
from patch_svdd_jax.data.file_search import Source
from patch_svdd_jax.system import figures

# Those that work have them, in processes of their own; `train` makes them as it is told.
NEEDS_DEVICES = False

# What there is besides `predict`.
OTHERS = {
  'runtime': ("one image at a time, as for MVTec AD 2's runtime table", benchmark_runtime),
  'train': ('the train step, at several batches on several devices', benchmark_train),
  'compare': ('two machines, by what `--json` wrote on them', benchmark_compare),
}
SIZES = (128, 256, 512)
PREDICT = f"""Times a whole detector, from an image's file to its verdict, by stage.

Without --model the detector is one of the settings {CONFIG}, fitted to embedded textures. Its
encoder has learned nothing: patches are nearer to each other or farther apart than those of one
that has, which changes the time of the search alone. A model is timed at its own size, and at
others if its mean image is by channel.

Beside it stand its exported files, as jax and ONNX Runtime run them, and the same detector with
faiss's and with scikit-learn's exact search, where these are installed (pip install
'patch_svdd_jax[benchmark,onnx]'). Each has a process of its own. Scores must agree, or nothing is
timed. Then all take turns: with one image at a time, as `serve` does it, then with batches of
files, as `predict` does it. Files are PNG with {FINER} times the pixels along each side that are
scored, unless --images names others.

  patch-svdd benchmark predict --sizes 128 --json speed.json --plot speed.png
  patch-svdd benchmark predict --model runs/parts --images parts/test
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds what can be measured."""
  kinds = parser.add_subparsers(metavar='WHAT', required=True)
  add_predict(kinds)
  for name, (purpose, module) in OTHERS.items():
    other = kinds.add_parser(
      name,
      help=purpose,
      description=module.__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter,
      allow_abbrev=False,
    )
    module.add_arguments(other)


def add_predict(kinds: Any) -> None:
  """Adds `benchmark predict` to the subparsers."""
  own = kinds.add_parser(
    'predict',
    help='a whole detector, from files to verdicts',
    description=PREDICT,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  benchmarked_model.add_arguments(own)
  own.add_argument(
    '--images', nargs='+', type=console.images, metavar='PLACE', help='image files, or folders'
  )
  own.add_argument(
    '--sizes',
    type=positive,
    nargs='+',
    default=list(SIZES),
    metavar='PIXELS',
    help='along each side, default 128, 256 and 512',
  )
  own.add_argument(
    '--test-images',
    type=positive,
    default=16,
    metavar='N',
    help='that are scored without --images, default 16',
  )
  own.add_argument(
    '--beside',
    nargs='*',
    choices=list(whole_detector.NEEDED),
    default=list(whole_detector.NEEDED),
    metavar='NAME',
    help=f'of {", ".join(whole_detector.NEEDED)}; default all',
  )
  own.add_argument(
    '--rounds', type=positive, default=50, help='each times one image of everyone, default 50'
  )
  own.add_argument(
    '--seconds',
    type=positive,
    default=60,
    metavar='S',
    help='after which the rounds of a size end, however many there were, default 60',
  )
  outputs.add_arguments(own, 'milliseconds by stage')
  own.set_defaults(measure=run_predict)


def run(options: argparse.Namespace, *rest: Sequence[str]) -> int:
  """Does what was chosen."""
  return int(options.measure(options, *rest))


def run_predict(options: argparse.Namespace) -> int:
  """Measures, prints, writes."""
  outputs.check(options)
  given = file_search.find(options.images).sources if options.images else None
  squares = [(side, side) for side in dict.fromkeys(options.sizes)]
  sizes = benchmarked_model.sizes_of(options.model, squares)
  names = whole_detector.available(list(dict.fromkeys(options.beside)))
  with tempfile.TemporaryDirectory(prefix='patch_svdd_benchmark_') as temporary:
    folder = pathlib.Path(temporary)
    rows, facts = whole_detector.measure_sizes(
      sizes,
      (lambda _: options.model)
      if options.model
      else whole_detector.untrained_at(folder, options.normal_images),
      (lambda _: given) if given else whole_detector.textures_at(folder, options.test_images),
      names,
      folder,
      whole_detector.Timing(
        options.rounds, options.seconds, functools.partial(console.progress, unit='round')
      ),
    )
  sys.stderr.flush()
  print(about(options.model, given))
  print(report.table(rows))
  print(report.notes(rows, facts.device))
  contents = summary(options, rows, facts)
  outputs.write(
    options, contents, lambda suffix: figures.encode(report.draw(rows, facts.device), suffix)
  )
  return 0


def about(model: pathlib.Path | None, given: Sequence[Source] | None) -> str:
  """Returns what is timed, in a line."""
  detector = benchmarked_model.title(model)
  if given:
    return f'{detector}, on {len(given)} images of yours'
  return f'{detector}, on textures as PNG files' + (
    ', which are not its own images: give --images for their search' if model else ''
  )


def summary(options: argparse.Namespace, rows: Sequence[Row], facts: Facts) -> dict[str, Any]:
  """Returns the contents of the JSON file."""
  return record.contents(
    'predict',
    facts.device,
    facts.config,
    [dataclasses.asdict(row) for row in rows],
    ours=OURS,
    model=str(options.model) if options.model else None,
  )
