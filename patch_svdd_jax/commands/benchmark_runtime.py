"""Times one image at a time, by the procedure of MVTec AD 2's runtime table.

Mean, standard deviation, minimum and maximum of 1,000 runs after as many to warm up, or of what
--seconds allow, and the peak memory, for images of 256 x 256, 512 x 512 and 1024 x 1224 random
pixels. Without --model an untrained detector is fitted at each size, as `benchmark predict` does;
a model is timed at its own size, and at these if its mean image is by channel.

  patch-svdd benchmark runtime --model runs/ad2/vial --json runtime.json
  patch-svdd benchmark runtime --sizes 256x256 --runs 100 --normal-images 4
"""

import argparse
import dataclasses
import functools
import pathlib
import re
import sys
import tempfile

from patch_svdd_jax.benchmarking import record, runtime, whole_detector
from patch_svdd_jax.commands import benchmarked_model, console, outputs
from patch_svdd_jax.commands.console import positive
from patch_svdd_jax.models.geometry import ImageSize
from patch_svdd_jax.system import files


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the options of `benchmark runtime`."""
  benchmarked_model.add_arguments(parser)
  parser.add_argument(
    '--sizes',
    type=size,
    nargs='+',
    default=list(runtime.SIZES),
    metavar='HEIGHTxWIDTH',
    help='of the images, default 256x256 512x512 1024x1224',
  )
  parser.add_argument(
    '--runs', type=positive, default=runtime.RUNS, help='that are timed, default 1000'
  )
  parser.add_argument(
    '--seconds',
    type=positive,
    default=600,
    metavar='S',
    help='after which the runs of a size end, however many there were, default 600',
  )
  outputs.add_json_argument(parser)
  parser.set_defaults(measure=run)


def size(text: str) -> ImageSize:
  """Returns the (height, width) of an option, as 1024x1224."""
  found = re.fullmatch(r'([1-9]\d*)x([1-9]\d*)', text, re.ASCII)
  if not found:
    raise argparse.ArgumentTypeError(f'{text!r}: give height and width, as 1024x1224')
  return int(found[1]), int(found[2])


def run(options: argparse.Namespace) -> int:
  """Measures, prints, writes."""
  if options.json:
    files.check_writable(options.json)
  sizes = benchmarked_model.sizes_of(options.model, list(dict.fromkeys(options.sizes)))
  limits = runtime.Limits(
    options.runs, options.seconds, functools.partial(console.progress, unit='run')
  )
  rows = []
  with tempfile.TemporaryDirectory(prefix='patch_svdd_benchmark_') as temporary:
    fit = whole_detector.untrained_at(pathlib.Path(temporary), options.normal_images)
    for each in sizes:
      row, config, device = runtime.measure_size(options.model or fit(each), each, limits)
      rows.append(row)
  sys.stderr.flush()
  print(benchmarked_model.title(options.model))
  print(runtime.table(rows))
  print(runtime.notes(rows, device))
  found = [dataclasses.asdict(row) for row in rows]
  model = str(options.model) if options.model else None
  outputs.write_json(options.json, record.contents('runtime', device, config, found, model=model))
  return 0
