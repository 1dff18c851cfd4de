"""`train` end to end on a folder of images: what it writes, resumes, survives and refuses."""

import contextlib
import errno
import functools
import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from absl import logging
from PIL import Image

from patch_svdd_jax import configuration
from patch_svdd_jax.commands import main
from patch_svdd_jax.configs import default
from patch_svdd_jax.data import recognition
from patch_svdd_jax.detection.detector import Detector
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.experiments.training_run import StopRequest, check_resumable
from patch_svdd_jax.models import encoder
from patch_svdd_jax.training import (
  checkpoint_selection,
  event_file,
  loop,
  train_state,
  train_step,
)
from patch_svdd_jax.training.checkpoints import Checkpoints

ROOT = pathlib.Path(__file__).parents[2]

CONFIG = """
from patch_svdd_jax.configs import default

def get_config(root):
  config = default.get_config()
  config.data.update(name='folder', category='', root=root, prepared=root + '.prepared')
  config.data.image_size = (40, 48)
  config.encoder.update(receptive_field=16, scales=(32, 16), depth=3, width=0.25, embed_dim=8)
  config.train.update(steps=5, steps_per_call=2, batch_size=4, svdd_weight=0.1)
  config.checkpoint.update(every=2, keep=9)
  config.score.update(strides=(8, 4), batch_size=1)
  return config
"""

# Trains, and is killed halfway through a save: the encoder of step 4 has its final name, the rest
# does not.
KILLED = """
import os, signal, sys
from patch_svdd_jax.commands import main

def rename(source, *others, real=os.rename, **options):
  if str(source).endswith('4.orbax-checkpoint-tmp/trainer.orbax-checkpoint-tmp'):
    os.kill(os.getpid(), signal.SIGKILL)
  return real(source, *others, **options)

os.rename = rename
sys.exit(main(sys.argv[1:]))
"""

# With many steps a run takes seconds, in which it can be stopped.
MANY = ['--config.train.steps=200', '--config.checkpoint.every=1000']


@pytest.fixture(scope='module', autouse=True)
def environment(compilation):
  """The variables by which subprocesses compile as this process does."""
  strict = {'jax_platforms': 'cpu', 'jax_numpy_rank_promotion': 'raise'}
  return os.environ | {name.upper(): str(value) for name, value in (compilation | strict).items()}


@pytest.fixture(scope='module', autouse=True)
def shared_train_steps():
  """Traces the train step of a config once, however many tests run it."""
  make = train_step.make_train_step

  @functools.cache
  def make_once(config, *others):
    return make(configuration.from_json(config, 'test'), *others)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(
      train_step,
      'make_train_step',
      lambda config, *others: make_once(configuration.to_json(config), *others),
    )
    yield


@pytest.fixture(scope='module')
def config(tmp_path_factory):
  """What --config takes: a config file and a folder of four training images."""
  folder = tmp_path_factory.mktemp('train')
  good = folder / 'nuts' / 'train' / 'good'
  good.mkdir(parents=True)
  for index in range(4):
    pixels = np.random.default_rng(index).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(good / f'{index:03}.png')
  (folder / 'tiny.py').write_text(CONFIG)
  return f'{folder / "tiny.py"}:{folder / "nuts"}'


def command(config, workdir, *others):
  return ['train', '--config', config, '--workdir', str(workdir), *others]


@pytest.fixture(scope='module')
def finished(config, tmp_path_factory):
  """The workdir of a whole run of five steps, and what it printed."""
  workdir, printed = tmp_path_factory.mktemp('finished') / 'run', io.StringIO()
  with contextlib.redirect_stdout(printed):
    assert main(command(config, workdir)) == 0
  return workdir, printed.getvalue()


def newest_state(config, workdir):
  with Checkpoints(workdir) as checkpoints:
    return checkpoints.restore(train_state.init_state(configuration.read(config)))


def assert_same_bits(found, expected):
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  for (path, one), other in zip(
    jax.tree.leaves_with_path(found), jax.tree.leaves(expected), strict=True
  ):
    assert np.array(one).tobytes() == np.array(other).tobytes(), jax.tree_util.keystr(path)


def names(folder):
  return sorted(path.name for path in folder.iterdir())


