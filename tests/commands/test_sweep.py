"""`sweep` end to end on a folder of images: what it writes, adds, resumes and refuses."""

import contextlib
import csv
import io
import json
import os
import pathlib
import re
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from patch_svdd_jax import configuration
from patch_svdd_jax.commands import main, sweep
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.experiments import sweep_statistics
from patch_svdd_jax.experiments.training_run import StopRequest
from patch_svdd_jax.models.encoder import init_encoder
from patch_svdd_jax.training.checkpoints import Checkpoints
from patch_svdd_jax.training.train_state import init_state

pytestmark = pytest.mark.usefixtures('only_quick_compilation')

CONFIG = """
from patch_svdd_jax.configs import default

def get_config(root):
  config = default.get_config()
  config.seed = 5
  config.data.update(name='folder', category='', root=root, prepared=root + '.prepared')
  config.data.image_size = (40, 48)
  config.encoder.update(receptive_field=8, scales=(8,), depth=2, width=0.25, embed_dim=8)
  config.train.update(steps=5, steps_per_call=2, batch_size=8, svdd_weight=0.1)
  config.checkpoint.update(every=2)
  config.score.update(strides=(8,), batch_size=2)
  return config
"""
MEMBERS = ['seed=5,lambda=0.1,rate=0.0001', 'seed=6,lambda=0.1,rate=0.0001']
GROUPS = ['encoder.depth=2', 'encoder.depth=3']


@pytest.fixture(scope='module')
def config(tmp_path_factory):
  """What --config takes: a config file and a folder of training and test images."""
  folder = tmp_path_factory.mktemp('sweep')
  counts = {'train/good': 4, 'test/good': 2, 'test/hole': 2}
  for number, (place, count) in enumerate(counts.items()):
    (folder / 'nuts' / place).mkdir(parents=True)
    for index in range(count):
      rng = np.random.default_rng([number, index])
      pixels = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
      if place == 'test/hole':
        pixels[10:20, 10:20] = 0
        mask = np.zeros((40, 48), np.uint8)
        mask[10:20, 10:20] = 255
        masks = folder / 'nuts' / 'ground_truth' / 'hole'
        masks.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(masks / f'{index:03}_mask.png')
      Image.fromarray(pixels).save(folder / 'nuts' / place / f'{index:03}.png')
  (folder / 'tiny.py').write_text(CONFIG)
  return f'{folder / "tiny.py"}:{folder / "nuts"}'


def command(config, workdir, *others):
  return ['sweep', '--config', config, '--workdir', str(workdir), *others]


@pytest.fixture(scope='module')
def finished(config, tmp_path_factory):
  """The workdir of a sweep over two seeds and two depths, and what it printed."""
  workdir, printed = tmp_path_factory.mktemp('finished') / 'sweep', io.StringIO()
  others = ['--seeds', '2', '--vary', 'encoder.depth=2,3']
  with contextlib.redirect_stdout(printed):
    assert main(command(config, workdir, *others)) == 0
  return workdir, printed.getvalue()


def read(workdir):
  return json.loads((workdir / 'sweep.json').read_text())


def recorded(workdir):
  """The steps of a member's metrics."""
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  return [json.loads(line)['step'] for line in lines]


def newest_state(config, workdir):
  with Checkpoints(workdir) as checkpoints:
    return checkpoints.restore(init_state(config))


def test_every_member_is_trained_and_measured(finished):
  workdir, _ = finished
  contents = read(workdir)
  assert list(contents['groups']) == GROUPS
  for depth, name in zip((2, 3), GROUPS, strict=True):
    group = contents['groups'][name]
    assert group['varied'] == {'config.encoder.depth': depth}
    assert set(group['random_encoder']) == {'k8'}
    assert list(group['members']) == MEMBERS
    for seed, (member, figures) in zip((5, 6), group['members'].items(), strict=True):
      assert (figures['seed'], figures['svdd_weight']) == (seed, 0.1)
      assert (figures['learning_rate'], figures['step']) == (1e-4, 5)
      assert 0 <= figures['maps']['k8']['pixel_auroc'] <= 1
      assert 0 <= figures['position_accuracy']['k8'] <= 1
      own = configuration.load(workdir / name / member)
      assert (own.seed, own.encoder.depth) == (seed, depth)
      assert recorded(workdir / name / member) == [2, 4, 5]
  # Groups of another shape have another untrained encoder.
  first, second = (contents['groups'][name]['random_encoder'] for name in GROUPS)
  assert first != second


