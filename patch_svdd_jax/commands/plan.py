"""Says what programs take on TPUs, on a machine that has none.

Each is compiled for each topology, ahead of time, by the TPU's compiler:
`pip install 'patch_svdd_jax[plan]'` brings it. Nothing is run.

  patch-svdd plan search --topology v5e:2x2 --bank-rows 1300000
  patch-svdd plan train --topology v5e:2x2 v5e:16x16 --config default
  patch-svdd plan embed --topology v5e:2x2 --config default
"""

import argparse
from collections.abc import Sequence

import jax

from patch_svdd_jax.commands import plan_programs, plan_search

PROGRAMS = {
  'search': ('the exact search for nearest rows', plan_search.add_arguments),
  'train': ('the train step', plan_programs.add_train),
  'embed': ('the embedding pass', plan_programs.add_embed),
}
DESCRIPTIONS = {
  'search': plan_search.DESCRIPTION,
  'train': plan_programs.TRAIN,
  'embed': plan_programs.EMBED,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the programs and their options."""
  programs = parser.add_subparsers(metavar='PROGRAM', required=True)
  for name, (purpose, add) in PROGRAMS.items():
    add(
      programs.add_parser(
        name,
        help=purpose,
        description=DESCRIPTIONS[name],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
      )
    )


def run(options: argparse.Namespace, *rest: Sequence[str]) -> int:
  """Plans the program that was chosen."""
  # JAX itself must not look for a TPU: it would wait for one.
  jax.config.update('jax_platforms', 'cpu')
  return options.plan(options, *rest)
