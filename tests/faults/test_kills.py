"""Killed twenty times at random moments, a command ends as one that was never disturbed."""

import contextlib
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import tarfile
import time

import numpy as np
import pytest
from PIL import Image

from patch_svdd_jax import configuration
from patch_svdd_jax.commands import main
from patch_svdd_jax.data import private_splits
from patch_svdd_jax.detection.detector import Detector
from patch_svdd_jax.system import digests
from patch_svdd_jax.training import train_state
from patch_svdd_jax.training.checkpoints import Checkpoints
from tests.faults import programs
from tests.support.runs import assert_same_bits

pytestmark = pytest.mark.slow

KILLS = 20
RUN = 'import sys; from patch_svdd_jax.commands import main; sys.exit(main(sys.argv[1:]))'


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  return programs.write(tmp_path_factory.mktemp('kills') / 'parts', good=2, bad=2)


@pytest.fixture(scope='module')
def trained(root):
  assert main(programs.train(root, root.parent / 'trained')) == 0
  return root.parent / 'trained'


def kill_again_and_again(arguments, folder, environment, start_over, code=RUN):
  """Kills a command at random moments, until it was killed so often; then it may finish.

  Every other kill comes at a random time, the others when so many files were written: nearly all of
  the time goes by before anything is. A run that finishes before its turn to be killed is put back.

  Args:
    arguments: of the command.
    folder: where it writes.
    environment: of its processes.
    start_over: folders that are removed so that it begins anew.
    code: that runs it.

  Returns:
    The different states that kills have met: which files there were.
  """
  moments, met = random.Random(0), set()
  before, begun = stamps(folder), time.monotonic()
  finish(arguments, environment, code)
  longest, files = time.monotonic() - begun, len(written(folder, before))
  remove(start_over)
  for number in range(KILLS):
    status = None
    while status != -signal.SIGKILL:
      before = stamps(folder)
      with programs.start(code, arguments, environment) as process:
        if number % 2:
          wait(process, longest * moments.uniform(0.2, 0.9))
        else:
          wait_for_files(process, folder, before, moments.randint(1, files))
        process.kill()
        errors = process.communicate()[1]
        status = process.returncode
      if status != -signal.SIGKILL:
        assert status == 0, errors
        remove(start_over)
    met.add(tuple(sorted(stamps(folder))))
    check_whole(folder)
  finish(arguments, environment, code)
  return met


def finish(arguments, environment, code=RUN):
  with programs.start(code, arguments, environment) as process:
    errors = process.communicate()[1]
  assert process.returncode == 0, errors


def remove(places):
  for place in places:
    shutil.rmtree(place, ignore_errors=True)


def wait(process, seconds):
  with contextlib.suppress(subprocess.TimeoutExpired):
    process.wait(seconds)


def wait_for_files(process, folder, before, count):
  while process.poll() is None and len(written(folder, before)) < count:
    time.sleep(0.002)


def stamps(folder):
  """When each file was written, by its name."""
  found = {}
  for place, _, names in os.walk(folder):
    for name in names:
      # It may lose its name meanwhile.
      with contextlib.suppress(FileNotFoundError):
        path = pathlib.Path(place, name)
        found[str(path.relative_to(folder))] = path.stat().st_mtime_ns
  return found


def written(folder, before):
  """The files that are new or others than before."""
  return stamps(folder).items() - before.items()


def check_whole(folder):
  """Whatever has its final name can be read."""
  for path in folder.rglob('*'):
    # Orbax and TFDS name their unfinished folders so.
    if not path.is_file() or re.search('tmp|incomplete', str(path.relative_to(folder))):
      continue
    if path.suffix == '.json' and 'checkpoints' not in path.parts:
      json.loads(path.read_bytes())
    if path.suffix == '.npz':
      with np.load(path) as arrays:
        assert [arrays[name].shape for name in arrays.files]
    if path.suffix == '.png':
      assert path.read_bytes().endswith(b'IEND\xaeB`\x82')
    if path.suffix == '.html':
      assert path.read_bytes().rstrip().endswith(b'</html>')
  for sealed in folder.rglob(digests.FILE):
    assert digests.damage(sealed.parent) is None


def newest_state(workdir):
  with Checkpoints(workdir) as checkpoints:
    return checkpoints.restore(train_state.init_state(configuration.load(workdir)))


def test_train(root, environment, tmp_path):
  data = f'--config.data.prepared={tmp_path / "prepared"}'
  arguments = programs.train(root, tmp_path / 'run', data)
  places = [tmp_path / 'run', tmp_path / 'prepared']
  met = kill_again_and_again(arguments, tmp_path, environment, places)
  # Undisturbed, in a process of its own too: compiled elsewhere it could differ by a bit.
  again = programs.train(root, tmp_path / 'undisturbed', data)
  with programs.start(RUN, again, environment) as process:
    assert process.wait() == 0
  ours, whole = tmp_path / 'run', tmp_path / 'undisturbed'
  assert_same_bits(newest_state(ours), newest_state(whole))
  assert programs.metrics(ours) == programs.metrics(whole)
  one, other = Detector.load(ours), Detector.load(whole)
  assert_same_bits(one.params, other.params)
  np.testing.assert_array_equal(one.calibration.levels, other.calibration.levels)
  assert len(met) >= 5, met