def test_means_are_those_of_the_members(finished):
  contents = read(finished[0])
  assert len(contents['settings']) == 2
  for setting in contents['settings']:
    members = contents['groups'][setting['group']]['members'].values()
    values = [member['maps']['k8']['image_auroc'] for member in members]
    found = setting['maps']['k8']['image_auroc']
    assert found['mean'] == pytest.approx(np.mean(values))
    # t(1) = 12.7062 at .975; s / sqrt(2) is half of the difference of two.
    assert found['half_width'] == pytest.approx(12.7062 * abs(values[0] - values[1]) / 2, rel=1e-5)


def test_the_tables_are_printed_and_kept(finished):
  workdir, printed = finished
  text = (workdir / 'sweep.md').read_text()
  assert text in printed
  assert text.count('| setting') == 4
  for part in (
    'image AUROC',
    'pixel AUROC',
    'position accuracy',
    '| encoder.depth=3, untrained ',
    '| encoder.depth=2, lambda 0.1, rate 0.0001 | ',
    ' ± ',
  ):
    assert part in text
  assert f'written: {workdir}' in printed
  for name in ('lambda.png', 'groups.png'):
    with Image.open(workdir / name) as image:
      assert image.format == 'PNG'


def test_costs_are_of_the_group_s_encoder(finished):
  for name in GROUPS:
    group = read(finished[0])['groups'][name]
    own = configuration.load(finished[0] / name / MEMBERS[0])
    sizes = [leaf.size for leaf in jax.tree.leaves(init_encoder(own))]
    assert group['parameters'] == sum(sizes)
    assert group['macs'] > 0
    for member in group['members'].values():
      assert member['cost']['step_seconds'] > 0
      assert member['cost']['images_per_s'] > 0
  with (finished[0] / 'sweep.csv').open() as file:
    lines = list(csv.DictReader(file))
  [line] = [
    each
    for each in lines
    if (each['group'], each['what'], each['metric']) == (GROUPS[1], 'k8', 'pixel_auroc')
  ]
  setting = read(finished[0])['settings'][1]
  assert float(line['mean']) == setting['maps']['k8']['pixel_auroc']['mean']
  assert line['seeds'] == '2'


def test_eval_accepts_a_member(finished, capsys):
  workdir = finished[0] / GROUPS[1] / MEMBERS[1]
  assert main(['eval', '--workdir', str(workdir), '--no-random-encoder']) == 0
  assert '5 steps' in capsys.readouterr().out
  expected = read(finished[0])['groups'][GROUPS[1]]['members'][MEMBERS[1]]['maps']
  assert json.loads((workdir / 'eval' / 'metrics.json').read_text())['maps'] == expected


def fake_measure(member, dataset):
  """Figures without an evaluation, which takes seconds."""
  maps = {'k8': {'image_auroc': 0.5, 'pixel_auroc': None}}
  cost = {'step_seconds': 0.1, 'images_per_s': 9.0}
  return {
    'step': 5,
    'maps': maps,
    sweep_statistics.ACCURACY: {'k8': 0.125},
    sweep_statistics.COST: cost,
  }


def test_longer_lists_add_to_a_sweep(config, finished, monkeypatch, capsys):
  workdir, before = finished[0], read(finished[0])
  measured = []
  monkeypatch.setattr(
    sweep, 'member_figures', lambda *args: (measured.append(args[0].name), fake_measure(*args))[1]
  )
  others = ['--seeds', '2', '--svdd-weights', '0.1', '0', '--vary', 'encoder.depth=2']
  assert main(command(config, workdir, *others)) == 0
  assert measured == [name.replace('0.1', '0.0') for name in MEMBERS]
  after = read(workdir)
  assert after['groups'][GROUPS[1]] == before['groups'][GROUPS[1]]
  assert list(after['groups'][GROUPS[0]]['members']) == [*MEMBERS, *measured]
  assert '| encoder.depth=2, lambda 0, rate 0.0001 ' in capsys.readouterr().out

  assert main(command(config, workdir, *others, '--config.train.batch_size=16')) == 2
  line = capsys.readouterr().err
  assert line.startswith(f'error: {workdir} was started with another config (')
  assert 'config.train.batch_size: 8 -> 16' in line
  assert read(workdir) == after


