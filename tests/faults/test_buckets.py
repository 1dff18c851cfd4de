"""Runs in buckets, over HTTP: killed, with stores that go away, and with others beside them."""

import itertools
import json
import os
import pathlib
import re
import signal
import time

import pytest

from patch_svdd_jax.commands import main
from tests.faults import programs
from tests.faults.test_kills import check_whole, kill_again_and_again, newest_state
from tests.support import stores
from tests.support.runs import assert_same_bits

pytestmark = pytest.mark.slow

# A command as long ones are: there is more than one upload, and time for others.
CODE = """
import asyncio, sys, types
import gcsfs.retry
from patch_svdd_jax.system import lease, store, working_copy
working_copy.RHYTHM, lease.RENEWAL, lease.TERM, store.PATIENCE = 0.2, 0.5, 3.0, {patience}
# Between its attempts gcsfs waits for up to half a minute.
gcsfs.retry.asyncio = types.SimpleNamespace(sleep=lambda seconds: asyncio.sleep(seconds / 50))
from patch_svdd_jax.commands import main
sys.exit(main(sys.argv[1:]))
"""
RUN, HASTY = CODE.format(patience=60.0), CODE.format(patience=1.0)


@pytest.fixture(scope='module')
def images(tmp_path_factory):
  return programs.write(tmp_path_factory.mktemp('images') / 'parts', good=2, bad=2)


@pytest.fixture(scope='module')
def trained(images, environment):
  """A local run, in processes of its own as those in buckets are, with its evaluation."""
  workdir = images.parent / 'trained'
  run(programs.train(images, workdir), environment)
  run(programs.evaluate(workdir), environment)
  return workdir


@pytest.fixture(autouse=True)
def copies(tmp_path, monkeypatch):
  """Where working copies lie."""
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  return tmp_path / 'cache' / 'patch_svdd_jax' / 'copies'


def start(arguments, environment, code=RUN):
  """Starts a command where stores are as this process has them."""
  now = {name: os.environ[name] for name in os.environ if re.match('STORAGE_|AWS_|XDG_', name)}
  return programs.start(code, arguments, environment | now)


def run(arguments, environment, code=RUN):
  """Runs a command to its end; returns its errors."""
  with start(arguments, environment, code) as process:
    errors = process.communicate()[1]
  assert process.returncode == 0, errors
  assert 'Traceback' not in errors, errors
  return errors


def train_there(images, place, *others):
  """Trains on images of a bucket, prepares them there, and keeps the run there."""
  data = [f'--config.data.root={place}/parts', f'--config.data.prepared={place}/prepared']
  return programs.train(images, f'{place}/run', *data, *others)


def assert_same_run(ours, whole):
  assert_same_bits(newest_state(ours), newest_state(whole))
  assert programs.metrics(ours) == programs.metrics(whole)


def figures(workdir):
  return json.loads((workdir / 'eval/metrics.json').read_text())['maps']


def assert_all_as_locally(store, images, trained, environment, folder):
  """Evaluates a run in a store, predicts with it, and compares all with what a disk has."""
  run(programs.evaluate(f'{store.place}/run'), environment)
  ours = store.get('run', folder / 'run')
  assert_same_run(ours, trained)
  assert figures(ours) == figures(trained)
  new = images / 'test'
  run(programs.predict(f'{store.place}/run', f'{store.place}/found', new), environment)
  run(programs.predict(trained, folder / 'whole', new), environment)
  found = store.get('found', folder / 'found')
  for name in ('results.jsonl', 'results.csv'):
    assert (found / name).read_bytes() == (folder / 'whole' / name).read_bytes()


def wait_for_writes(store, count, process):
  """Waits until a process has written so many more objects."""

  def writes():
    found = store.requests()
    return found['POST'] + found['PUT']

  before = writes()
  while writes() < before + count:
    assert process.poll() is None, process.communicate()
    time.sleep(0.01)


def test_killed_twenty_times_a_run_ends_as_on_a_disk(
  google_store, images, trained, environment, tmp_path
):
  bucket = google_store.file('')
  google_store.put(images, 'parts')
  variables = environment | google_store.variables()
  met = kill_again_and_again(
    train_there(images, google_store.place),
    bucket,
    variables,
    [bucket / 'run', bucket / 'prepared'],
    RUN,
  )
  assert len(met) >= 5, met
  assert_all_as_locally(google_store, images, trained, environment, tmp_path)


def test_s3_is_another_store(amazon_store, images, trained, environment, tmp_path):
  amazon_store.put(images, 'parts')
  arguments = train_there(images, amazon_store.place)
  with start(arguments, environment) as process:
    wait_for_writes(amazon_store, 40, process)
    process.kill()
  run(arguments, environment)
  assert_all_as_locally(amazon_store, images, trained, environment, tmp_path)


