"""Jobs that take no time: what is kept, tried again and resumed, however a run ends."""

import json
import os
import signal
import subprocess
import sys

import pytest

from patch_svdd_jax import configuration
from patch_svdd_jax.configs import default
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.experiments import runner
from patch_svdd_jax.experiments.runner import Job, Record, Rendered
from patch_svdd_jax.experiments.training_run import StoppedError
from patch_svdd_jax.reporting.table import Column, Table
from patch_svdd_jax.system import files
from tests.faults.programs import ROOT

COLUMNS = (Column('job', 'job'), Column('seed', 'seed', 'd'), Column('error', 'error'))
NAMES = ('a', 'b', 'c')


def run(workdir, events=None, names=NAMES, failures=(UserError,)):
  """The status of an experiment whose figures are seeds, and what was measured; events by job."""
  record, done = Record.read(workdir / 'trivial.json', 'trivial', 'config', 'entries'), []
  record.begin(default.get_config())
  entries = record.contents['entries']

  def measure(job, entry):
    done.append(job.name)
    (events or {}).get(job.name, lambda _: None)(entry)
    entry |= {'seed': job.config.seed}

  def render():
    table = Table(COLUMNS, [{'job': name, **entry} for name, entry in entries.items()])
    return Rendered(table.to_markdown(), table)

  jobs = []
  for seed, name in enumerate(names):
    config = default.get_config()
    config.seed = seed
    jobs.append(Job(name, config, workdir / name))
  status = runner.run(
    record,
    entries,
    jobs,
    is_measured=lambda job, entry: entry.get('seed') == job.config.seed,
    measure=measure,
    render=render,
    failures=failures,
  )
  return status, done


def read(workdir):
  return json.loads((workdir / 'trivial.json').read_text())['entries']


def texts(workdir):
  return {path.name: path.read_text() for path in workdir.iterdir() if path.is_file()}


def throw(error, **left):
  """An event: a job raises this, after its entry has got what it leaves."""

  def event(entry):
    entry |= left
    raise error

  return event


WHOLE = {name: {'seed': seed} for seed, name in enumerate(NAMES)}


def test_all_is_measured_in_turn_written_and_printed(tmp_path, capsys):
  seen = []
  events = {'b': lambda _: seen.append(read(tmp_path))}
  assert run(tmp_path, events) == (0, ['a', 'b', 'c'])
  assert seen == [{'a': WHOLE['a']}]  # After each.
  assert read(tmp_path) == WHOLE
  printed = capsys.readouterr()
  left = ', about 0:00 hours left'
  assert printed.err == f'1 of 3: a\n2 of 3: b{left}\n3 of 3: c{left}\n'
  table = (tmp_path / 'trivial.md').read_text()
  assert printed.out == f'{table}\nwritten: {tmp_path}\n'
  assert (tmp_path / 'trivial.csv').read_text().splitlines()[:2] == ['job,seed,error', 'a,0,']


def test_the_time_left_follows_from_the_jobs_that_are_done():
  assert runner.time_left(0.0, 0, 5) == ''
  assert runner.time_left(1800.0, 2, 7) == ', about 1:15 hours left'


def test_what_is_measured_is_skipped_and_other_jobs_add_to_it(tmp_path, capsys):
  run(tmp_path)
  before = texts(tmp_path)
  assert run(tmp_path) == (0, [])
  assert texts(tmp_path) == before
  assert run(tmp_path, names=['a', 'd']) == (0, ['d'])
  # With another config than it was measured with.
  assert run(tmp_path, names=['b', 'a']) == (0, ['b', 'a'])
  assert read(tmp_path) == WHOLE | {'a': {'seed': 1}, 'b': {'seed': 0}, 'd': {'seed': 1}}


def test_what_fails_is_listed_and_tried_again(tmp_path, capsys):
  events = {'b': throw(UserError('it is\nraining'), half=1)}
  assert run(tmp_path, events) == (1, ['a', 'b', 'c'])
  assert read(tmp_path) == WHOLE | {'b': {'half': 1, 'error': r'it is\nraining'}}
  printed = capsys.readouterr()
  assert r'b failed: it is\nraining' in printed.err
  assert r'| it is\nraining |' in printed.out
  # One that has not been tried does not make this one fail, and one that fails again does.
  assert run(tmp_path, names=['a'])[0] == 0
  assert run(tmp_path, events) == (1, ['b'])
  assert run(tmp_path, {'b': lambda entry: entry.pop('half')}) == (0, ['b'])
  assert read(tmp_path) == WHOLE
  assert 'raining' not in ''.join(texts(tmp_path).values())


