"""Commands on sets of one's own in other forms than MVTec AD's folders, also in a bucket."""

import json
import pathlib
import uuid

import numpy as np
import pytest

from patch_svdd_jax import configuration, data
from patch_svdd_jax.commands import main
from patch_svdd_jax.data import mirror
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system.store import Store
from tests.faults import programs

LIST = """path,label,mask,split
train/good/0.png,good,,train
train/good/1.png,good,,train
train/good/2.png,good,,train
test/good/0.png,good,,test
test/hole/0.png,hole,ground_truth/hole/0_mask.png,test
"""


@pytest.fixture
def root(tmp_path):
  return programs.write(tmp_path / 'parts')


def write(root, text=LIST):
  path = root / 'parts.csv'
  path.write_text(text)
  return path


def test_a_list_from_training_to_prediction(root, tmp_path, capsys):
  path, run = write(root), tmp_path / 'run'
  assert main(['data', '--config', programs.config_for(path)]) == 0
  form = 'folder/parts.csv: read as a list of images (CSV with commas: path, label, mask, split)'
  assert form in capsys.readouterr().out.splitlines()
  assert main(programs.train(path, run)) == 0
  assert form in capsys.readouterr().out.splitlines()
  assert main(programs.evaluate(run, '--no-random-encoder')) == 0
  assert form in capsys.readouterr().out.splitlines()
  found = np.load(run / 'eval/maps.npz')
  assert [*found['names']] == ['test/good/0.png', 'test/hole/0.png']
  assert (run / 'eval/overlays/test/hole/0.png').is_file()
  assert json.loads((run / 'data_report.json').read_text())['form'] in form
  assert main(programs.predict(run, tmp_path / 'found', root / 'test')) == 0
  # The same images in the folders are the same data, and others are not.
  assert main(programs.train(root, run)) == 0
  write(root, LIST.replace('train/good/1.png,good,,train\n', ''))
  assert main(programs.train(path, run)) == 2
  assert '1 removed: train/good/1.png' in programs.error_line(capsys.readouterr().err)


def test_a_flat_folder_is_trained_on_and_has_nothing_to_evaluate(root, tmp_path, capsys):
  run = tmp_path / 'run'
  assert main(programs.train(root / 'train/good', run)) == 0
  out = capsys.readouterr().out
  assert 'folder/good: read as a folder of normal images: all are trained on' in out
  assert main(programs.evaluate(run)) == 2
  assert 'folder/good has no test images' in programs.error_line(capsys.readouterr().err)


def test_what_cannot_be_used_of_a_list_is_said_by_data_and_refused_by_train(root, tmp_path, capsys):
  path = write(root, LIST + 'none.png,good,,train\ntest/hole/0.png,hole,,train\n')
  assert main(['data', '--config', programs.config_for(path)]) == 1
  lines = capsys.readouterr().out.splitlines()
  assert (
    '  lines of the list that cannot be used: 3 (line 7 has the path none.png, where no file is | '
    'line 8 names test/hole/0.png again, as line 6 does; keep one | line 8 puts a defect (hole) '
    'into train, which holds normal images only; write test); nothing is read: mend or remove them'
  ) in lines
  assert main(programs.train(path, tmp_path / 'run')) == 2
  said = programs.error_line(capsys.readouterr().err)
  assert said.startswith(f'error: {path}: 3 lines of the list that cannot be used: line 7 has')


@pytest.fixture
def bucket(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  mirror._mirrored.cache_clear()  # noqa: SLF001
  return Store(f'memory://{uuid.uuid4().hex}')


def upload(bucket, root):
  for path in filter(pathlib.Path.is_file, root.rglob('*')):
    bucket.write(path.relative_to(root).as_posix(), path.read_bytes())


def load(root, url):
  config = configuration.read(programs.config_for(root)).data
  config.root = url
  return data.load(config)


def test_a_list_in_a_bucket_brings_the_images_that_it_names(root, bucket):
  write(root)
  upload(bucket, root)
  bucket.write('train/good/9.png', b'not named')
  url = f'{bucket.url}/parts.csv'
  loaded, expected = load(root, url), load(root, str(root))
  assert loaded.train.names == expected.train.names
  np.testing.assert_array_equal(loaded.test.images, expected.test.images)
  np.testing.assert_array_equal(loaded.test.masks, expected.test.masks)
  base = mirror.place(url).parent
  assert not (base / 'train/good/9.png').exists()
  assert f'{base / "train/good/0.png"}' == f'{bucket.url}/train/good/0.png'
  # What is named no longer is removed; nothing else is fetched again.
  bucket.write('parts.csv', LIST.replace('train/good/2.png,good,,train\n', '').encode())
  mirror._mirrored.cache_clear()  # noqa: SLF001
  asked, get = [], Store.get
  with pytest.MonkeyPatch.context() as patched:
    patched.setattr(Store, 'get', lambda *args: (asked.append(args[1]), get(*args)))
    assert len(load(root, url).train) == 2
  assert {*asked} == {'parts.csv'}
  assert not (base / 'train/good/2.png').exists()
  assert (base / 'train/good/1.png').exists()


@pytest.mark.parametrize('path', ['../1.png', '/data/1.png', 'gs://other/1.png', 'a/../../1.png'])
def test_a_list_in_a_bucket_names_nothing_outside(root, bucket, path):
  bucket.write('sets/parts.csv', f'{LIST}{path},good,,train\n'.encode())
  with pytest.raises(UserError) as caught:
    load(root, f'{bucket.url}/sets/parts.csv')
  assert str(caught.value) == (
    f'{bucket.url}/sets/parts.csv: line 7 names {path}, which is not below {bucket.url}/sets: in '
    'a bucket, a list stands above all that it names; give paths relative to it'
  )


def test_what_a_list_in_a_bucket_names_and_is_not_there(root, bucket):
  bucket.write('sets/parts.csv', LIST.encode())
  with pytest.raises(UserError, match=r'parts.csv: 6 lines .*: line 2 has the path train/good/0'):
    load(root, f'{bucket.url}/sets/parts.csv')


def test_separate_folders_and_flat_ones_in_a_bucket(root, bucket):
  for before, after in (('train/good/0', 'normal/0'), ('train/good/1', 'normal/1')):
    bucket.write(f'set/{after}.png', (root / f'{before}.png').read_bytes())
  bucket.write('set/bad/0.png', (root / 'test/hole/0.png').read_bytes())
  loaded = load(root, f'{bucket.url}/set')
  assert (loaded.train.names, loaded.test.names) == (
    ('normal/1.png',),
    ('normal/0.png', 'bad/0.png'),
  )
  assert load(root, f'{bucket.url}/set/normal').train.names == ('0.png', '1.png')
