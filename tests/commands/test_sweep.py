"""`sweep` end to end on a folder of images: what it writes, adds, resumes and refuses."""

import contextlib
import io
import json

import jax
import numpy as np
import pytest

from patch_svdd_jax import configuration
from patch_svdd_jax.commands import main
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.experiments import sweep_run, sweep_statistics, sweep_tables
from patch_svdd_jax.experiments.training_run import StopRequest
from patch_svdd_jax.models.encoder import init_encoder
from patch_svdd_jax.training.checkpoints import Checkpoints
from patch_svdd_jax.training.train_state import init_state
from tests.faults import programs
from tests.support.runs import assert_same_bits

MEMBERS = ['seed=0,lambda=0.1,rate=0.0001', 'seed=1,lambda=0.1,rate=0.0001']
GROUPS = ['encoder.depth=2', 'encoder.depth=3']
OF_GROUP = ['--seeds', '2', '--vary', 'encoder.depth=2']


@pytest.fixture(scope='module')
def config(tmp_path_factory):
  """What --config takes: a config file and a folder of training and test images."""
  folder = tmp_path_factory.mktemp('sweep') / 'nuts'
  return programs.config_for(programs.write(folder, good=2, bad=2))


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


def newest_state(workdir):
  with Checkpoints(workdir) as checkpoints:
    return checkpoints.restore(init_state(configuration.load(workdir)))


def test_every_member_is_trained_and_measured(finished):
  workdir, _ = finished
  groups = read(workdir)['groups']
  assert list(groups) == GROUPS
  for depth, (name, group) in zip((2, 3), groups.items(), strict=True):
    assert group['varied'] == {'config.encoder.depth': depth}
    assert set(group['random_encoder']) == {'k8'}
    assert list(group['members']) == MEMBERS
    for seed, (member, figures) in enumerate(group['members'].items()):
      assert (figures['seed'], figures['svdd_weight']) == (seed, 0.1)
      assert (figures['learning_rate'], figures['step']) == (1e-4, 4)
      assert 0 <= figures['maps']['k8']['pixel_auroc'] <= 1
      assert 0 <= figures['position_accuracy']['k8'] <= 1
      assert min(figures['cost']['step_seconds'], figures['cost']['images_per_s']) > 0
      own = configuration.load(workdir / name / member)
      assert (own.seed, own.encoder.depth) == (seed, depth)
      assert [line['step'] for line in programs.metrics(workdir / name / member)] == [2, 4]
    assert group['parameters'] == sum(leaf.size for leaf in jax.tree.leaves(init_encoder(own)))
    assert group['macs'] > 0
  # Groups of another shape have another untrained encoder.
  first, second = (group['random_encoder'] for group in groups.values())
  assert first != second


def test_means_tables_and_plots_are_of_the_members(finished):
  workdir, printed = finished
  contents = read(workdir)
  for setting in contents['settings']:
    members = contents['groups'][setting['group']]['members'].values()
    values = [member['maps']['k8']['image_auroc'] for member in members]
    found = setting['maps']['k8']['image_auroc']
    assert found['mean'] == pytest.approx(np.mean(values))
    # t(1) = 12.7062 at .975; s / sqrt(2) is half of the difference of two.
    assert found['half_width'] == pytest.approx(12.7062 * abs(values[0] - values[1]) / 2, rel=1e-5)
  text = sweep_tables.render(contents['groups'])
  assert printed == f'{text}\n\nwritten: {workdir}\n'
  assert (workdir / 'sweep.md').read_text() == f'{text}\n'
  assert (workdir / 'sweep.csv').read_text() == sweep_tables.sheet(contents['groups']).to_csv()
  assert (workdir / 'lambda.png').exists()
  assert (workdir / 'groups.png').exists()


def test_eval_accepts_a_member(finished, capsys):
  workdir = finished[0] / GROUPS[1] / MEMBERS[1]
  assert main(['eval', '--workdir', str(workdir), '--no-random-encoder']) == 0
  assert '4 steps' in capsys.readouterr().out
  expected = read(finished[0])['groups'][GROUPS[1]]['members'][MEMBERS[1]]['maps']
  assert json.loads((workdir / 'eval' / 'metrics.json').read_text())['maps'] == expected


@pytest.fixture
def measured(monkeypatch):
  """Replaces evaluations, which take seconds; the members that were measured."""
  found = []

  def measure(member, *_):
    found.append(member.name)
    return {
      'step': 4,
      'maps': {'k8': {'image_auroc': 0.5, 'pixel_auroc': None}},
      sweep_statistics.ACCURACY: {'k8': 0.125},
      sweep_statistics.COST: {'step_seconds': 0.1, 'images_per_s': 9.0},
    }

  monkeypatch.setattr(sweep_run, 'member_figures', measure)
  return found


