"""Commands whose folders are in a store, here one of this process; `tests/faults` has real ones."""

import functools
import json
import pathlib
import uuid

import numpy as np
import pytest

from patch_svdd_jax import PatchSVDD
from patch_svdd_jax.commands import main
from patch_svdd_jax.data import mirror, prepared
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system import files
from patch_svdd_jax.system.store import Store
from tests.faults import programs


@pytest.fixture
def machine(tmp_path, monkeypatch):
  """Goes on as on another machine, which has fetched nothing yet, each time it is called."""

  def change():
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / uuid.uuid4().hex))
    mirror._mirrored.cache_clear()  # noqa: SLF001

  change()
  return change


@pytest.fixture
def bucket(machine):
  return Store(f'memory://{uuid.uuid4().hex}')


def upload(bucket, folder):
  for path in filter(pathlib.Path.is_file, folder.rglob('*')):
    bucket.write(path.relative_to(folder.parent).as_posix(), path.read_bytes())


def figures(contents):
  return {key: each for key, each in json.loads(contents).items() if key not in ('timing', 'speed')}


def test_all_in_a_bucket_is_as_all_on_a_disk(bucket, machine, tmp_path, capsys, monkeypatch):
  root = programs.write(tmp_path / 'parts')
  here, there = tmp_path / 'run', f'{bucket.url}/runs/x'
  upload(bucket, root)
  bucket.write('parts.py', (programs.CONFIG).encode())
  config = f'{bucket.url}/parts.py:{bucket.url}/parts'
  assert main(programs.train(root, here)) == 0
  assert main(['train', '--config', config, '--workdir', there]) == 0
  assert f'{there}: 4 steps; eval --workdir {there} measures it' in capsys.readouterr().out
  assert f'{bucket.url}/parts' in json.loads(bucket.read('runs/x/config.json'))['data']['root']

  machine()
  # What was prepared by the machine before is fetched.
  with monkeypatch.context() as patched:
    patched.delattr(prepared, '_write')
    for workdir in (here, there):
      assert main(programs.evaluate(workdir, '--no-random-encoder')) == 0
  assert f'written: {there}/eval: report.html' in capsys.readouterr().out
  assert figures(bucket.read('runs/x/eval/metrics.json')) == figures(
    (here / 'eval' / 'metrics.json').read_bytes()
  )

  assert main(programs.predict(here, tmp_path / 'found', root / 'test')) == 0
  url = bucket.url
  assert main(programs.predict(there, f'{url}/found', f'{url}/parts/test')) == 0
  assert bucket.read('found/results.csv') == (tmp_path / 'found' / 'results.csv').read_bytes()
  assert main(['export', '--model', there, '--output', f'{bucket.url}/x.stablehlo']) == 0
  assert main(['curves', there, '--json', f'{bucket.url}/curves.json']) == 0
  asked, get = [], Store.get
  with monkeypatch.context() as patched:
    patched.setattr(Store, 'get', lambda *args: (asked.append(args[1]), get(*args)))
    assert main(['compare', str(here), there, '--output', f'{bucket.url}/compared']) == 0
  assert 'x/eval/metrics.json' in asked
  assert not [name for name in asked if name.startswith(('x/checkpoints/', 'x/model/'))]
  assert {'x.stablehlo', 'curves.json', 'compared/compare.html'} <= bucket.list().keys()
  assert PatchSVDD.load(there).detector.origin == PatchSVDD.load(here).detector.origin._replace(
    config=PatchSVDD.load(there).config
  )
  # Nothing of it is left here, nor of the leases there.
  assert not list((files.cache_folder() / 'copies').iterdir())
  assert not [name for name in bucket.list() if '.lease' in name]

  assert main(['train', '--config', config, '--workdir', there, '--restart']) == 0
  assert main([*programs.train(root, there), '--config.encoder.depth=3']) == 2
  assert 'was started with another config' in capsys.readouterr().err


def test_a_mirror_fetches_what_is_new_and_removes_what_is_gone(bucket, machine, tmp_path):
  root = programs.write(tmp_path / 'parts')
  upload(bucket, root)
  url = f'{bucket.url}/parts'
  place = mirror.place(url)
  assert {path.relative_to(place) for path in place.rglob('*.png')} == {
    path.relative_to(root) for path in root.rglob('*.png')
  }
  assert f'{place}' == url
  old, new = 'parts/train/good/0.png', 'parts/test/good/0.png'
  bucket.remove(old)
  bucket.write(new, b'new')
  assert mirror.place(url) == place
  assert (place.parent / old).exists()  # a process goes on with what it began with
  mirror._mirrored.cache_clear()  # noqa: SLF001
  asked, get = [], Store.get
  with pytest.MonkeyPatch.context() as patched:
    patched.setattr(Store, 'get', lambda *args: (asked.append(args[1]), get(*args)))
    mirror.place(url)
  assert asked == [new]
  assert not (place.parent / old).exists()
  assert mirror.place(url, without=['test']) == place


def test_of_a_mirror_only_the_folders_that_are_needed_are_fetched(bucket, tmp_path):
  for name in ('screw/train/good/0.png', 'nut/train/good/0.png', 'readme.txt'):
    bucket.write(f'data/{name}', b'1')
  place = mirror.place(f'{bucket.url}/data', without=['nut'])
  assert sorted(path.name for path in place.iterdir()) == ['readme.txt', 'screw']
  with pytest.raises(UserError, match=r'is not there, or empty$'):
    mirror.place(f'{bucket.url}/nothing')


def test_one_who_may_only_read_prepared_data_works_all_the_same(
  bucket, tmp_path, monkeypatch, caplog
):
  root = programs.write(tmp_path / 'parts')

  def refuse(self, name, contents):
    raise UserError(f'cannot write {self.url}/{name}: Forbidden')

  monkeypatch.setattr(Store, 'write', refuse)
  shared = f'--config.data.prepared={bucket.url}/prepared'
  assert main(programs.train(root, tmp_path / 'run', shared)) == 0
  assert 'what was prepared is not shared: cannot write' in caplog.text


def test_the_interface_in_python_keeps_runs_in_buckets(bucket):
  images = np.stack([programs.noise(0, index) for index in range(3)])
  config = {}
  exec(programs.CONFIG, config)
  fit = functools.partial(PatchSVDD.fit, images, config['get_config'](''))
  workdir = f'{bucket.url}/run'
  first = fit(workdir=workdir)
  assert fit(workdir=workdir).detector.origin.images == first.detector.origin.images
  first.save(f'{bucket.url}/copy')
  scores = PatchSVDD.load(f'{bucket.url}/copy').predict(images).scores
  np.testing.assert_array_equal(scores, first.predict(images).scores)