def test_an_interrupted_sweep_goes_on(config, finished, tmp_path, monkeypatch, capsys):
  class Impatient(StopRequest):
    asked = 0

    def __call__(self):
      self.asked += 1
      self.signal = 15 * (self.asked > 1)
      return bool(self.signal)

  monkeypatch.setattr(sweep, 'member_figures', fake_measure)
  workdir, others = tmp_path / 'sweep', ['--seeds', '2', '--vary', 'encoder.depth=2']
  with monkeypatch.context() as patch:
    patch.setattr(sweep, 'StopRequest', Impatient)
    assert main(command(config, workdir, *others)) == 128 + 15
  printed = capsys.readouterr()
  assert printed.out == (f'stopped in {workdir / GROUPS[0]}: the same command goes on from there\n')
  folders = [workdir / GROUPS[0] / member for member in MEMBERS]
  assert all([path.name for path in (each / 'checkpoints').iterdir()] == ['2'] for each in folders)
  assert not (workdir / 'sweep.json').exists()
  assert main(command(config, workdir, *others)) == 0
  for folder in folders:
    own = configuration.load(folder)
    found = newest_state(own, folder)
    expected = newest_state(own, finished[0] / GROUPS[0] / folder.name)
    assert int(found.step) == 5
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
      assert np.array(one).tobytes() == np.array(other).tobytes()
    assert recorded(folder) == [2, 4, 5]