def read_metrics(workdir, but=('steps_per_s', 'pairs_per_s')):
  """The recorded lines without the speeds."""
  lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
  return [{name: value for name, value in line.items() if name not in but} for line in lines]


def only_line(text):
  """The error's line; progress bars end in a carriage return or stand before it."""
  [line] = [line for line in text.splitlines() if line.startswith('error: ')]
  assert 'Traceback' not in text
  return line


def test_the_images_say_their_size_and_the_run_keeps_it(config, finished, tmp_path, capsys):
  open_side = command(config, tmp_path / 'run', '--config.data.image_size=(40,0)')
  assert main(open_side) == 0
  assert configuration.load(tmp_path / 'run') == configuration.load(finished[0])
  assert Detector.load(tmp_path / 'run').config.data.image_size == (40, 48)
  # The same command goes on, and so does any whose size comes to the same.
  assert main(open_side) == 0
  assert main(command(config, tmp_path / 'run', '--config.data.image_size=(0,0)')) == 0
  capsys.readouterr()
  other = command(config, tmp_path / 'run', '--config.data.image_size=(48,0)')
  assert main(other) == 2
  assert 'image_size: (40, 48) -> (48, 48)' in only_line(capsys.readouterr().err)
  # Known when the images are read: half the height leaves none for a pair.
  small = command(config, tmp_path / 'small', '--config.data.image_size=(0,24)')
  assert main(small) == 2
  assert 'images of 0x24 pixels are too small' in only_line(capsys.readouterr().err)
  small = command(config, tmp_path / 'small', '--config.data.image_size=(0,36)')
  assert main(small) == 2
  assert 'images of 30x36 pixels are too small' in only_line(capsys.readouterr().err)


def test_a_workdir_gets_config_checkpoints_model_and_metrics(config, finished):
  workdir, printed = finished
  assert names(workdir) == [
    'checkpoints',
    'config.json',
    'data.json',
    'data_report.json',
    'metrics.jsonl',
    'model',
    'tensorboard',
  ]
  given = configuration.read(config)
  given.data.value_range = (0.0, 255.0)  # the training images decide
  assert configuration.load(workdir) == given
  assert names(workdir / 'checkpoints') == ['2', '4', '5']
  assert [line['step'] for line in read_metrics(workdir)] == [2, 4, 5]
  assert 'position_accuracy/k16' in read_metrics(workdir)[0]
  [events] = names(workdir / 'tensorboard')
  assert events.startswith('events.out.tfevents.')
  assert f'{workdir}: 5 steps; eval --workdir {workdir} measures it' in printed
  # 4 images of 2 x 3 and of 7 x 9 patches.
  assert 'K=32: memory bank of 24 patches x ' in printed
  assert 'K=16: memory bank of 252 patches x ' in printed


def test_the_model_is_a_detector_of_the_trained_encoder(config, finished):
  detector = Detector.load(finished[0])
  assert detector.origin.step == 5
  state = newest_state(config, finished[0])
  assert_same_bits(detector.params, state.params['encoder'])
  normal = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
  strange = np.full_like(normal, 255)
  scores = detector.score(np.stack([normal, strange]))
  assert set(scores.images) == {'k32', 'k16', 'sum', 'product'}
  for k in ('k32', 'k16'):
    assert scores.images[k][0] < 1e-5 < scores.images[k][1]


def test_more_steps_resume_and_another_config_is_refused(config, finished, tmp_path, capsys):
  workdir = tmp_path / 'run'
  assert main(command(config, workdir)) == 0
  assert_same_bits(newest_state(config, workdir), newest_state(config, finished[0]))
  before = read_metrics(workdir)
  assert before == read_metrics(finished[0])
  assert main(command(config, workdir, *MANY)) == 0
  assert read_metrics(workdir)[:3] == before
  assert [line['step'] for line in read_metrics(workdir)][3:] == [*range(7, 200, 2), 200]
  assert Detector.load(workdir).origin.step == 200
  assert configuration.load(workdir).train.steps == 200

  capsys.readouterr()
  kept = (workdir / 'config.json').read_bytes()
  changes = ['--config.train.learning_rate=0.5', '--config.encoder.width=0.5']
  assert main(command(config, workdir, *MANY, *changes)) == 2
  line = only_line(capsys.readouterr().err)
  assert f'{workdir} was started with another config (' in line
  assert 'config.train.learning_rate: 0.0001 -> 0.5' in line
  assert 'config.encoder.width: 0.25 -> 0.5' in line
  assert 'config.train.steps' not in line
  assert (workdir / 'config.json').read_bytes() == kept


