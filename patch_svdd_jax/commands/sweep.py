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
import contextlib
import functools
import itertools
import json
import math
import operator
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from patch_svdd_jax import config_rules, configuration, data
from patch_svdd_jax.commands import console, record_file
from patch_svdd_jax.data import image_size
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.evaluation import evaluate
from patch_svdd_jax.experiments import sweep_plan, sweep_plots, sweep_statistics, sweep_tables
from patch_svdd_jax.experiments.evaluation_run import fit_and_evaluate, get_detector, load_labelled
from patch_svdd_jax.experiments.sweep_plan import Group, Member
from patch_svdd_jax.experiments.training_run import StopRequest, check_resumable
from patch_svdd_jax.models import encoder, flops, mean_image
from patch_svdd_jax.system import files
from patch_svdd_jax.training import loop, monitoring, population, train_state
from patch_svdd_jax.training.checkpoints import Checkpoints

FILE, TABLE, VALUES = 'sweep.json', 'sweep.md', 'sweep.csv'
CURVE, GROUPS = 'lambda.png', 'groups.png'

# What one run at a time may write to.
output_folder = operator.attrgetter('workdir')


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the options of `sweep`."""
  console.add_config_argument(parser, required=True)
  parser.add_argument('--workdir', required=True, type=pathlib.Path, help='folder of this sweep')
  parser.add_argument(
    '--seeds', metavar='N', help="how many seeds, from config.seed on (default: the config's)"
  )
  parser.add_argument('--svdd-weights', nargs='*', metavar='LAMBDA', help='values of lambda')
  parser.add_argument('--learning-rates', nargs='*', metavar='RATE', help='learning rates')
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
    metavar='N',
    help='how many runs one program trains, as memory allows (default: all of a group)',
  )


def read(workdir: pathlib.Path, config: ml_collections.ConfigDict) -> dict[str, Any]:
  """The groups that sweep.json has.

  Raises:
    UserError: it is of another config.
  """
  # Listed or the config's own: a member's name says which it has.
  free = [f'{key}:' for key in sweep_plan.OPTIONS]
  return record_file.read(workdir / FILE, config, 'groups', 'a sweep', free)


def write(workdir: pathlib.Path, config: ml_collections.ConfigDict, groups: dict[str, Any]) -> None:
  """Writes sweep.json: the config, what each member scored, and what seeds have in common."""
  settings = [
    each
    | {'maps': as_dicts(each['maps'])}
    | as_dicts({name: each[name] for name in (sweep_statistics.ACCURACY, sweep_statistics.COST)})
    for each in sweep_statistics.summarise(groups)
  ]
  record_file.write(workdir / FILE, config, {'groups': groups, 'settings': settings})


def as_dicts(intervals: Any) -> Any:
  """Intervals, by two names, as JSON has them."""
  return {
    outer: {inner: interval._asdict() for inner, interval in figures.items()}
    for outer, figures in intervals.items()
  }


def render(groups: dict[str, Any]) -> str:
  """The tables as Markdown."""
  return '\n\n'.join(
    f'{title}\n\n{console.table(header, rows)}'
    for title, header, rows in sweep_tables.tables(groups)
  )


def in_parts(members: Sequence[Member], at_once: int) -> Iterator[list[Member]]:
  """Parts of at most so many members, as equal as can be: fewer sizes are fewer compilations."""
  count = -(-len(members) // at_once)
  for indices in np.array_split(np.arange(len(members)), count):
    yield [members[index] for index in indices]


def train(
  group: Group,
  members: Sequence[Member],
  normal: np.ndarray,
  at_once: int,
  stop: StopRequest,
) -> dict[str, int]:
  """Trains the members to the end, or until told to stop; the lost ones' names and last steps."""
  config = group.config
  mean = mean_image.training_mean(normal, config.train.mean)
  fit: population.Fit | None = None
  lost: dict[str, int] = {}
  for part in in_parts(members, at_once):
    for member in part:
      configuration.save(member.config, member.workdir)
    with contextlib.ExitStack() as opened:
      going = []
      for member in part:
        saver = opened.enter_context(Checkpoints(member.workdir, config.checkpoint.keep))
        initial = train_state.init_state(member.config)
        state = saver.restore(initial) or initial
        if int(state.step) < config.train.steps:
          going.append((member, saver, state))
      if not going:
        continue
      goers, savers, states = zip(*going, strict=True)
      # The images are placed, and the step is traced, when there is something to train.
      fit = fit or population.make_fit(config, normal, mean)
      monitor = opened.enter_context(
        monitoring.PopulationMonitor(
          [member.workdir for member in goers],
          [int(state.step) for state in states],
          config.train.steps,
          loop.pairs_per_step(config),
          f'{group.name}, {len(going)} runs',
        )
      )
      with stop.listening():
        outcome = fit(
          [member.config for member in goers],
          states,
          monitor=monitor,
          savers=savers,
          should_stop=stop,
        )
      lost |= {goers[index].name: int(outcome.states[index].step) for index in outcome.lost}
    if stop():
      break
  return lost


