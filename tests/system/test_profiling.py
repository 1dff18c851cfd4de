"""Traces: of which steps, what is in their files, and who refuses what."""

import errno
import gzip
import json

import jax
import jax.numpy as jnp
import pytest

from benchmarks import trace_file
from patch_svdd_jax.detection.scores import timed
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system import compilation_cache, distributed, profiling
from patch_svdd_jax.system.profiling import MEMORY, PERFETTO, TRACE, Profile


@pytest.fixture(scope='module')
def program():
  """Compiles anew what has two phases: a kept program may have other names."""

  @jax.jit
  def compute(x):
    with jax.named_scope('encoder'):
      y = jnp.tanh(x @ x)
    with jax.named_scope('losses'):
      return jnp.sort(y, axis=0).sum()

  with compilation_cache.compiled_anew():
    compute(jnp.ones((16, 16)))
  return compute


def take(profile, steps, program=lambda x: x, together=1, done=0):
  """Takes steps, which a profile may record, up to a number."""
  profile.begin(done, steps, together)
  for number in range(done, steps, together):
    with profile.step('train', number, together), timed({}, 'embed', 1):
      jax.block_until_ready(program(jnp.ones((16, 16))))


def files_of(folder):
  """The files of the one session in a folder, by the ends of their names."""
  (session,) = (folder / profiling.PLACE).iterdir()
  return {'.' + path.name.split('.', 1)[1]: path for path in session.iterdir()}


def test_a_trace_has_the_steps_the_stages_and_the_phases(program, tmp_path):
  with Profile(tmp_path, (2, 4)) as profile:
    take(profile, 6, program)
  found = files_of(tmp_path)
  assert found.keys() == {TRACE, PERFETTO, MEMORY}
  assert profile.summary() == f'{found[TRACE].parent}: a trace of steps 2:4'
  trace = trace_file.read(found[TRACE], ['embed'])
  assert [step.name for step in trace.steps] == ['train', 'train']
  assert [stage.name for stage in trace.stages] == ['embed', 'embed']
  assert {'encoder', 'losses'} <= {each.name for each in trace.operations}
  assert len(trace_file.read(found[TRACE], ['PjRtCpuClient::Compile']).stages) == 0


def test_the_other_files_are_json_of_the_same_events_and_memory_by_who_holds_it(program, tmp_path):
  kept = jnp.arange(12345.0)
  with Profile(tmp_path, (0, 2)) as profile:
    take(profile, 2, program)
  found = files_of(tmp_path)
  with gzip.open(found[PERFETTO]) as file:
    contents = json.load(file)
  assert 'metadata' not in contents  # which Perfetto does not like
  events = [event for event in contents['traceEvents'] if event.get('ph') == 'X']
  assert [event['args']['step_num'] for event in events if event['name'] == 'train'] == ['0', '1']
  assert any(event.get('args', {}).get('hlo_module') == 'jit_compute' for event in events)
  assert b'test_profiling.py' in gzip.decompress(found[MEMORY].read_bytes())
  assert kept.shape == (12345,)


@pytest.mark.parametrize(
  ('wanted', 'done', 'steps', 'together', 'recorded'),
  [
    (None, 0, 100, 10, '10:50'),
    (None, 40, 100, 10, '50:90'),
    (None, 0, 25, 10, '10:25'),
    (None, 0, 7, 10, '0:7'),  # a single call
    (None, 0, 1, 1, '0:1'),
    ((13, 14), 0, 100, 10, '10:20'),  # the whole call
    ((9, 20), 0, 20, 10, '0:20'),
  ],
)
def test_the_second_to_the_fifth_call_is_recorded_unless_others_are_asked_for(
  wanted, done, steps, together, recorded, tmp_path, monkeypatch
):
  monkeypatch.setattr(jax.profiler, 'start_trace', lambda *_, **__: None)
  monkeypatch.setattr(Profile, '_write', lambda *_: None)
  profile = Profile(tmp_path, wanted)
  take(profile, steps, together=together, done=done)
  assert profile.summary().endswith(f': a trace of steps {recorded}')


@pytest.mark.parametrize('wanted', [(0, 5), (5, 21), (30, 40)])
def test_steps_that_are_not_taken_are_refused(wanted, tmp_path):
  with pytest.raises(UserError, match=r'this run takes steps 4:20, give some of these'):
    Profile(tmp_path, wanted).begin(4, 20)


def test_a_run_that_has_taken_all_steps_is_refused(tmp_path):
  with pytest.raises(UserError, match='none is left to record'):
    Profile(tmp_path).begin(20, 20)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
  (tmp_path / 'file').touch()
  with pytest.raises(UserError, match=r'cannot write .*file'):
    Profile(tmp_path / 'file')


def test_what_cannot_be_written_at_the_end_is_said_once(tmp_path, monkeypatch):
  def fill(*_):
    raise OSError(errno.ENOSPC, 'full')

  profile = Profile(tmp_path, (0, 1))
  monkeypatch.setattr('pathlib.Path.write_bytes', fill)
  with pytest.raises(UserError, match='no space left on the disk'), profile:
    take(profile, 1)
  assert profile.summary() is None


def test_a_trace_that_the_profiler_cannot_write_is_said(tmp_path, monkeypatch):
  def stop():
    raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: No space left on device')

  monkeypatch.setattr(jax.profiler, 'start_trace', lambda *_, **__: None)
  monkeypatch.setattr(jax.profiler, 'stop_trace', stop)
  with pytest.raises(UserError, match=r'cannot write a trace in .*No space left'):
    take(Profile(tmp_path, (0, 1)), 1)


def test_what_is_interrupted_is_written_on_the_way_out(tmp_path):
  profile = Profile(tmp_path)

  def interrupted():
    for number in profile.over('score', range(9), 9):
      if number == 3:
        raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt), profile:
    interrupted()
  assert profile.summary().endswith('steps 1:3')
  assert TRACE in files_of(tmp_path)
  # Another can begin.
  jax.profiler.start_trace(tmp_path)
  jax.profiler.stop_trace()


def test_batches_are_steps_within_what_shows_them(tmp_path, monkeypatch):
  monkeypatch.setattr(jax.profiler, 'start_trace', lambda *_, **__: None)
  monkeypatch.setattr(Profile, '_write', lambda *_: None)
  shown = []

  def progress(batches):
    for batch in batches:
      shown.append(batch)
      yield batch

  profile = Profile(tmp_path)
  assert list(profile.around('score', progress)(range(0, 12, 2))) == shown == [0, 2, 4, 6, 8, 10]
  assert profile.summary().endswith('steps 1:5')


def test_each_of_several_processes_has_files_of_its_own(program, tmp_path, monkeypatch):
  monkeypatch.setattr(distributed, 'maximum', lambda value: value)
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  monkeypatch.setattr('time.time', lambda: 1.6e9)
  for index in range(2):
    monkeypatch.setattr(jax, 'process_index', lambda index=index: index)
    with Profile(tmp_path, (0, 1)) as profile:
      take(profile, 1, program)
  session = tmp_path / profiling.PLACE / '2020_09_13_12_26_40'
  assert len({path.name for path in session.glob(f'*-0{TRACE}')}) == 1
  assert len({path.name for path in session.glob(f'*-1{TRACE}')}) == 1
  assert len(list(session.iterdir())) == 6


def test_nothing_is_recorded_where_it_was_not_asked_for(program, monkeypatch):
  monkeypatch.setattr(jax.profiler, 'start_trace', None)
  take(profiling.OFF, 6, program)
  assert profiling.OFF.summary() is None
