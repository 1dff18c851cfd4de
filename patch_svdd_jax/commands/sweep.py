r"""Trains seeds x lambdas x learning rates at once, evaluates all, and says what seeds agree on.

Runs that differ in these alone are one program; what `--vary` lists (depth, width, any key) makes
groups of them, one after another. What is not listed is as the config says.

Each run gets a folder WORKDIR/GROUP/MEMBER as `train` would have made it, without the fitted
detector: `eval --workdir` works on it. WORKDIR gets sweep.json, sweep.md and lambda.png. Ctrl-C or
SIGTERM saves and leaves; the same command goes on, and longer lists add to what is there.

  patch-svdd sweep --config laptop:brick --workdir runs/sweep --seeds 3 \
    --svdd-weights 0 1e-4 1e-3 1e-2 --vary encoder.depth=3,5,8
"""

import argparse
import contextlib
import dataclasses
import functools
import itertools
import json
import math
import pathlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ml_collections
import numpy as np

from patch_svdd_jax import (
  bank_building,
  configuration,
  data,
  monitoring,
  population,
  results,
  standardisation,
  sweep_results,
  train_state,
  training,
)
from patch_svdd_jax.checkpoints import Checkpoints, explain_disk_errors
from patch_svdd_jax.commands import console
from patch_svdd_jax.commands.eval import fit_and_evaluate, get_detector
from patch_svdd_jax.commands.train import StopRequest, check_resumable
from patch_svdd_jax.detector import strides_of
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.evaluation import evaluate

FILE, TABLE, CURVE = 'sweep.json', 'sweep.md', 'lambda.png'

# The options that list what may differ inside of a program, by the key that each stands for.
OPTIONS = {
  'config.seed': '--seeds',
  'config.train.svdd_weight': '--svdd-weights',
  'config.train.learning_rate': '--learning-rates',
}

# What may differ when a sweep goes on: it changes no figure.
FREE = ('config.checkpoint.keep:', 'config.data.root:', 'config.data.prepared:')


@dataclasses.dataclass(frozen=True)
class Member:
  """One run: its name, whole config and folder."""

  name: str
  config: ml_collections.ConfigDict
  workdir: pathlib.Path


@dataclasses.dataclass(frozen=True)
class Group:
  """Runs of one program: its name, what was varied, the config without what members differ in."""

  name: str
  varied: dict[str, Any]
  config: ml_collections.ConfigDict
  members: list[Member]


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
    '--members-at-once',
    metavar='N',
    help='how many runs one program trains, as memory allows (default: all of a group)',
  )


def whole_number(option: str, text: str) -> int:
  """A count of at least 1.

  Raises:
    UserError: names the option.
  """
  if not re.fullmatch(r'0*[1-9][0-9]*', text):
    raise UserError(f'{option} {text}: give a whole number of at least 1')
  return int(text)


def numbers(option: str, texts: Sequence[str], positive: bool) -> list[float]:
  """The numbers of a list, which differ.

  Raises:
    UserError: names the option and the value.
  """
  kind = 'positive numbers' if positive else 'numbers of at least 0'
  found: list[float] = []
  for text in texts:
    try:
      value = float(text)
    except ValueError:
      value = math.nan
    if not (0 <= value < math.inf) or (positive and not value):
      raise UserError(f'{option} {text}: give {kind}')
    if value in found:
      raise UserError(f'{option}: {text} is there twice')
    found.append(value)
  if not found:
    raise UserError(f'{option}: give {kind}, with spaces between')
  return found


def variations(config: ml_collections.ConfigDict, vary: Sequence[str]) -> list[dict[str, Any]]:
  """The combinations of what `--vary` lists, values by key.

  Raises:
    UserError: a list is empty, a key or value does not exist, or something is there twice.
  """
  lists: dict[str, list[Any]] = {}
  for text in vary:
    name, _, values = text.partition('=')
    key = f'config.{name.removeprefix("config.")}'
    # At commas outside of brackets: a value may be a tuple.
    each = re.split(r',(?![^([]*[)\]])', values)
    if not name or not all(each):
      raise UserError(f'--vary {text}: give KEY=V1,V2,..., as encoder.depth=3,5,8')
    if key in OPTIONS:
      raise UserError(f'--vary {text}: give {OPTIONS[key]} instead')
    if key in lists:
      raise UserError(f'--vary {name} is there twice: give one list')
    lists[key] = []
    for value in each:
      changed = configuration.override(
        config.copy_and_resolve_references(), [f'--{key}={value.strip()}']
      )
      parsed = dict(configuration.flatten(changed))[key]
      if parsed in lists[key]:
        raise UserError(f'--vary {text}: {value} is there twice')
      lists[key].append(parsed)
  return [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())]


def group_name(varied: dict[str, Any]) -> str:
  """A name for a folder, as 'encoder.depth=5,train.batch_size=64'; 'base' where nothing varies."""
  parts = [f'{key.removeprefix("config.")}={value}' for key, value in varied.items()]
  return ','.join(re.sub(r'[^\w.=+-]+', '-', part).strip('-') for part in parts) or 'base'


def with_values(
  config: ml_collections.ConfigDict, values: dict[str, Any]
) -> ml_collections.ConfigDict:
  """A copy of the config with other values, by full key."""
  copy = config.copy_and_resolve_references()
  copy.update_from_flattened_dict({key.removeprefix('config.'): v for key, v in values.items()})
  return copy