def untrained_figures(
  group: Group, groups: Sequence[Group], record: dict[str, Any], dataset: data.Dataset
) -> dict[str, dict[str, float | None]]:
  """The metrics of the maps of an untrained encoder, measured once for groups of one shape."""
  for other in groups:
    found: dict[str, dict[str, float | None]] | None
    found = record.get(other.name, {}).get('random_encoder')
    sections = ['encoder', 'score', 'data', 'train.mean']
    if found and not configuration.differences(other.config, group.config, sections):
      return found
  untrained = encoder.init_encoder(group.config)
  evaluation = fit_and_evaluate(
    group.config, untrained, dataset, f'untrained {group.name}', console.progress
  )
  figures: dict[str, dict[str, float | None]] = files.to_json(evaluation.maps)
  return figures


def member_figures(member: Member, dataset: data.Dataset) -> dict[str, Any]:
  """The figures of a trained member: metrics of its maps, position accuracies."""
  detector = get_detector(member.config, member.workdir, dataset, console.progress)
  evaluation = evaluate.evaluate(detector, dataset.test, console.progress('Scoring'))
  lines = monitoring.read(member.workdir)
  return {
    'step': detector.origin.step,
    'maps': files.to_json(evaluation.maps),
    sweep_statistics.ACCURACY: sweep_statistics.late_means(lines, member.config.train.steps),
    sweep_statistics.COST: {
      'step_seconds': sweep_statistics.step_seconds(lines),
      'images_per_s': evaluation.timing['images_per_s'],
    },
  }


def group_record(group: Group) -> dict[str, Any]:
  """What sweep.json has of a group before it is trained."""
  params = jax.eval_shape(functools.partial(encoder.init_encoder, group.config))
  return {
    'varied': group.varied,
    'parameters': sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)),
    'macs': flops.image_flops(group.config) / 2,
    'members': {},
  }


def check_rows(workdir: pathlib.Path, groups: Sequence[Group], record: dict[str, Any]) -> None:
  """Refuses groups that set something else than those of the same name that were run before.

  Raises:
    UserError: names the group.
  """
  for group in groups:
    before = files.to_json(record.get(group.name, {}).get('varied', group.varied))
    if json.dumps(before) != json.dumps(files.to_json(group.varied)):
      raise UserError(
        f'{workdir} has runs of {group.name} that set {before}, not {group.varied}: use another '
        '--workdir, or another name'
      )


def complete(
  group: Group,
  groups: Sequence[Group],
  record: dict[str, Any],
  at_once: int,
  save: Callable[[], None],
) -> int:
  """Trains and measures what the record lacks of a group.

  Args:
    group: the one to complete.
    groups: all.
    record: of sweep.json, by group; it is added to.
    at_once: how many members one program trains.
    save: writes the record; called after each evaluation.

  Returns:
    0, or the number of the signal by which it was told to stop.
  """
  of_group = record.setdefault(group.name, group_record(group))
  of_group.pop('error', None)
  pending = [member for member in group.members if member.name not in of_group['members']]
  if not pending:
    return 0
  dataset = load_labelled(group.config.data)
  stop = StopRequest()
  lost = train(group, pending, dataset.train.images, at_once, stop)
  if stop():
    return stop.signal
  if 'random_encoder' not in of_group:
    of_group['random_encoder'] = untrained_figures(group, groups, record, dataset)
    save()
  for number, member in enumerate(pending, 1):
    print(f'{group.name}, {number} of {len(pending)}: {member.name}', file=sys.stderr)
    about = {
      'seed': member.config.seed,
      'svdd_weight': member.config.train.svdd_weight,
      'learning_rate': member.config.train.learning_rate,
    }
    found = (
      {'lost_at': lost[member.name]} if member.name in lost else member_figures(member, dataset)
    )
    of_group['members'][member.name] = about | found
    save()
  return 0


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
  for group in groups:
    image_size.check_given(group.config.data.image_size)
  at_once = max(len(group.members) for group in groups)
  if options.members_at_once is not None:
    at_once = sweep_plan.whole_number('--members-at-once', options.members_at_once)
  record = read(workdir, config)
  check_rows(workdir, groups, record)
  for member in itertools.chain.from_iterable(group.members for group in groups):
    check_resumable(member.config, member.workdir)
  files.check_writable(workdir / FILE)
  save = functools.partial(write, workdir, config, record)
  for group in groups:
    try:
      stopped = complete(group, groups, record, at_once, save)
    except (UserError, jax.errors.JaxRuntimeError) as error:
      # The other groups may be possible, and hours of them would be lost.
      record[group.name]['error'] = str(error).splitlines()[0]
      print(f'{group.name} failed: {record[group.name]["error"]}', file=sys.stderr)
      save()
      continue
    if stopped:
      print(f'stopped in {workdir / group.name}: the same command goes on from there')
      return 128 + stopped
  errors = [record[group.name]['error'] for group in groups if 'error' in record[group.name]]
  if len(errors) == len(groups):
    raise UserError(errors[0])
  text = render(record)
  files.write(workdir / TABLE, f'{text}\n'.encode())
  files.write(workdir / VALUES, sweep_tables.to_csv(record).encode())
  files.write(workdir / CURVE, sweep_plots.draw_weights(record, 'png'))
  files.write(workdir / GROUPS, sweep_plots.draw_groups(record, 'png'))
  sys.stderr.flush()
  print(text)
  print(f'\nmean ± half of the 95 % confidence interval; written: {workdir}')
  return 1 if errors else 0