def test_longer_lists_add_to_a_sweep(config, finished, measured, capsys):
  workdir, before = finished[0], read(finished[0])
  others = [*OF_GROUP, '--svdd-weights', '0.1', '0']
  assert main(command(config, workdir, *others)) == 0
  assert measured == [name.replace('0.1', '0.0') for name in MEMBERS]
  after = read(workdir)
  assert after['groups'][GROUPS[1]] == before['groups'][GROUPS[1]]
  assert list(after['groups'][GROUPS[0]]['members']) == [*MEMBERS, *measured]
  assert '| encoder.depth=2, lambda 0, rate 0.0001 ' in capsys.readouterr().out

  assert main(command(config, workdir, *others, '--config.train.batch_size=16')) == 2
  line = capsys.readouterr().err
  assert line.startswith(f'error: {workdir} was started with another config (')
  assert 'config.train.batch_size: 4 -> 16' in line
  assert read(workdir) == after


def test_a_row_that_changed_is_refused(config, finished, tmp_path, capsys):
  file = tmp_path / 'depths.py'
  file.write_text(f'def get_rows(config):\n  return {{{GROUPS[0]!r}: {{"encoder.depth": 3}}}}')
  assert main(command(config, finished[0], '--ablation', str(file))) == 2
  assert f'has runs of {GROUPS[0]} that set' in capsys.readouterr().err


def test_an_interrupted_sweep_goes_on(config, finished, tmp_path, monkeypatch, measured, capsys):
  class Impatient(StopRequest):
    asked = 0

    def __call__(self):
      self.asked += 1
      self.signal = 15 * (self.asked > 1)
      return bool(self.signal)

  workdir = tmp_path / 'sweep'
  with monkeypatch.context() as patch:
    patch.setattr(sweep_run, 'StopRequest', Impatient)
    assert main(command(config, workdir, *OF_GROUP)) == 128 + 15
  assert f'stopped at step 2 of {workdir / GROUPS[0]}' in capsys.readouterr().out
  folders = [workdir / GROUPS[0] / member for member in MEMBERS]
  assert all([path.name for path in (each / 'checkpoints').iterdir()] == ['2'] for each in folders)
  assert main(command(config, workdir, *OF_GROUP)) == 0
  assert measured == MEMBERS
  for folder in folders:
    expected = newest_state(finished[0] / GROUPS[0] / folder.name)
    assert int(expected.step) == 4
    assert_same_bits(newest_state(folder), expected)
    assert [line['step'] for line in programs.metrics(folder)] == [2, 4]


def test_a_lost_member_is_in_the_table(config, tmp_path, measured, capsys):
  workdir = tmp_path / 'sweep'
  others = ['--learning-rates', '1e-3', '1e38', '--members-at-once', '2']
  assert main(command(config, workdir, *others)) == 0
  shown = capsys.readouterr()
  lost = 'seed=0,lambda=0.1,rate=1e+38'
  assert f'{lost}: the loss became infinite or NaN at step 2; the others go on' in shown.err
  assert read(workdir)['groups']['base']['members'][lost]['lost_at'] == 1
  assert '| base, lambda 0.1, rate 1e+38 | 0 (1 lost) | ' in shown.out


def test_groups_fail_alone_and_all_of_them_are_an_error(config, tmp_path, monkeypatch, capsys):
  def full(group, *_, **__):
    if group.name == GROUPS[0]:
      raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: memory\nand much more')
    raise UserError('no bank fits')

  monkeypatch.setattr(sweep_run, 'train', full)
  others = ['--vary', 'encoder.depth=2,3']
  assert main(command(config, tmp_path, *others)) == 2
  printed = capsys.readouterr()
  assert '| encoder.depth=2 | RESOURCE_EXHAUSTED: memory |' in printed.out
  assert printed.err.endswith('\nerror: RESOURCE_EXHAUSTED: memory\n')


# Names and lists.


@pytest.mark.parametrize(
  ('count', 'at_once', 'sizes'), [(4, 4, [4]), (4, 9, [4]), (5, 3, [3, 2]), (12, 5, [4, 4, 4])]
)
def test_parts_are_small_enough_and_of_like_sizes(count, at_once, sizes):
  parts = list(sweep_run.in_parts(list(range(count)), at_once))
  assert [len(part) for part in parts] == sizes
  assert [index for part in parts for index in part] == list(range(count))


@pytest.mark.parametrize(
  ('others', 'words'),
  [
    (['--seeds', '0'], '--seeds 0: give positive numbers'),
    (['--members-at-once', '0'], '--members-at-once 0: give positive numbers'),
    (['--svdd-weights'], '--svdd-weights: give numbers of at least 0, with spaces between'),
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


def test_data_without_test_images_are_refused(tmp_path, capsys):
  config = programs.config_for(programs.write(tmp_path / 'nuts', good=0, bad=0))
  assert main(command(config, tmp_path / 'sweep')) == 2
  assert 'has no test images' in capsys.readouterr().err
