"""Real small disks: each command meets their end in each of its writers, and then goes on."""

import functools
import json
import subprocess

import pytest

from patch_svdd_jax.commands import main
from tests.faults import programs

# In a namespace of its own a process may mount: a disk of so many bytes, filled but for `room`.
MOUNT = ['unshare', '--user', '--map-root-user', '--mount']

# For each room in turn: runs the command with so much room left, makes room, runs it again.
CODE = """
import contextlib, io, json, os, pathlib, shutil, subprocess, sys
disk, seed, rooms, programs = pathlib.Path(sys.argv[1]), sys.argv[2], *map(json.loads, sys.argv[3:])
import jax
from patch_svdd_jax.commands import main

def run(arguments):
  out, err = io.StringIO(), io.StringIO()
  with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
    status = main(arguments)
  return status, err.getvalue()

def files():
  return sorted(str(p.relative_to(disk)) for p in disk.rglob('*') if p.is_file())

subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=16m', 'tmpfs', disk], check=True)
found = []
for room in rooms:
  for path in disk.iterdir():
    shutil.rmtree(path)
  if seed:
    shutil.copytree(seed, disk / 'run')
  filler = disk / 'filler'
  filler.mkdir()
  free = os.statvfs(disk)
  (filler / 'file').write_bytes(bytes(free.f_bavail * free.f_frsize - room))
  status, said = 0, ''
  for arguments in programs:
    status, said = run(arguments)
    if status:
      break
  after = files()
  shutil.rmtree(filler)
  again = [run(arguments)[0] for arguments in programs]
  shown = {name: (disk / name).read_text() for name in files()
           if name.endswith(('metrics.jsonl', 'metrics.json', 'results.jsonl', 'sweep.json'))}
  found.append(dict(room=room, status=status, said=said, files=after, again=again,
                    finally_there=files(), shown=shown))
print(json.dumps(found))
"""


@functools.cache
def can_mount():
  try:
    done = subprocess.run(
      [*MOUNT, 'mount', '-t', 'tmpfs', 'tmpfs', '/mnt'], capture_output=True, check=False
    )
  except FileNotFoundError:
    return False
  return done.returncode == 0


pytestmark = pytest.mark.skipif(not can_mount(), reason='no file system can be mounted here')


@pytest.fixture(scope='module')
def environment(compilation):
  return programs.variables(compilation)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  return programs.write(tmp_path_factory.mktemp('full') / 'parts')


@pytest.fixture(scope='module')
def trained(root):
  """A run on a disk with room for all."""
  assert main(programs.train(root, root.parent / 'trained')) == 0
  return root.parent / 'trained'


def on_small_disks(tmp_path, environment, commands, rooms, seed=''):
  """What commands did with so many bytes of room each, and did when there was more."""
  disk = tmp_path / 'disk'
  disk.mkdir()
  arguments = [disk, seed, json.dumps(rooms), json.dumps(commands(disk))]
  with programs.start(CODE, arguments, environment, *MOUNT) as process:
    printed, errors = process.communicate()
  assert process.returncode == 0, errors
  assert 'Traceback' not in errors, errors
  return json.loads(printed.splitlines()[-1])


def check(found, least=1):
  """Each ended in a line, left nothing unfinished behind, and went on to the same end."""
  full = [each for each in found if each['status']]
  assert len(full) >= least, [each['status'] for each in found]
  *_, last = found
  assert last['status'] == 0, last
  for each in full:
    assert each['status'] == 2, each
    assert (
      'no space left' in programs.error_line(each['said']) or 'cannot be written' in each['said']
    )
    assert not [name for name in each['files'] if name.endswith('.tmp')], each
    assert each['again'] == [0] * len(each['again']), each
    assert named(each['finally_there']) == named(last['finally_there']), each['room']
    assert shown(each) == shown(last), each['room']
  return [each['said'] for each in full]


def named(files):
  """Those whose names do not depend on contents, processes or times."""
  return [
    name
    for name in files
    if not any(part in name for part in ('/d/', 'tfevents', 'filler', '/model/'))
  ]


def shown(found):
  """What files say, but for times."""
  return {name: without_times(text) for name, text in found['shown'].items()}


def without_times(text):
  def drop(value):
    if isinstance(value, dict):
      return {
        key: drop(item)
        for key, item in value.items()
        if key not in ('timing', 'speed', 'cost') and not key.endswith(('_per_s', '_seconds'))
      }
    return [drop(item) for item in value] if isinstance(value, list) else value

  try:
    return drop(json.loads(text))
  except json.JSONDecodeError:
    return [drop(json.loads(line)) for line in text.splitlines()]


def train_on(root, disk):
  data = f'--config.data.prepared={disk}/prepared'
  return [programs.train(root, disk / 'run', data)]


@pytest.mark.slow
def test_predict_and_export_on_small_disks(root, trained, environment, tmp_path):
  def commands(disk):
    predict = [*programs.predict(trained, disk / 'found', root), '--pictures', 'all']
    return [
      predict,
      ['export', '--model', str(trained), '--output', str(disk / 'out' / 'parts.stablehlo')],
    ]

  # The lock, lines, masks, overlays, the report, the tables, the exported file.
  rooms = [0, 4096, 20_000, 150_000, 1_100_000, 1_180_000, 1_250_000, 8_000_000]
  said = check(on_small_disks(tmp_path, environment, commands, rooms), least=4)
  assert any('found' in text for text in said)


@pytest.mark.slow
def test_train_on_small_disks(root, environment, tmp_path):
  # The prepared files; by pages, where the first lines of metrics and events are; the checkpoints.
  rooms = [0, 4096, 100_000, 200_000, *range(262_144, 320_000, 8192)]
  rooms += [*range(1_300_000, 4_000_000, 300_000), 12_000_000]
  found = on_small_disks(tmp_path, environment, lambda disk: train_on(root, disk), rooms)
  said = ' '.join(check(found, least=10))
  for writer in ('prepared', 'checkpoints'):
    assert f'/{writer}' in said


@pytest.mark.slow
def test_eval_build_bank_and_sweep_on_small_disks(root, trained, environment, tmp_path):
  def commands(disk):
    return [programs.evaluate(disk / 'run'), ['build-bank', '--workdir', str(disk / 'run')]]

  rooms = [0, *range(4096, 900_000, 120_000), 1_500_000, 8_000_000]
  found = on_small_disks(tmp_path, environment, commands, rooms, trained)
  said = ' '.join(check(found, least=5))
  assert '/eval' in said

  def sweep(disk):
    config = ['--config', programs.config_for(root), '--workdir', str(disk / 'sweep')]
    return [['sweep', *config, '--seeds', '2']]

  rooms = [0, *range(4096, 1_200_000, 150_000), 8_000_000]
  (tmp_path / 'another').mkdir()
  check(on_small_disks(tmp_path / 'another', environment, sweep, rooms), least=4)