def test_eval(trained, environment, tmp_path):
  workdir = shutil.copytree(trained, tmp_path / 'run')
  met = kill_again_and_again(programs.evaluate(workdir), tmp_path, environment, [workdir / 'eval'])
  whole = shutil.copytree(trained, tmp_path / 'undisturbed')
  with programs.start(RUN, programs.evaluate(whole), environment) as process:
    assert process.wait() == 0
  with np.load(workdir / 'eval/maps.npz') as ours, np.load(whole / 'eval/maps.npz') as theirs:
    assert ours.files == theirs.files
    for name in ours.files:
      np.testing.assert_array_equal(ours[name], theirs[name])
  figures = [json.loads((each / 'eval/metrics.json').read_text()) for each in (workdir, whole)]
  assert figures[0]['maps'] == figures[1]['maps']
  assert files_of(workdir / 'eval') == files_of(whole / 'eval')
  assert len(met) >= 5, met


def test_sweep(root, environment, tmp_path):
  def arguments(workdir):
    config = ['--config', programs.config_for(root), '--workdir', str(workdir)]
    return ['sweep', *config, '--seeds', '2']

  met = kill_again_and_again(
    arguments(tmp_path / 'sweep'), tmp_path, environment, [tmp_path / 'sweep']
  )
  with programs.start(RUN, arguments(tmp_path / 'whole'), environment) as process:
    assert process.wait() == 0
  ours, whole = (
    json.loads((tmp_path / name / 'sweep.json').read_text())['groups']
    for name in ('sweep', 'whole')
  )
  assert without_cost(ours) == without_cost(whole)
  assert len(met) >= 5, met


def test_train_and_sweep_on_changing_data(environment, tmp_path):
  """Killed, and begun again on other data each time: refused, until it is told to begin anew."""
  root, moments, refused = tmp_path / 'parts', random.Random(1), 0

  def change(number):
    shutil.rmtree(root, ignore_errors=True)
    programs.write(root, train=3 + number % 2, good=1, bad=1)
    programs.save(root / 'train/good/0.png', programs.noise(number))

  def attempt(arguments, seconds=None):
    with programs.start(RUN, arguments, environment) as process:
      wait(process, seconds)
      process.kill()
      errors = process.communicate()[1]
    assert process.returncode in (0, 2, -signal.SIGKILL), errors
    assert ('was begun with other data' in errors) == (process.returncode == 2), errors
    return process.returncode

  def commands(name):
    train = programs.train(root, tmp_path / name / 'train', '--config.train.steps=200')
    config = ['--config', programs.config_for(root), '--config.train.steps=200']
    return [train, ['sweep', *config, '--workdir', str(tmp_path / name / 'sweep'), '--seeds', '2']]

  change(0)
  begun = time.monotonic()
  assert not any(map(attempt, commands('whole')))
  longest = (time.monotonic() - begun) / 2
  shutil.rmtree(tmp_path / 'whole')
  for number in range(3):
    change(number)
    for arguments in commands('disturbed'):
      if attempt(arguments, longest * moments.uniform(0.5, 1)) == 2:
        refused += 1
        attempt([*arguments, '--restart'], longest * moments.uniform(0.5, 1))
  for arguments in commands('disturbed'):
    if attempt(arguments) == 2:
      assert attempt([*arguments, '--restart']) == 0
  assert not any(map(attempt, commands('whole')))
  assert refused >= 2
  for folder in ('train', 'sweep/base/seed=0,lambda=0.1,rate=0.0001'):
    ours, theirs = (tmp_path / name / folder for name in ('disturbed', 'whole'))
    assert_same_bits(newest_state(ours), newest_state(theirs))
    assert programs.metrics(ours) == programs.metrics(theirs)
  ours, theirs = (
    json.loads((tmp_path / name / 'sweep/sweep.json').read_text())['groups']
    for name in ('disturbed', 'whole')
  )
  assert without_cost(ours) == without_cost(theirs)


def test_predict(trained, environment, tmp_path):
  images = tmp_path / 'images'
  for index in range(80):
    programs.save(images / f'{index}.png', programs.noise(9, index))
  met = kill_again_and_again(
    [*programs.predict(trained, tmp_path / 'found', images), '--pictures', 'all'],
    tmp_path,
    environment,
    [tmp_path / 'found'],
  )
  whole = tmp_path / 'whole'
  arguments = [*programs.predict(trained, whole, images), '--pictures', 'all']
  with programs.start(RUN, arguments, environment) as process:
    assert process.wait() == 0
  for name in ('results.jsonl', 'results.csv'):
    assert (tmp_path / 'found' / name).read_bytes() == (whole / name).read_bytes()
  for kind in ('masks', 'overlays'):
    for path in (whole / kind).iterdir():
      assert (tmp_path / 'found' / kind / path.name).read_bytes() == path.read_bytes()
  assert len(met) >= 5, met


