"""The detector that benchmarks time: a run's, or an untrained one; and at which sizes."""

import argparse
import pathlib
from collections.abc import Sequence

from patch_svdd_jax.benchmarking import preparation
from patch_svdd_jax.benchmarking.processes import isolated
from patch_svdd_jax.benchmarking.report import size_text
from patch_svdd_jax.commands import console
from patch_svdd_jax.errors import one_line
from patch_svdd_jax.models.geometry import ImageSize


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds --model and --normal-images."""
  parser.add_argument(
    '--model', type=console.path, help='folder of a run; an untrained one if none'
  )
  parser.add_argument(
    '--normal-images',
    type=console.positive,
    default=10,
    metavar='N',
    help='that the memory banks without --model are of, default 10',
  )


def sizes_of(model: pathlib.Path | None, asked: Sequence[ImageSize]) -> list[ImageSize]:
  """Returns the sizes that are timed; a line about those that are left out."""
  if model is None:
    return list(asked)
  own = isolated(preparation.read_own, model)
  others = [size for size in asked if size != own.size]
  if others and not own.any_size:
    left_out = ', '.join(map(size_text, others))
    text = f'has a mean image of {size_text(own.size)} pixels (config.train.mean=image)'
    console.print_warnings([f'{left_out} pixels are left out: {model} {text}'])
    others = []
  return [own.size, *others]


def title(model: pathlib.Path | None) -> str:
  """Returns what is timed, in words."""
  if model:
    return one_line(str(model))
  return f'an untrained detector of the settings {preparation.CONFIG}'
