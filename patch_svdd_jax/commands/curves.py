"""Draws how runs went: positions recognised and test AUROCs over training time and over FLOPs.

Runs that differ by their seed alone share a colour. The AUROCs are there where
`eval --every-checkpoint` has measured them. Time is the number of steps times the run's median time
of a step, so that a busy minute of the machine does not bend the curves.

  patch-svdd curves runs/patches-0 runs/crops-0 --plot curves.png --json curves.json
"""

import argparse
from collections.abc import Sequence
from typing import Any

from patch_svdd_jax.commands import console, outputs
from patch_svdd_jax.reporting import learning_curves
from patch_svdd_jax.reporting.table import markdown
from patch_svdd_jax.system import figures

# It only reads and draws.
NEEDS_DEVICES = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the options of `curves`."""
  parser.add_argument('workdirs', nargs='+', type=console.path, help='folders of runs')
  outputs.add_arguments(parser, plot='the curves')


def run(options: argparse.Namespace) -> int:
  """Reads, prints, writes."""
  outputs.check(options)
  groups = learning_curves.group([learning_curves.read(workdir) for workdir in options.workdirs])
  entries = learning_curves.summary(groups)
  print(markdown(*table(entries)))
  outputs.write(
    options,
    entries,
    lambda suffix: figures.encode(learning_curves.draw(groups), suffix, dpi=120),
  )
  return 0


def table(entries: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
  """Returns the header and one line a run."""
  scales = list(entries[0]['accuracy'])
  header = ['run', 'seed', 'steps', 'minutes', 'TFLOP', *(f'positions {k}' for k in scales)]
  header += ['final image / pixel AUROC', 'chosen']
  lines = []
  for entry in entries:
    line = [entry['group'], str(entry['seed']), f'{entry["steps"]:,}']
    line += [f'{entry["seconds"] / 60:.1f}', f'{entry["tflop"]:.3g}']
    line += [f'{entry["accuracy"].get(k, float("nan")):.3f}' for k in scales]
    lines.append(line + [console.aurocs(entry[which]) for which in ('final', 'chosen')])
  return header, lines
