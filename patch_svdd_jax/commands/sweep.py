r"""Trains seeds x lambdas x learning rates at once, evaluates all, and says what seeds agree on.

Runs that differ in these alone are one program; what `--vary` lists (depth, width, any key), or an
ablation's file, makes groups of them, one after another. What is not listed is as the config says.

Each run gets a folder WORKDIR/GROUP/MEMBER as `train` would have made it, without the fitted
detector: `eval --workdir` works on it. WORKDIR gets sweep.json, sweep.md, sweep.csv, groups.png and
lambda.png. Ctrl-C or SIGTERM saves and leaves; the same command goes on, and longer lists add to
what is there. A group that fails is listed with its error, and tried again by the same command.

  patch-svdd sweep --config laptop:brick --workdir runs/sweep --seeds 3 \
    --svdd-weights 0 1e-4 1e-3 1e-2 --vary encoder.depth=3,5,8
  patch-svdd sweep --config laptop:brick --workdir runs/losses --seeds 3 --ablation losses
"""

import argparse
import json
import operator
from collections.abc import Sequence

import jax

from patch_svdd_jax import config_rules
from patch_svdd_jax.commands import console
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.experiments import data_record, runner, sweep_plan, sweep_plots
from patch_svdd_jax.experiments.restart import clear_experiment
from patch_svdd_jax.experiments.runner import Record
from patch_svdd_jax.experiments.sweep_run import Sweep, pending
from patch_svdd_jax.experiments.training_run import check_resumable
from patch_svdd_jax.system import files
from patch_svdd_jax.system.figures import encode

FILE = 'sweep.json'

# What one run at a time may write to.
output_folder = operator.attrgetter('workdir')


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the options of `sweep`."""
  console.add_config_argument(parser, required=True)
  parser.add_argument('--workdir', required=True, type=console.path, help='folder of this sweep')
  console.add_restart_argument(parser)
  parser.add_argument(
    '--seeds',
    type=int,
    default=1,
    metavar='N',
    help="how many seeds, from config.seed on (default: the config's)",
  )
  parser.add_argument(
    '--svdd-weights', type=float, nargs='*', metavar='LAMBDA', help='values of lambda'
  )
  parser.add_argument(
    '--learning-rates', type=float, nargs='*', metavar='RATE', help='learning rates'
  )
  parser.add_argument(
    '--vary',
    action='append',
    default=[],
    metavar='KEY=V1,V2,...',
    help='values of any config key, as encoder.depth=3,5,8; several --vary give all combinations',
  )
  parser.add_argument(
    '--ablation',
    metavar='NAME|FILE',
    help='a file of configs/ablations that lists what varies, as depth or losses, or your own',
  )
  parser.add_argument(
    '--members-at-once',
    type=int,
    metavar='N',
    help='how many runs one program trains, as memory allows (default: all of a group)',
  )


def check_rows(sweep: Sweep) -> None:
  """Refuses groups that set something else than those of the same name that were run before.

  Raises:
    UserError: names the group.
  """
  for group in sweep.groups:
    varied = files.to_json(group.varied)
    before = sweep.entries.get(group.name, {}).get('varied', varied)
    if json.dumps(before) != json.dumps(varied):
      raise UserError(
        f'{sweep.record.path.parent} has runs of {group.name} that set {before}, not {varied}: use '
        'another --workdir, or another name'
      )


def run(options: argparse.Namespace, rest: Sequence[str]) -> int:
  """Trains, evaluates, writes."""
  config = config_rules.read(options.config, rest)
  workdir = options.workdir
  groups = sweep_plan.plan(
    config,
    workdir,
    seeds=options.seeds,
    svdd_weights=options.svdd_weights,
    learning_rates=options.learning_rates,
    vary=options.vary,
    ablation=options.ablation,
  )
  at_once = options.members_at_once
  if at_once is None:
    at_once = max(len(group.members) for group in groups)
  sweep_plan.check_numbers('--members-at-once', [at_once])
  if options.restart:
    clear_experiment(
      workdir, FILE, [member.workdir for group in groups for member in group.members]
    )
  record = Record.read(workdir / FILE, 'sweep', 'config', 'groups')
  # Listed or the config's own: a member's name says which it has.
  record.begin(config, free=[f'{key}:' for key in sweep_plan.OPTIONS])
  sweep = Sweep(groups, record, at_once, console.progress)
  check_rows(sweep)
  for group in groups:
    for member in group.members:
      check_resumable(member.config, member.workdir)
  data_record.check_kept(workdir, [(group.config.data, group.data_name) for group in groups])
  status = runner.run(
    record,
    sweep.entries,
    groups,
    is_measured=lambda group, entry: not pending(group, entry),
    measure=sweep.measure,
    render=sweep.render,
    # Memory may hold the other groups.
    failures=(UserError, jax.errors.JaxRuntimeError),
  )
  if all('error' in sweep.entries.get(group.name, {}) for group in groups):
    raise UserError(sweep.entries[groups[0].name]['error'])
  plots = {'lambda': sweep_plots.draw_weights, 'groups': sweep_plots.draw_groups}
  for name, draw in plots.items():
    files.write(workdir / f'{name}.png', encode(draw(sweep.entries), 'png'))
  return status