def run_until_killed(arguments, environment):
  """Runs the command in a process that is killed in the middle of a save."""
  killed = subprocess.run(
    [sys.executable, '-W', 'error', '-c', KILLED, *arguments],
    cwd=ROOT,
    env=environment,
    capture_output=True,
    text=True,
    check=False,
  )
  assert killed.returncode == -signal.SIGKILL, killed.stderr


def test_a_run_killed_in_the_middle_of_a_save_resumes(config, finished, environment, tmp_path):
  workdir = tmp_path / 'run'
  arguments = command(config, workdir)
  run_until_killed(arguments, environment)
  unfinished = workdir / 'checkpoints' / '4.orbax-checkpoint-tmp'
  assert names(workdir / 'checkpoints') == ['2', unfinished.name]
  assert {'encoder', 'trainer.orbax-checkpoint-tmp'} <= set(names(unfinished))
  assert [line['step'] for line in read_metrics(workdir)] == [2, 4]
  assert main(arguments) == 0
  assert names(workdir / 'checkpoints') == ['2', '4', '5']
  assert_same_bits(newest_state(config, workdir), newest_state(config, finished[0]))
  assert read_metrics(workdir) == read_metrics(finished[0])


# Which checkpoint the detector is made of.

HELD_OUT = ['--config.data.held_out=0.25', '--config.checkpoint.keep=1']


@pytest.fixture(scope='module')
def chosen(config, tmp_path_factory):
  """A whole run with one of four images held out, and what it printed."""
  workdir, printed = tmp_path_factory.mktemp('chosen') / 'run', io.StringIO()
  with contextlib.redirect_stdout(printed):
    assert main(command(config, workdir, *HELD_OUT)) == 0
  return workdir, printed.getvalue()


def read_statistics(workdir):
  """Those of the held-out images, by step."""
  return {
    line['step']: {name.removeprefix('held_out/'): value for name, value in line.items()}
    for line in read_metrics(workdir)
    if 'held_out/loss' in line
  }


def test_the_detector_is_of_the_checkpoint_that_held_out_images_choose(config, chosen):
  workdir, printed = chosen
  scores = {
    step: checkpoint_selection.score(found) for step, found in read_statistics(workdir).items()
  }
  assert list(scores) == [2, 4, 5]
  best = max(scores, key=lambda step: (scores[step], step))
  assert names(workdir / 'checkpoints') == sorted({str(best), '5'})
  with Checkpoints(workdir) as checkpoints:
    like = encoder.init_encoder(configuration.read(config))
    expected = checkpoints.restore_encoder(like, best)
  detector = Detector.load(workdir)
  assert detector.origin.step == best
  assert_same_bits(detector.params, expected)
  assert (
    f'the detector is of step {best}, by the held-out images: score {scores[best]:.3f}' in printed
  )
  # Three images of 2 x 3 and of 7 x 9 patches, and their mean.
  assert {k: bank.size for k, bank in detector.banks.items()} == {32: 18, 16: 189}
  images = [np.random.default_rng(i).integers(0, 256, (40, 48, 3), np.uint8) for i in (0, 1, 3)]
  np.testing.assert_allclose(detector.mean, np.mean(images, axis=0), rtol=1e-6)


def test_without_held_out_images_it_is_the_newest(finished):
  assert 'the detector is of step 5, the newest' in finished[1]
  assert not read_statistics(finished[0])


@pytest.mark.slow
def test_a_killed_run_chooses_the_same(config, chosen, environment, tmp_path):
  workdir = tmp_path / 'run'
  arguments = command(config, workdir, *HELD_OUT)
  run_until_killed(arguments, environment)
  assert list(read_statistics(workdir)) == [2, 4]
  assert main(arguments) == 0
  assert read_metrics(workdir) == read_metrics(chosen[0])
  assert Detector.load(workdir).origin.step == Detector.load(chosen[0]).origin.step
  assert set(names(chosen[0] / 'checkpoints')) <= set(names(workdir / 'checkpoints'))


