"""Files that were whole once: cut off, changed, emptied or removed by a disk or a hand."""

import json
import os
import pathlib
import shutil

import jax
import numpy as np
import pytest

from patch_svdd_jax import configuration
from patch_svdd_jax.commands import main
from patch_svdd_jax.data import file_search
from patch_svdd_jax.detection.prediction import Prediction
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.reporting import predictions
from patch_svdd_jax.system import digests
from patch_svdd_jax.training import monitoring, train_state
from patch_svdd_jax.training.checkpoints import Checkpoints
from tests.faults import programs
from tests.support.runs import assert_same_bits


def cut(path):
  os.truncate(path, path.stat().st_size // 2)


def flip(path):
  contents = bytearray(path.read_bytes())
  contents[len(contents) // 2] ^= 1
  path.write_bytes(contents)


def empty(path):
  os.truncate(path, 0)


FAULTS = (cut, flip, empty, pathlib.Path.unlink)


def files(folder):
  return sorted(path for path in folder.rglob('*') if path.is_file())


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  return programs.write(tmp_path_factory.mktemp('damage') / 'parts')


@pytest.fixture(scope='module')
def finished(root):
  """The workdir of a whole run of four steps, saved at 2 and 4."""
  workdir = root.parent / 'finished'
  assert main(programs.train(root, workdir)) == 0
  return workdir


@pytest.fixture
def workdir(finished, tmp_path):
  return shutil.copytree(finished, tmp_path / 'run')


def restored(root, workdir):
  config = configuration.read(programs.config_for(root))
  with Checkpoints(workdir) as checkpoints:
    return checkpoints.restore(train_state.init_state(config))


def test_every_kind_of_damage_to_every_file_is_seen(finished, tmp_path):
  for part in ('checkpoints/4', 'model/1'):
    whole = finished / part
    assert digests.damage(whole) is None
    for path in files(whole):
      name = path.relative_to(whole)
      if name.name == digests.FILE:
        continue
      for fault in FAULTS:
        place = shutil.copytree(whole, tmp_path / 'copy')
        fault(place / name)
        assert digests.damage(place).startswith(f'{name}'), (name, fault)
        shutil.rmtree(place)


@pytest.mark.parametrize('fault', [cut, flip, empty])
def test_damaged_digests_are_damage(workdir, fault):
  fault(workdir / 'checkpoints' / '4' / digests.FILE)
  assert digests.FILE in digests.damage(workdir / 'checkpoints' / '4') or fault is flip


def test_a_folder_of_before_there_were_digests_is_read(root, workdir):
  for path in workdir.rglob(digests.FILE):
    path.unlink()
  assert int(restored(root, workdir).step) == 4
  # And what orbax finds out by itself ends in one line.
  for fault in (cut, empty):
    fault(workdir / 'checkpoints' / '4' / 'encoder' / '_METADATA')
    with pytest.raises(UserError, match=r'checkpoints/4 cannot be read \('):
      restored(root, workdir)


def test_training_goes_on_from_the_newest_whole_checkpoint(root, finished, workdir, caplog):
  newest = max(files(workdir / 'checkpoints' / '4'), key=lambda path: path.stat().st_size)
  flip(newest)
  assert main(programs.train(root, workdir)) == 0
  [shown] = caplog.messages
  assert f'{workdir}/checkpoints/4 is damaged (' in shown
  assert 'has changed): going on from an older one' in shown
  assert programs.metrics(workdir) == programs.metrics(finished)
  assert_same_bits(
    jax.device_get(restored(root, workdir)), jax.device_get(restored(root, finished))
  )
  kept = [path.name for path in (workdir / 'checkpoints').glob('damaged_4_*')]
  assert len(kept) == 1
  assert digests.damage(workdir / 'checkpoints' / '4') is None


def test_without_a_whole_checkpoint_nothing_starts_over(root, workdir, capsys):
  before = programs.metrics(workdir)
  for step in ('2', '4'):
    cut(workdir / 'checkpoints' / step / 'trainer' / '_METADATA')
  assert main(programs.train(root, workdir)) == 2
  line = programs.error_line(capsys.readouterr().err)
  assert 'checkpoints/4 is damaged (trainer/_METADATA has changed) and no other is whole' in line
  assert sorted(path.name for path in (workdir / 'checkpoints').iterdir()) == ['2', '4']
  assert programs.metrics(workdir) == before


def test_a_damaged_detector_is_named_and_fitted_anew(root, workdir, tmp_path, capsys):
  flip(max(files(workdir / 'model'), key=lambda path: path.stat().st_size))
  predict = programs.predict(workdir, tmp_path / 'found', root)
  for arguments in (predict, programs.evaluate(workdir)):
    assert main(arguments) == 2
    line = programs.error_line(capsys.readouterr().err)
    assert f'{workdir}/model/1 is damaged (' in line
    assert 'remove' in line
  shutil.rmtree(workdir / 'model')
  assert main(['build-bank', '--workdir', str(workdir)]) == 0
  assert main(predict) == 0


@pytest.mark.parametrize('fault', [cut, empty])
def test_a_damaged_config_is_one_line(workdir, capsys, root, fault):
  fault(workdir / 'config.json')
  for arguments in (programs.evaluate(workdir), programs.train(root, workdir)):
    assert main(arguments) == 2
    assert 'config.json is no config of this version' in programs.error_line(
      capsys.readouterr().err
    )


def test_a_config_that_is_no_text_is_one_line(workdir, capsys):
  (workdir / 'config.json').write_bytes(b'\xff\xfe\0')
  assert main(programs.evaluate(workdir)) == 2
  assert 'config.json is no config' in programs.error_line(capsys.readouterr().err)


def test_garbled_metrics_stop_no_training(root, finished, workdir):
  path = workdir / 'metrics.jsonl'
  lines = path.read_bytes().splitlines(keepends=True)
  path.write_bytes(b'\0\0\xff\n' + lines[0] + b'[1]\n{"loss": 1}\n' + lines[1] + b'{"step": 4, ')
  assert [line['step'] for line in monitoring.read(workdir)] == [2, 4]
  assert main(programs.train(root, workdir)) == 0
  assert programs.metrics(workdir) == programs.metrics(finished)


def test_garbled_results_are_scored_again(tmp_path):
  sources = [file_search.Source(name, tmp_path / name) for name in 'abc']
  for source in sources:
    source.path.write_text(source.name)
  made_with, partial = {'model': 'm'}, tmp_path / 'found' / 'results.jsonl.partial'
  found = [
    Prediction(name, 1.0, 0.5, False, digest=digests.digest_bytes(name.encode())) for name in 'abc'
  ]

  def begin():
    return predictions.Predictions(tmp_path / 'found', made_with, sources, 'alarms')

  with begin() as results:
    results.add(found)
  first, begun, *lines = partial.read_bytes().splitlines(keepends=True)
  for garbled in (lines[1][:5], lines[1][:5] + b'\n', b'\0\xff\n', b'3\n', begun[:5] + b'\n'):
    partial.write_bytes(first + begun + lines[0] + garbled + lines[2])
    with begin() as results:
      assert list(results.read()) == found[:1]
  partial.write_bytes(b'\0\xff\n' + lines[0])
  with pytest.raises(UserError, match='unfinished results of another version: --restart begins'):
    begin()
  assert partial.read_bytes() == b'\0\xff\n' + lines[0]


@pytest.mark.parametrize('fault', FAULTS)
def test_a_damaged_prepared_file_is_named_or_made_anew(root, tmp_path, capsys, fault):
  place = tmp_path / 'prepared'
  data = [f'--config.data.prepared={place}', '--config.data.normal_images=-1']
  prepared = shutil.copytree(f'{root}.prepared', place)
  fault(next(prepared.rglob('*train.array_record*')))
  config = configuration.override(configuration.read(programs.config_for(root)), data[:1])
  from patch_svdd_jax import data as data_sets

  if fault is pathlib.Path.unlink:
    assert len(data_sets.load(config.data).train) == 3
    return
  with pytest.raises(UserError, match=r'prepared/.* is damaged \(.*remove that folder') as raised:
    data_sets.load(config.data)
  shutil.rmtree(str(raised.value).partition(' is damaged')[0])
  assert len(data_sets.load(config.data).train) == 3


@pytest.mark.parametrize('name', ['dataset_info.json', 'metadata.json', 'features.json'])
@pytest.mark.parametrize('fault', FAULTS)
def test_a_damaged_description_of_prepared_files_is_made_anew(root, tmp_path, fault, name):
  from patch_svdd_jax import data as data_sets

  prepared = shutil.copytree(f'{root}.prepared', tmp_path / 'prepared')
  fault(next(prepared.rglob(name)))
  data = [f'--config.data.prepared={prepared}']
  config = configuration.override(configuration.read(programs.config_for(root)), data)
  for _ in range(2):
    assert len(data_sets.load(config.data).train) == 3


def test_prepared_files_whose_report_lost_a_name_are_made_anew(root, tmp_path):
  from patch_svdd_jax import data as data_sets

  prepared = shutil.copytree(f'{root}.prepared', tmp_path / 'prepared')
  config = configuration.override(
    configuration.read(programs.config_for(root)), [f'--config.data.prepared={prepared}']
  )
  for name in (b'groups', b'sizes', b'of_files'):
    path = next(prepared.rglob('metadata.json'))
    before = path.read_bytes()
    assert name in before
    path.write_bytes(before.replace(name, name[::-1]))
    assert len(data_sets.load(config.data).train) == 3
    assert path.read_bytes() == before


@pytest.mark.parametrize('name', ['sweep', 'baselines', 'reproduce', 'train'])
def test_a_damaged_record_is_one_line(root, tmp_path, capsys, name):
  config = ['--config', programs.config_for(root)]
  arguments = {
    'reproduce': ['--data', str(root), '--train', 'mvtec'],
    'train': ['--config=laptop', '--config.data.category=all'],
  }.get(name, config)
  path = tmp_path / {'train': 'categories.json'}.get(name, f'{name}.json')
  path.write_text('[]')
  assert main([name, *arguments, '--workdir', str(tmp_path)]) == 2
  line = programs.error_line(capsys.readouterr().err)
  assert f'{path} is no file of {name}' in line
  assert path.read_text() == '[]'


def test_statistics_that_cannot_be_read_are_one_line(tmp_path, root):
  """Orbax reads those of all checkpoints before anything else."""
  state = train_state.init_state(configuration.read(programs.config_for(root)))
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(state._replace(step=np.int32(1)), {'loss': 1.0})
  for path in (tmp_path / 'checkpoints' / '1' / 'metrics').rglob('*'):
    if path.is_file() and path.read_bytes().startswith(b'{'):
      assert json.loads(path.read_bytes())
      cut(path)
  with pytest.raises(UserError, match=r'checkpoints/1 is damaged \(metrics/'):
    Checkpoints(tmp_path)