def plan(config: ml_collections.ConfigDict, options: argparse.Namespace) -> list[Group]:
  """The groups of the sweep, all of whose settings have been checked.

  Raises:
    UserError: a list is bad, or its values cannot be trained or scored.
  """
  train = config.train
  seeds = whole_number('--seeds', '1' if options.seeds is None else options.seeds)
  weights, rates = (
    [own] if given is None else numbers(option, given, positive)
    for own, option, given, positive in (
      (train.svdd_weight, '--svdd-weights', options.svdd_weights, False),
      (train.learning_rate, '--learning-rates', options.learning_rates, True),
    )
  )
  groups: list[Group] = []
  for varied in variations(config, options.vary):
    common = with_values(config, varied)
    training.check(common)
    bank_building.check(common.score)
    strides_of(common)
    name = group_name(varied)
    if name in [group.name for group in groups]:
      raise UserError(f'--vary: two combinations would share the folder {name}')
    members = []
    for rate, weight, seed in itertools.product(rates, weights, range(seeds)):
      values = dict(zip(OPTIONS, (config.seed + seed, weight, rate), strict=True))
      folder = f'seed={config.seed + seed},lambda={weight!r},rate={rate!r}'
      own = with_values(common, values)
      members.append(Member(folder, own, options.workdir / name / folder))
    groups.append(Group(name, varied, common, members))
  return groups


def read(workdir: pathlib.Path, config: ml_collections.ConfigDict) -> dict[str, Any]:
  """The groups that sweep.json has.

  Raises:
    UserError: it is of another config.
  """
  if not (workdir / FILE).exists():
    return {}
  try:
    contents = json.loads((workdir / FILE).read_text())
    before = configuration.from_json(json.dumps(contents['config']), str(workdir / FILE))
    groups: dict[str, Any] = contents['groups']
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise UserError(f'{workdir / FILE} is no file of a sweep: use another --workdir') from error
  changed = [
    line
    for line in configuration.differences(before, config)
    # Listed or the config's own: a member's name says which it has.
    if not line.startswith((*FREE, *(f'{key}:' for key in OPTIONS)))
  ]
  if changed:
    raise UserError(
      f'{workdir} was started with another config ({"; ".join(changed)}): use another --workdir'
    )
  return groups


def write(workdir: pathlib.Path, config: ml_collections.ConfigDict, groups: dict[str, Any]) -> None:
  """Writes sweep.json: the config, what each member scored, and what seeds have in common."""
  settings = [
    each
    | {'maps': as_dicts(each['maps'])}
    | as_dicts({sweep_results.ACCURACY: each[sweep_results.ACCURACY]})
    for each in sweep_results.summarise(groups)
  ]
  contents = {'config': config.to_dict(), 'groups': groups, 'settings': settings}
  text = json.dumps(results.to_json(contents), indent=2) + '\n'
  console.write(workdir / FILE, text.encode())


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
    for title, header, rows in sweep_results.tables(groups)
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
  mean = standardisation.training_mean(normal, config.train.mean)
  fit: Callable[..., population.Outcome] | None = None
  lost: dict[str, int] = {}
  for part in in_parts(members, at_once):
    for member in part:
      configuration.save(member.config, member.workdir)
    with explain_disk_errors(part[0].workdir.parent), contextlib.ExitStack() as opened:
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
          training.pairs_per_step(config),
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
    found = record.get(other.name, {}).get('random_encoder')
    sections = ['encoder', 'score', 'data', 'train.mean']
    if found and not configuration.differences(other.config, group.config, sections):
      return found
  untrained = train_state.init_encoder(group.config)
  evaluation = fit_and_evaluate(group.config, untrained, dataset, f'untrained {group.name}')
  return results.to_json(evaluation.maps)


def measure(member: Member, dataset: data.Dataset) -> dict[str, Any]:
  """The figures of a trained member: metrics of its maps, position accuracies."""
  detector = get_detector(member.config, member.workdir, dataset)
  evaluation = evaluate(detector, dataset.test, console.progress('Scoring'))
  lines = monitoring.read(member.workdir)
  return {
    'step': detector.origin.step,
    'maps': results.to_json(evaluation.maps),
    sweep_results.ACCURACY: sweep_results.late_means(lines, member.config.train.steps),
  }


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
  of_group = record.setdefault(group.name, {'varied': group.varied, 'members': {}})
  pending = [member for member in group.members if member.name not in of_group['members']]
  if not pending:
    return 0
  dataset = data.load(group.config.data)
  if not len(dataset.test):
    raise UserError(f'{dataset.name} has no test images: put some into test/good and test/<defect>')
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
    found = {'lost_at': lost[member.name]} if member.name in lost else measure(member, dataset)
    of_group['members'][member.name] = about | found
    save()
  return 0


def run(options: argparse.Namespace, rest: Sequence[str]) -> int:
  """Trains, evaluates, writes."""
  config = configuration.override(configuration.read(options.config), rest)
  workdir = options.workdir
  groups = plan(config, options)
  at_once = max(len(group.members) for group in groups)
  if options.members_at_once is not None:
    at_once = whole_number('--members-at-once', options.members_at_once)
  record = read(workdir, config)
  for member in itertools.chain.from_iterable(group.members for group in groups):
    check_resumable(member.config, member.workdir)
  console.check_writable(workdir / FILE)
  for group in groups:
    stopped = complete(
      group, groups, record, at_once, functools.partial(write, workdir, config, record)
    )
    if stopped:
      print(f'stopped in {workdir / group.name}: the same command goes on from there')
      return 128 + stopped
  text = render(record)
  console.write(workdir / TABLE, f'{text}\n'.encode())
  console.write(workdir / CURVE, sweep_results.draw(record, 'png'))
  sys.stderr.flush()
  print(text)
  print(f'\nmean ± half of the 95 % confidence interval; written: {workdir}')
  return 0