def test_held_out_images_cannot_be_trained_on_later(config, chosen, capsys):
  assert main(command(config, chosen[0])) == 2
  assert 'config.data.held_out: 0.25 -> 0.0' in only_line(capsys.readouterr().err)


# What happens when the embeddings collapse.

COLLAPSING = [
  '--config.train.svdd_weight=1000.',
  '--config.train.learning_rate=0.01',
  '--config.train.batch_size=32',
  '--config.train.steps=40',
  '--config.checkpoint.every=100',
]


def test_a_collapse_stops_the_run_and_nothing_is_lost(config, tmp_path, capsys):
  workdir = tmp_path / 'run'
  arguments = command(config, workdir, *COLLAPSING)
  assert main([*arguments, '--config.train.on_collapse=stop']) == 2
  line = only_line(capsys.readouterr().err)
  step = read_metrics(workdir)[-1]['step']
  assert f'error: by step {step} the embeddings have collapsed to a point (k' in line
  assert 'config.train.svdd_weight=0.001 (now 1000)' in line
  assert line.endswith('the state is saved')
  assert names(workdir / 'checkpoints') == [str(step)]
  assert not (workdir / 'model').exists()

  # The same command without it goes on from there, and says so once more.
  assert main(arguments) == 0
  warnings = [text for text in capsys.readouterr().err.splitlines() if 'have collapsed' in text]
  assert warnings[0].startswith(f'warning: by step {step + 2} ')
  assert len(warnings) <= 2
  assert [found['step'] for found in read_metrics(workdir)] == [*range(2, 41, 2)]


def wait_for(condition, process, seconds=120):
  end = time.monotonic() + seconds
  while not condition():
    assert process.poll() is None, process.communicate()
    assert time.monotonic() < end
    time.sleep(0.01)


def test_sigterm_saves_and_the_same_command_finishes(config, environment, tmp_path):
  workdir = tmp_path / 'run'
  arguments = command(config, workdir, *MANY)
  metrics = workdir / 'metrics.jsonl'
  with subprocess.Popen(
    [sys.executable, '-W', 'error', 'train.py', *arguments[1:]],
    cwd=ROOT,
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  ) as process:
    wait_for(lambda: metrics.exists() and metrics.stat().st_size, process)
    process.terminate()
    printed, errors = process.communicate()
  assert process.returncode == 128 + signal.SIGTERM, errors
  [step] = map(int, names(workdir / 'checkpoints'))
  assert 0 < step < 200
  assert printed.splitlines() == [
    f'folder/nuts: {recognition.MVTEC}',
    'folder/nuts: train 4 (PNG 8-bit RGB, 48 x 40)',
    f'stopped at step {step} of {workdir}: run the same command, without --restart, to resume',
  ]
  assert 'stopping after this call' in errors
  assert not (workdir / 'model').exists()
  assert read_metrics(workdir)[-1]['step'] == step
  assert main(arguments) == 0
  assert [line['step'] for line in read_metrics(workdir)] == [*range(2, 201, 2)]
  assert Detector.load(workdir).origin.step == 200


@pytest.fixture
def interruptible():
  """A terminal's handler: a shell's background jobs ignore Ctrl-C, and so would these tests."""
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  yield
  signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures('interruptible')
def test_ctrl_c_asks_to_stop_and_a_second_one_interrupts(capsys):
  before = signal.getsignal(signal.SIGINT)
  stop = StopRequest()
  with stop.listening():
    assert not stop()
    os.kill(os.getpid(), signal.SIGINT)
    assert stop()
    assert stop.signal == signal.SIGINT
    assert 'stopping' in capsys.readouterr().err
    with pytest.raises(KeyboardInterrupt):
      os.kill(os.getpid(), signal.SIGINT)
  assert signal.getsignal(signal.SIGINT) is before


# What is refused: one line, by name, nothing written.