def test_what_nobody_foresaw_ends_all_unless_it_may_not(tmp_path, capsys):
  events = {'b': throw(ZeroDivisionError('by\nnothing'))}
  with pytest.raises(ZeroDivisionError):
    run(tmp_path, events)
  assert read(tmp_path) == {'a': WHOLE['a']}
  assert run(tmp_path, events, failures=(Exception,)) == (1, ['b', 'c'])
  assert read(tmp_path)['b'] == {'error': 'ZeroDivisionError: by'}
  assert 'Traceback' in capsys.readouterr().err


@pytest.mark.parametrize('left', [{}, {'half': 1}], ids=['nothing', 'half'])
def test_a_run_that_is_stopped_keeps_what_there_is(tmp_path, capsys, left):
  stopped = StoppedError(tmp_path / 'b', 7, signal.SIGTERM)
  assert run(tmp_path, {'b': throw(stopped, **left)}) == (128 + 15, ['a', 'b'])
  assert capsys.readouterr().out == f'{stopped}\n'
  assert read(tmp_path) == {'a': WHOLE['a']} | ({'b': left} if left else {})
  assert run(tmp_path) == (0, ['b', 'c'])


KILLED = """
import os, pathlib, signal, sys
from tests.experiments import test_runner
kill = lambda _: os.kill(os.getpid(), signal.SIGKILL)
test_runner.run(pathlib.Path(sys.argv[1]), {'c': kill})
"""


def test_a_killed_run_ends_as_one_that_never_was(tmp_path):
  killed = subprocess.run(
    [sys.executable, '-c', KILLED, str(tmp_path / 'killed')],
    env=os.environ | {'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    cwd=ROOT,
    check=False,
  )
  assert killed.returncode == -signal.SIGKILL, killed.stderr
  assert list(read(tmp_path / 'killed')) == ['a', 'b']
  assert run(tmp_path / 'killed') == (0, ['c'])
  assert run(tmp_path / 'whole') == (0, ['a', 'b', 'c'])
  assert texts(tmp_path / 'killed') == texts(tmp_path / 'whole')


def test_a_job_whose_folder_another_run_writes_fails_alone(tmp_path):
  with files.locked(tmp_path / 'b'):
    assert run(tmp_path) == (1, ['a', 'c'])
  assert 'is being written by another run' in read(tmp_path)['b']['error']


# The record.


@pytest.mark.parametrize(
  'text', ['', '\0', '[]', '{"config": {', '{}', '{"config": {}, "entries": 3}']
)
def test_a_file_of_something_else_is_refused(tmp_path, text):
  path = tmp_path / 'trivial.json'
  path.write_text(text)
  with pytest.raises(UserError, match=r'trivial.json is no file of trivial: use another --workdir'):
    run(tmp_path)
  assert path.read_text() == text


def test_without_sections_all_are_entries(tmp_path):
  path = tmp_path / 'trivial.json'
  assert Record.read(path, 'trivial').contents == {}
  path.write_text('{"a": {"seed": 0}}')
  assert Record.read(path, 'trivial').contents == {'a': {'seed': 0}}
  path.write_text('{"a": 1}')
  with pytest.raises(UserError, match='is no file of trivial'):
    Record.read(path, 'trivial')


def test_another_config_is_refused_but_for_what_may_differ(tmp_path):
  config = default.get_config()
  record = Record(tmp_path / 'trivial.json', {})
  record.begin(config)
  record.write(Rendered('', Table([], [])))
  record = Record.read(record.path, 'trivial', 'config')
  config.update_from_flattened_dict({'seed': 3, 'data.root': '/elsewhere'})
  with pytest.raises(UserError, match=r'another config \(config.seed: 0 -> 3\): use another'):
    record.begin(config)
  record.begin(config, free=['config.seed:'])
  assert configuration.differences(record.config(record.contents['config']), config) == []
  section = {}
  record.begin(config, 'trained', section)
  config.seed = 4
  with pytest.raises(UserError, match=r'config.seed: 3 -> 4'):
    record.begin(config, 'trained', section)
