"""Trains the members of a sweep's groups as one program each, and measures them one by one."""

import contextlib
import dataclasses
import functools
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from patch_svdd_jax import configuration, data
from patch_svdd_jax.evaluation import evaluate
from patch_svdd_jax.experiments import data_record, sweep_statistics, sweep_tables
from patch_svdd_jax.experiments.evaluation_run import fit_and_evaluate, get_detector, load_labelled
from patch_svdd_jax.experiments.runner import Entry, Job, Record, Rendered
from patch_svdd_jax.experiments.sweep_plan import Group
from patch_svdd_jax.experiments.training_run import StoppedError, StopRequest, check_neighbours
from patch_svdd_jax.models import encoder, flops, mean_image
from patch_svdd_jax.system import files
from patch_svdd_jax.system.batching import Progress
from patch_svdd_jax.training import loop, monitoring, population, train_state
from patch_svdd_jax.training.checkpoints import Checkpoints


def in_parts(members: Sequence[Job], at_once: int) -> Iterator[list[Job]]:
  """Yields parts of at most so many members, as equal as can be: fewer sizes compile less often."""
  for indices in np.array_split(np.arange(len(members)), -(-len(members) // at_once)):
    yield [members[index] for index in indices]


def train(
  group: Group, members: Sequence[Job], dataset: data.Dataset, at_once: int
) -> dict[str, int]:
  """Trains members to the end; returns the names and last steps of those that are lost.

  Raises:
    StoppedError: it was told to stop, and all have saved.
    UserError: a member was begun with other data.
  """
  config, normal = group.config, dataset.train.images
  found = data_record.contents(dataset, data_record.TRAINING)
  mean = mean_image.training_mean(normal, config.train.mean, dataset.train.regions)
  fit: population.Fit | None = None
  lost: dict[str, int] = {}
  stop = StopRequest()
  for part in in_parts(members, at_once):
    for member in part:
      data_record.begin(member.workdir, data_record.RUN, found)
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
      fit = fit or population.make_fit(config, normal, mean, dataset.train.regions)
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
      step = max(int(state.step) for state in outcome.states)
      raise StoppedError(group.workdir, step, stop.signal)
  return lost


def member_figures(
  member: Job, dataset: data.Dataset, progress: Callable[[str], Progress]
) -> dict[str, Any]:
  """Returns the figures of a trained member: metrics of its maps, position accuracies, cost."""
  detector = get_detector(member.config, member.workdir, dataset, progress)
  evaluation = evaluate.evaluate(detector, dataset.test, progress('Scoring'))
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


@dataclasses.dataclass(frozen=True)
class Sweep:
  """The groups of a sweep, their record, and how many members one program trains."""

  groups: Sequence[Group]
  record: Record
  at_once: int
  progress: Callable[[str], Progress]

  @property
  def entries(self) -> dict[str, Entry]:
    """What is known of each group."""
    entries: dict[str, Entry] = self.record.contents['groups']
    return entries

  def render(self) -> Rendered:
    """Returns the tables, after what seeds have in common was put into the record."""
    self.record.contents['settings'] = sweep_statistics.summarise(self.entries)
    return Rendered(sweep_tables.render(self.entries), sweep_tables.sheet(self.entries))

  def untrained(self, group: Group, dataset: data.Dataset) -> Any:
    """Returns the metrics of an untrained encoder's maps, measured once for groups of one shape."""
    for other in self.groups:
      found = self.entries.get(other.name, {}).get('random_encoder')
      sections = ['encoder', 'score', 'data', 'train.mean']
      if found and not configuration.differences(other.config, group.config, sections):
        return found
    params, title = encoder.init_encoder(group.config), f'untrained {group.name}'
    evaluation = fit_and_evaluate(group.config, params, dataset, title, self.progress)
    return files.to_json(evaluation.maps)

  def measure(self, group: Group, entry: Entry) -> None:
    """Trains and measures what the entry of a group lacks.

    Raises:
      StoppedError: training was told to stop.
    """
    if not entry:
      params = jax.eval_shape(functools.partial(encoder.init_encoder, group.config))
      entry['varied'] = group.varied
      entry['parameters'] = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
      entry['macs'] = flops.image_flops(group.config) / 2
      entry['members'] = {}
    dataset, left = load_labelled(group.config.data), pending(group, entry)
    check_neighbours(group.config, dataset, calibrated=False)
    data_record.begin_experiment(
      self.record.path.parent, group.config.data, dataset, group.data_name
    )
    lost = train(group, left, dataset, self.at_once)
    if 'random_encoder' not in entry:
      entry['random_encoder'] = self.untrained(group, dataset)
      self.record.write(self.render())
    for number, member in enumerate(left, 1):
      print(f'{group.name}, {number} of {len(left)}: {member.name}', file=sys.stderr)
      about = {
        'seed': member.config.seed,
        'svdd_weight': member.config.train.svdd_weight,
        'learning_rate': member.config.train.learning_rate,
      }
      if member.name in lost:
        found = {'lost_at': lost[member.name]}
      else:
        found = member_figures(member, dataset, self.progress)
      entry['members'][member.name] = about | found
      self.record.write(self.render())


def pending(group: Group, entry: Entry) -> list[Job]:
  """Returns the members that the entry of a group lacks."""
  return [member for member in group.members if member.name not in entry.get('members', {})]