def test_submit(trained, environment, tmp_path):
  workdir = shutil.copytree(trained, tmp_path / 'run')
  config = json.loads((workdir / configuration.FILE).read_text())
  config['data'].update(name='mvtec_ad_2', category='vial', root=str(tmp_path / 'root'))
  (workdir / configuration.FILE).write_text(json.dumps(config))
  for split, kind in private_splits.SPLITS.items():
    for index in range(40):
      path = tmp_path / f'root/vial/{split}/{index:03}_{kind}.png'
      programs.save(path, programs.noise(9, index))
  code = f"""
from patch_svdd_jax.data import private_splits
private_splits.COUNTS = {{'vial': 40}}
{RUN}"""

  def submit(output):
    return ['submit', '--workdir', workdir, '--output', output]

  output, whole = tmp_path / 'out', tmp_path / 'whole'
  met = kill_again_and_again(submit(output), output, environment, [output], code)
  finish(submit(whole), environment, code)
  found, expected = (
    {
      path.relative_to(place): path.read_bytes()
      for path in place.rglob('*')
      if path.suffix in ('.tiff', '.png', '.json')
    }
    for place in (output, whole)
  )
  assert found == expected
  assert len(found) == 4 * 40 + 1
  with tarfile.open(output / 'submission.tar.gz') as tar:
    assert len(tar.getnames()) == 4 * 40
  assert len(met) >= 5, met


def remove_some(images, moments):
  for path in moments.sample(sorted(images.glob('*.png')), 3):
    path.unlink()


def replace_some(images, moments):
  """By others of equal size and times."""
  for path in moments.sample(sorted(images.glob('*.png')), 3):
    before = path.stat()
    place(path, moments)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size


def replace_all(images, moments):
  """Another day: some of the same names, others of their own."""
  remove([images])
  for index in range(30):
    place(images / f'{index}.png', moments)
    place(images / f'other {index}.png', moments)


def add_some(images, moments):
  for _ in range(3):
    place(images / f'{moments.random()}.png', moments)


def place(path, moments):
  """An image whose file has the size of all others."""
  path.parent.mkdir(exist_ok=True)
  pixels = programs.noise(moments.randrange(2**32))
  with path.open('wb') as file:
    Image.fromarray(pixels).save(file, 'PNG', compress_level=0)


def test_predict_on_data_that_change_between_its_kills(trained, environment, tmp_path):
  """Each restart refuses what differs, or goes on; no old verdict or picture is left at the end."""
  images, output, moments = tmp_path / 'images', tmp_path / 'found', random.Random(1)
  other = shutil.copytree(trained, tmp_path / 'other')
  with programs.start(RUN, ['build-bank', '--workdir', other], environment) as process:
    assert process.wait() == 0
  for index in range(60):
    place(images / f'{index}.png', moments)

  def arguments(folder, model, pictures):
    return [*programs.predict(model, folder, images), '--pictures', pictures]

  changes, refused = (remove_some, replace_some, replace_all, add_some, None), 0
  begun = time.monotonic()
  finish(arguments(output, trained, 'all'), environment)
  longest = time.monotonic() - begun
  for number in range(KILLS):
    change = changes[number % len(changes)]
    model, pictures = moments.choice([trained, trained, other]), moments.choice(['all', 'alarms'])
    command = arguments(output, model, pictures)
    with programs.start(RUN, command, environment) as process:
      before = stamps(output)
      if number % 2:
        wait(process, longest * moments.uniform(0.5, 0.9))
      else:
        wait_for_files(process, output, before, moments.randint(1, 60))
      process.kill()
      process.communicate()
    check_whole(output)
    if change:
      change(images, moments)
    left = stamps(output)
    left.pop('.lock', None)  # a killed run leaves it; it holds nothing
    with programs.start(RUN, command, environment) as process:
      errors = process.communicate()[1]
    if process.returncode == 2:
      assert 'holds unfinished results of ' in programs.error_line(errors)
      assert stamps(output) == left
      refused += 1
      finish([*command, '--restart'], environment)
    else:
      assert process.returncode == 0, errors
    whole = tmp_path / 'whole'
    remove([whole])
    finish(arguments(whole, model, pictures), environment)
    assert files_of(output) == files_of(whole)
    for name in files_of(whole):
      assert (output / name).read_bytes() == (whole / name).read_bytes(), name
  assert refused >= 3


def without_cost(value):
  if isinstance(value, dict):
    return {name: without_cost(item) for name, item in value.items() if name != 'cost'}
  return value


def files_of(folder: pathlib.Path):
  return sorted(str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file())