def test_a_lost_member_is_in_the_table(config, tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(sweep, 'member_figures', fake_measure)
  workdir = tmp_path / 'sweep'
  others = ['--learning-rates', '1e-3', '1e38', '--members-at-once', '2']
  assert main(command(config, workdir, *others)) == 0
  shown = capsys.readouterr()
  lost = 'seed=5,lambda=0.1,rate=1e+38'
  assert f'{lost}: the loss became infinite or NaN at step 2; the others go on' in shown.err
  assert read(workdir)['groups']['base']['members'][lost]['lost_at'] == 1
  assert '| base, lambda 0.1, rate 1e+38 | 0 (1 lost) | ' in shown.out


ABLATION = """
def get_rows(config):
  return {'shallow': {'encoder.depth': 2}, 'deep': {'encoder.depth': 3, 'train.svdd_weight': 0.2}}
"""


@pytest.fixture
def ablation(tmp_path):
  file = tmp_path / 'depths.py'
  file.write_text(ABLATION)
  return str(file)


def test_a_failed_row_is_listed_and_tried_again(config, ablation, tmp_path, monkeypatch, capsys):
  def fail(member, dataset):
    if 'shallow' in str(member.workdir):
      raise UserError('no bank fits')
    return fake_measure(member, dataset)

  monkeypatch.setattr(sweep, 'member_figures', fail)
  workdir, others = tmp_path / 'sweep', ['--ablation', ablation]
  assert main(command(config, workdir, *others)) == 1
  shown = capsys.readouterr()
  assert 'shallow failed: no bank fits' in shown.err
  assert re.search(r'\| shallow +\| no bank fits +\|', shown.out)
  assert re.search(r'\| deep, lambda 0.2, rate 0.0001 +\| +1 ', shown.out)
  measured = []
  monkeypatch.setattr(
    sweep,
    'member_figures',
    lambda *args: (measured.append(args[0].workdir), fake_measure(*args))[1],
  )
  assert main(command(config, workdir, *others)) == 0
  assert [folder.parent.name for folder in measured] == ['shallow']
  shown = capsys.readouterr()
  assert 'no bank fits' not in shown.out + shown.err
  assert re.search(r'\| shallow, lambda 0.1, rate 0.0001 +\| +1 ', shown.out)


ROOT = pathlib.Path(__file__).parents[2]
KILLED = """
import os, signal, sys
from patch_svdd_jax.commands import main, sweep
from tests.commands import test_sweep

def member_figures(member, dataset):
  if member.workdir.parent.name == 'third':
    os.kill(os.getpid(), signal.SIGKILL)
  return test_sweep.fake_measure(member, dataset)

sweep.member_figures = member_figures
main(sys.argv[1:])
"""
THREE = """
def get_rows(config):
  sizes = {'first': 4, 'second': 8, 'third': 12}
  return {name: {'train.batch_size': size} for name, size in sizes.items()}
"""


@pytest.mark.slow
def test_a_kill_in_the_third_row_changes_no_table(config, tmp_path, monkeypatch, capsys):
  (tmp_path / 'three.py').write_text(THREE)
  arguments = command(config, tmp_path / 'killed', '--ablation', str(tmp_path / 'three.py'))
  killed = subprocess.run(
    [sys.executable, '-c', KILLED, *arguments],
    env=os.environ | {'JAX_DISABLE_MOST_OPTIMIZATIONS': '1'},
    capture_output=True,
    cwd=ROOT,
  )
  assert killed.returncode == -signal.SIGKILL, killed.stderr
  assert list(read(tmp_path / 'killed')['groups']['second']['members']) == MEMBERS[:1]
  measured = []
  monkeypatch.setattr(
    sweep,
    'member_figures',
    lambda *args: (measured.append(args[0].workdir), fake_measure(*args))[1],
  )
  assert main(arguments) == 0
  assert [folder.parent.name for folder in measured] == ['third']
  # Of one that was never killed the record alone is wanted: its figures need no training.
  monkeypatch.setattr(sweep, 'train', lambda *_: {})
  whole = command(config, tmp_path / 'whole', '--ablation', str(tmp_path / 'three.py'))
  assert main(whole) == 0
  for name in ('sweep.json', 'sweep.md', 'sweep.csv'):
    assert (tmp_path / 'killed' / name).read_text() == (tmp_path / 'whole' / name).read_text()


def test_a_row_that_changed_is_refused(config, ablation, tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(sweep, 'member_figures', fake_measure)
  workdir, others = tmp_path / 'sweep', ['--ablation', ablation]
  assert main(command(config, workdir, *others)) == 0
  (tmp_path / 'depths.py').write_text(ABLATION.replace("'encoder.depth': 2", "'encoder.depth': 3"))
  capsys.readouterr()
  assert main(command(config, workdir, *others)) == 2
  assert 'has runs of shallow that set' in capsys.readouterr().err


# Names and lists.


@pytest.mark.parametrize(
  ('count', 'at_once', 'sizes'), [(4, 4, [4]), (4, 9, [4]), (5, 3, [3, 2]), (12, 5, [4, 4, 4])]
)
def test_parts_are_small_enough_and_of_like_sizes(count, at_once, sizes):
  parts = list(sweep.in_parts(list(range(count)), at_once))
  assert [len(part) for part in parts] == sizes
  assert [index for part in parts for index in part] == list(range(count))


@pytest.mark.parametrize(
  ('others', 'words'),
  [
    (['--seeds', '0'], '--seeds 0: give a whole number of at least 1'),
    (['--seeds', 'two'], '--seeds two: give a whole number'),
    (['--members-at-once', '1.5'], '--members-at-once 1.5: give a whole number'),
    (['--svdd-weights'], '--svdd-weights: give numbers of at least 0, with spaces between'),
    (['--svdd-weights', '0,1'], '--svdd-weights 0,1: give numbers of at least 0'),
    (['--svdd-weights', '-1'], '--svdd-weights -1: give numbers of at least 0'),
    (['--svdd-weights', 'nan'], '--svdd-weights nan: give numbers'),
    (['--svdd-weights', '1e-3', '0.001'], '--svdd-weights: 0.001 is there twice'),
    (['--learning-rates', '0'], '--learning-rates 0: give positive numbers'),
    (['--vary', 'encoder.depth'], '--vary encoder.depth: give KEY=V1,V2,...'),
    (['--vary', 'encoder.depth=2,,3'], '--vary encoder.depth=2,,3: give KEY=V1,V2,...'),
    (['--vary', 'encoder.deph=2'], 'no such key: config.encoder.deph; did you mean'),
    (['--vary', 'encoder.depth=two'], 'config.encoder.depth=two: must be a whole number'),
    (['--vary', 'encoder.depth=2,2'], '--vary encoder.depth=2,2: 2 is there twice'),
    (['--vary', 'encoder.depth=2', '--vary', 'encoder.depth=3'], 'is there twice: give one list'),
    (['--vary', 'encoder.depth=2,99'], 'config.encoder.depth=99 cannot map 8x8 pixels'),
    (['--vary', 'seed=1,2'], '--vary seed=1,2: give --seeds instead'),
    (['--vary', 'train.svdd_weight=1,2'], 'give --svdd-weights instead'),
    (['--config.data.image_size=(40,0)'], 'config.data.image_size=(40, 0): give both sides'),
  ],
  ids=lambda value: ' '.join(value) if isinstance(value, list) else '',
)
def test_a_bad_list_is_one_line_and_nothing_is_written(config, tmp_path, capsys, others, words):
  assert main(command(config, tmp_path / 'sweep', *others)) == 2
  printed = capsys.readouterr()
  assert printed.err.startswith('error: ')
  assert printed.err.count('\n') == 1
  assert words in printed.err
  assert printed.out == ''
  assert not (tmp_path / 'sweep').exists()


def test_a_file_that_is_no_sweep_is_refused(config, tmp_path, capsys):
  (tmp_path / 'sweep.json').write_text('{}')
  assert main(command(config, tmp_path)) == 2
  assert 'sweep.json is no file of a sweep' in capsys.readouterr().err


def test_data_without_test_images_are_refused(config, tmp_path, capsys):
  folder = tmp_path / 'nuts' / 'train' / 'good'
  folder.mkdir(parents=True)
  Image.fromarray(np.zeros((40, 48, 3), np.uint8)).save(folder / '000.png')
  name = config.partition(':')[0]
  assert main(command(f'{name}:{tmp_path / "nuts"}', tmp_path / 'sweep')) == 2
  assert 'has no test images' in capsys.readouterr().err
