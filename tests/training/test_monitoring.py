"""JSON lines and TensorBoard events, read back; speeds; what a resumed run drops."""

import json
import struct
import time

import pytest
from tensorboardX.proto import event_pb2

from patch_svdd_jax.training import monitoring
from patch_svdd_jax.training.monitoring import TrainingMonitor

METRICS = {'loss': 4.25, 'position_accuracy/k32': 0.125, 'neighbour_loss/k16': 1e-5}


def crc32c(data):
  """Castagnoli's, bit by bit (RFC 3720, appendix B.4)."""
  register = 0xFFFFFFFF
  for byte in data:
    register ^= byte
    for _ in range(8):
      register = (register >> 1) ^ (0x82F63B78 if register & 1 else 0)
  return register ^ 0xFFFFFFFF


def masked_crc(data):
  """The checksum of TFRecord files: turned right by 15 bits, plus a constant."""
  crc = crc32c(data)
  return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def test_the_checksum_is_that_of_the_rfc():
  assert crc32c(bytes(32)) == 0x8A9136AA
  assert crc32c(bytes(range(32))) == 0x46DD794E


def read_events(workdir):
  """All events, file after file; a record is its length, a checksum, a payload, a checksum."""
  events = []
  for path in sorted((workdir / 'tensorboard').iterdir()):
    data, at = path.read_bytes(), 0
    while at < len(data):
      (length,) = struct.unpack_from('<Q', data, at)
      payload = data[at + 12 : at + 12 + length]
      checksums = struct.unpack_from('<I', data, at + 8) + struct.unpack_from(
        '<I', data, at + 12 + length
      )
      assert checksums == (masked_crc(data[at : at + 8]), masked_crc(payload))
      events.append(event_pb2.Event.FromString(payload))
      at += 16 + length
  return events


def scalars(events):
  return {
    (event.step, value.tag): value.simple_value for event in events for value in event.summary.value
  }


def read_lines(workdir):
  return [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]


def record(workdir, steps, first_step=0):
  with TrainingMonitor(workdir, first_step, steps=100, pairs_per_step=16) as monitor:
    monitor.start()
    for step in steps:
      monitor.record(step, METRICS, seconds=0.5)


def test_metrics_are_json_lines(tmp_path):
  record(tmp_path, [10, 20, 25])
  speeds = [{'steps_per_s': rate, 'pairs_per_s': 16 * rate} for rate in (20, 20, 10)]
  assert read_lines(tmp_path) == [
    {'step': step, **METRICS, **speed} for step, speed in zip((10, 20, 25), speeds, strict=True)
  ]


def test_a_line_is_on_disk_as_soon_as_it_is_recorded(tmp_path):
  with TrainingMonitor(tmp_path, 0, steps=100, pairs_per_step=16) as monitor:
    monitor.start()
    monitor.record(10, METRICS, seconds=0.5)
    assert [line['step'] for line in read_lines(tmp_path)] == [10]


def test_metrics_are_tensorboard_events(tmp_path):
  record(tmp_path, [10, 25])
  events = read_events(tmp_path)
  assert events[0].file_version == 'brain.Event:2'
  found = scalars(events)
  expected = METRICS | {'steps_per_s': 20, 'pairs_per_s': 320}
  for name, value in expected.items():
    assert found[10, name] == pytest.approx(value, rel=1e-6)  # float32
  assert found[25, 'loss'] == 4.25
  assert {step for step, _ in found} == {10, 25}
  now = time.time()
  assert all(now - 60 < event.wall_time <= now for event in events)


STATISTICS = {'position_accuracy/k32': 0.5, 'relative_median/k32': 0.25}


def test_statistics_of_held_out_images_are_lines_and_events_of_their_own(tmp_path):
  with TrainingMonitor(tmp_path, 0, steps=100, pairs_per_step=16) as monitor:
    monitor.start()
    monitor.record(10, METRICS, seconds=0.5)
    monitor.record_validation(10, STATISTICS)
    monitor.record(20, METRICS, seconds=0.5)
    monitor.record_validation(20, {})
  first, held_out, second = read_lines(tmp_path)
  expected = {f'held_out/{name}': value for name, value in STATISTICS.items()}
  assert held_out == {'step': 10, **expected}
  assert (first['step'], second['step']) == (10, 20)
  found = scalars(read_events(tmp_path))
  assert {name: found[10, name] for name in expected} == expected
  assert (20, 'held_out/position_accuracy/k32') not in found
  # A run that resumes there keeps both lines of the step.
  record(tmp_path, [15], first_step=10)
  assert [line['step'] for line in read_lines(tmp_path)] == [10, 10, 15]