@pytest.mark.parametrize(
  ('others', 'words'),
  [
    (['--config.train.stepz=3'], 'config.train.stepz'),
    (['--config.train.steps=many'], 'config.train.steps'),
    (['--config.encoder.width=wide'], 'config.encoder.width'),
    (['--config.train.steps=0'], 'config.train.steps=0: must be at least 1'),
    (['--config.data.held_out=0.9'], 'held_out=0.9 of 4 normal images leaves none to train on'),
    (['--config.data.image_size=(32,32)'], 'images of 32x32 pixels are too small'),
    (['--config.data.root=/nowhere'], '/nowhere'),
    (['steps=3'], "'steps=3'"),
  ],
  ids=lambda value: value[0] if isinstance(value, list) else '',
)
def test_a_bad_setting_is_refused_before_anything_is_written(
  config, tmp_path, capsys, others, words
):
  assert main(command(config, tmp_path / 'run', *others)) == 2
  printed = capsys.readouterr()
  # How many images there are is known when they have been prepared, which shows a bar.
  *bar, error = printed.err.splitlines()
  assert error.startswith('error: ')
  assert words in error
  assert all('Preparing' in line for line in bar if line)
  assert printed.out == ''
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
  ('text', 'words'),
  [
    (None, 'no config file'),
    ('x = 1', 'get_config'),
    (CONFIG.replace('batch_size=', 'batchsize='), 'batchsize'),
    (CONFIG.replace('steps=5', "steps='five'"), 'steps'),
  ],
  ids=['no file', 'no get_config', 'unknown key', 'wrong type'],
)
def test_a_bad_config_file_is_refused(tmp_path, capsys, text, words):
  file = tmp_path / 'own.py'
  if text:
    file.write_text(text)
  assert main(command(f'{file}:root', tmp_path / 'run')) == 2
  printed = capsys.readouterr().err
  assert printed.startswith('error: ')
  assert printed.count('\n') == 1
  assert 'own.py' in printed
  assert words in printed
  assert names(tmp_path) == (['own.py'] if text else [])


def test_an_imported_workdir_is_refused(config, finished, tmp_path, capsys):
  workdir = tmp_path / 'run'
  configuration.save(configuration.read(config), workdir)
  with Checkpoints(workdir) as checkpoints:
    checkpoints.save_encoder(newest_state(config, finished[0]).params['encoder'])
  assert main(command(config, workdir)) == 2
  assert "checkpoints/0 holds no 'trainer': it was imported" in only_line(capsys.readouterr().err)
  assert names(workdir / 'checkpoints') == ['0']


def test_a_workdir_that_cannot_be_made_is_refused(config, tmp_path, capsys):
  (tmp_path / 'file').write_text('')
  assert main(command(config, tmp_path / 'file' / 'run')) == 2
  assert 'cannot write' in only_line(capsys.readouterr().err)


@pytest.mark.parametrize('full', ['checkpoints', 'metrics'])
def test_a_full_disk_is_one_line(config, tmp_path, capsys, monkeypatch, full):
  def fail(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  if full == 'checkpoints':
    monkeypatch.setattr(ocp.CheckpointManager, 'save', fail)
  else:
    monkeypatch.setattr(event_file.EventFile, 'write', fail)
  assert main(command(config, tmp_path / 'run')) == 2
  assert f'no space left on the disk of {tmp_path}' in only_line(capsys.readouterr().err)
  assert not (tmp_path / 'run' / 'model').exists()


def test_an_error_within_training_is_not_the_disks(config, tmp_path, caplog, monkeypatch):
  def fit(*_, **__):
    logging.warning('of another library')
    return pathlib.Path('/no/such/image.png').open()

  monkeypatch.setattr(loop, 'fit', fit)
  with pytest.raises(FileNotFoundError, match='no/such/image') as raised:
    main(command(config, tmp_path / 'run'))
  assert 'fit' in [entry.name for entry in raised.traceback]
  assert 'of another library' in caplog.messages


def test_help_names_the_config_keys(capsys):
  with pytest.raises(SystemExit, match='0'):
    main(['train', '--help'])
  text = capsys.readouterr().out
  for key, _ in configuration.flatten(default.get_config()):
    assert f'--{key}=' in text


@pytest.mark.parametrize(('decay', 'refused'), [('none', False), ('cosine', True)])
def test_another_end_is_refused_only_where_it_changes_every_step(tmp_path, decay, refused):
  config = default.get_config()
  config.train.decay = decay
  configuration.save(config, tmp_path)
  config.train.steps += 1
  with pytest.raises(UserError, match=r'train\.steps') if refused else contextlib.nullcontext():
    check_resumable(config, tmp_path)