@pytest.mark.parametrize('away', ['a moment', 'until it is said', 'to the end'])
def test_a_store_that_goes_away_in_the_middle_of_a_save(
  google_store, images, trained, environment, tmp_path, copies, away
):
  arguments = programs.train(images, f'{google_store.place}/run')
  with start(arguments, environment, RUN if away == 'a moment' else HASTY) as process:
    wait_for_writes(google_store, 20, process)
    google_store.stop()
    said = []
    if away == 'a moment':
      time.sleep(0.5)
    for line in process.stderr if away == 'until it is said' else ():
      said.append(line)
      if 'it is tried again until the end' in line:
        break
    if away != 'to the end':
      google_store.start()
    errors = ''.join(said) + process.communicate()[1]
  assert errors.count('it is tried again until the end') == (away != 'a moment'), errors
  if away == 'to the end':
    line = programs.error_line(errors)
    assert re.match(rf'error: cannot \w+ {google_store.place}/run.*; what was made is kept', line)
    assert_same_run(pathlib.Path(line.rpartition(' in ')[2]), trained)
    google_store.start()
    check_whole(google_store.file(''))
    run(arguments, environment)
  else:
    assert process.returncode == 0, errors
    assert list(copies.iterdir()) == []
  assert_same_run(google_store.get('run', tmp_path / 'run'), trained)


def test_a_store_that_spoils_every_third_request(
  google_store, images, trained, environment, tmp_path
):
  google_store.put(images, 'parts')
  faults = itertools.cycle([503, 'cut', 429, 'lost', 'truncated', 0.1])
  with stores.Proxy(google_store) as proxy, pytest.MonkeyPatch.context() as patch:
    proxy.fault = lambda method, path, number: None if number % 3 else next(faults)
    patch.setenv('STORAGE_EMULATOR_HOST', proxy.url)
    run(train_there(images, google_store.place), environment)
    assert len(proxy.seen) > 60
  assert_same_run(google_store.get('run', tmp_path / 'run'), trained)


def test_truncated_objects_are_one_line(google_store, images, trained, environment, capsys):
  google_store.put(trained, 'run')
  place = f'{google_store.place}/run'

  def truncate(folder):
    """Halves the largest object of a folder."""
    path = max(google_store.file(folder).rglob('*'), key=lambda path: path.stat().st_size)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return f'{place}/{path.relative_to(google_store.file("run")).as_posix()}'

  truncate('run/model')
  assert main(programs.evaluate(place)) == 2
  line = programs.error_line(capsys.readouterr().err)
  assert re.match(f'error: {place}/model/1 is damaged .*has changed.*build-bank', line)
  truncate('run/checkpoints/4')
  with start(programs.train(images, place, '--config.train.steps=6'), environment) as process:
    errors = process.communicate()[1]
  assert 'checkpoints/4 is damaged' in errors
  assert errors.count('is damaged') == 1


def held(store, images, environment, *others):
  """A run that has the folder `run`, as it goes on for long."""
  arguments = programs.train(images, f'{store.place}/run', '--config.train.steps=100000', *others)
  process = start(arguments, environment)
  while not (store.file('run') / 'config.json').exists():
    assert process.poll() is None, process.communicate()
    time.sleep(0.01)
  return process


def test_two_runs_on_one_folder(google_store, images, trained, environment, tmp_path):
  place = f'{google_store.place}/run'
  first = held(google_store, images, environment, '--config.checkpoint.every=100000')
  with start(programs.train(images, place), environment) as second:
    line = programs.error_line(second.communicate()[1])
  assert second.returncode == 2
  assert line.startswith(f'error: {place} is being written by another run (')
  first.kill()
  first.communicate()
  # It ran on this machine, so no sign of it is waited for.
  assert 'taken over from' in run(programs.train(images, place, '--restart'), environment)
  assert_same_run(google_store.get('run', tmp_path / 'run'), trained)


def test_the_folder_of_a_run_that_was_killed_elsewhere_is_taken_over(
  google_store, images, environment
):
  place = f'{google_store.place}/run'
  first = held(google_store, images, environment, '--config.checkpoint.every=100000')
  first.kill()
  first.communicate()
  [path] = google_store.file('run/.lease').iterdir()
  path.write_text(json.dumps(json.loads(path.read_text()) | {'machine': 'another'}))
  errors = run(programs.train(images, place, '--restart'), environment)
  [line] = [line for line in errors.splitlines() if 'taken over' in line]
  assert re.search(rf'{place}: taken over from .*@.*, process {first.pid}, since ', line)


def test_a_run_that_stood_still_finds_its_folder_taken_over(
  google_store, images, trained, environment, tmp_path
):
  place = f'{google_store.place}/run'
  first = held(google_store, images, environment, '--config.checkpoint.every=100000')
  first.send_signal(signal.SIGSTOP)
  assert 'taken over from' in run(programs.train(images, place, '--restart'), environment)
  first.send_signal(signal.SIGCONT)
  errors = first.communicate()[1]
  assert first.returncode not in (0, -signal.SIGKILL)
  assert f'{place} was taken over by another run' in programs.error_line(errors)
  assert_same_run(google_store.get('run', tmp_path / 'run'), trained)