def test_what_was_recorded_can_be_read(tmp_path):
  assert monitoring.read(tmp_path) == []
  record(tmp_path, [10, 20])
  assert monitoring.read(tmp_path) == read_lines(tmp_path)
  assert [line['loss'] for line in monitoring.read(tmp_path)] == [4.25, 4.25]
  with (tmp_path / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 3')  # A process was killed.
  assert [line['step'] for line in monitoring.read(tmp_path)] == [10, 20]


def test_a_warning_is_a_line_of_its_own(tmp_path, capfd):
  with TrainingMonitor(tmp_path, 0, steps=100, pairs_per_step=16) as monitor:
    monitor.start()
    monitor.warn('the embeddings have collapsed')
  lines = capfd.readouterr().err.replace('\r', '\n').splitlines()
  assert 'warning: the embeddings have collapsed' in lines


def test_a_speed_counts_nothing_but_the_seconds_given(tmp_path):
  with TrainingMonitor(tmp_path, 0, steps=100, pairs_per_step=16) as monitor:
    time.sleep(0.2)  # compilation
    monitor.start()
    monitor.record(10, METRICS, seconds=0.01)
    time.sleep(0.2)  # evaluation, or a checkpoint
    monitor.record(20, METRICS, seconds=0.02)
  assert [line['steps_per_s'] for line in read_lines(tmp_path)] == pytest.approx([1000, 500])
  assert [line['pairs_per_s'] for line in read_lines(tmp_path)] == pytest.approx([16000, 8000])


def test_a_resumed_run_takes_the_place_of_the_lines_after_its_step(tmp_path):
  record(tmp_path, [10, 20, 30])
  record(tmp_path, [25, 40], first_step=20)
  lines = read_lines(tmp_path)
  assert [line['step'] for line in lines] == [10, 20, 25, 40]
  assert [line['steps_per_s'] for line in lines] == [20, 20, 10, 30]
  assert not list(tmp_path.glob('*.tmp'))


def test_a_line_that_was_cut_off_is_dropped(tmp_path):
  record(tmp_path, [10, 20])
  path = tmp_path / 'metrics.jsonl'
  whole = path.read_text()
  for cut in (whole[:-1], whole[:-9], whole + '{"step": 3'):
    path.write_text(cut)
    monitoring.keep_until(path, 20)
    kept = path.read_text()
    assert kept == ''.join(line for line in cut.splitlines(keepends=True) if line.endswith('\n'))
    assert all(json.loads(line) for line in kept.splitlines())


def test_a_run_from_the_beginning_drops_all_lines(tmp_path):
  record(tmp_path, [10, 20])
  record(tmp_path, [15])
  assert [line['step'] for line in read_lines(tmp_path)] == [15]


def test_no_lines_yet_is_no_error(tmp_path):
  monitoring.keep_until(tmp_path / 'metrics.jsonl', 5)
  assert not list(tmp_path.iterdir())


def test_tensorboard_hides_what_a_resumed_run_repeats(tmp_path):
  record(tmp_path, [10, 20, 30])
  time.sleep(1.1)  # event files are named by the second
  record(tmp_path, [25, 40], first_step=20)
  starts = [
    event
    for event in read_events(tmp_path)
    if event.session_log.status == event_pb2.SessionLog.START
  ]
  # Events of this step and later ones, in files before, are hidden: step 20 itself is not repeated.
  assert [event.step for event in starts][-1] == 21
  assert {(20, 'loss'), (25, 'loss'), (30, 'loss'), (40, 'loss')} <= scalars(
    read_events(tmp_path)
  ).keys()


def test_the_bar_counts_the_steps_of_this_run_and_names_its_phase(tmp_path, capsys):
  with TrainingMonitor(tmp_path, 40, steps=100, pairs_per_step=16) as monitor:
    assert 'Compiling:  40%' in capsys.readouterr().err
    monitor.start()
    monitor.record(100, METRICS, seconds=6)
  shown = capsys.readouterr().err.rsplit('\r', 1)[-1]
  assert 'Training: 100%' in shown
  assert '100/100' in shown
  assert 'loss 4.250, 160 pairs/s' in shown
