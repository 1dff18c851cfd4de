"""Data sets of one image, without defects, without contrast; links in circles; clocks that jump."""

import datetime
import itertools
import json
import os
import time

import numpy as np
import pytest
from PIL import Image

from patch_svdd_jax import configuration, data
from patch_svdd_jax.commands import main
from patch_svdd_jax.data import file_search, image_stream, layout
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system import digest_cache
from tests.faults import programs


def plain(level):
  return np.full((*programs.SIZE, 3), level, np.uint8)


def write(root, train, good=(), bad=()):
  for place, pictures in (('train/good', train), ('test/good', good), ('test/hole', bad)):
    for index, pixels in enumerate(pictures):
      programs.save(root / place / f'{index}.png', pixels)
  if bad:
    mask = np.zeros(programs.SIZE, np.uint8)
    mask[10:20, 10:20] = 255
    programs.save(root / 'ground_truth' / 'hole' / '0_mask.png', mask)
  return root


def go(tmp_path, root, *keys):
  """Trains and evaluates; all scores are finite."""
  assert main(programs.train(root, tmp_path / 'run', *keys)) == 0
  assert main(programs.evaluate(tmp_path / 'run')) == 0
  with np.load(tmp_path / 'run' / 'eval' / 'maps.npz') as arrays:
    for name in arrays.files:
      if arrays[name].dtype.kind == 'f':
        assert np.isfinite(arrays[name]).all(), name
  return json.loads((tmp_path / 'run' / 'eval' / 'metrics.json').read_text())


def go_on(tmp_path, root):
  """Predicts with what was trained."""
  assert main(programs.predict(tmp_path / 'run', tmp_path / 'found', root)) == 0
  lines = (tmp_path / 'found' / 'results.jsonl').read_text()
  assert 'NaN' not in lines
  assert 'Infinity' not in lines


def test_one_image_and_no_defects(tmp_path, capsys):
  root = write(tmp_path / 'parts', [programs.noise(0)], [programs.noise(1)])
  figures = go(tmp_path, root)
  assert set(figures['maps']['k8'].values()) == {None}
  shown = capsys.readouterr()
  assert '| k8 ' in shown.out
  assert 'nan' not in shown.out
  # One image cannot be left out of the bank and be scored with it.
  assert main(programs.predict(tmp_path / 'run', tmp_path / 'found', root)) == 2
  assert 'not calibrated' in programs.error_line(capsys.readouterr().err)


def test_no_test_images(tmp_path, capsys):
  root = programs.write(tmp_path / 'parts', good=0, bad=0)
  configuration.save(configuration.read(programs.config_for(root)), tmp_path / 'run')
  assert main(programs.evaluate(tmp_path / 'run')) == 2
  assert 'has no test images: put some into' in programs.error_line(capsys.readouterr().err)


LIGHTS = ['--config.data.light=kept', '--config.data.light=standardised']
MEANS = ['--config.train.mean=image', '--config.train.mean=channel']


def constant(tmp_path, level, light, mean):
  root = write(tmp_path / 'parts', [plain(level)] * 3, [plain(level)], [plain(level)] * 2)
  figures = go(tmp_path, root, light, mean)
  assert figures['maps']['k8']['image_auroc'] == 0.5
  assert figures['maps']['k8']['pixel_auroc'] == 0.5
  go_on(tmp_path, root)


@pytest.mark.slow
def test_black_images(tmp_path):
  constant(tmp_path, 0, LIGHTS[1], MEANS[0])


@pytest.mark.slow
@pytest.mark.parametrize(
  ('level', 'light', 'mean'), [*itertools.product([0, 128, 255], LIGHTS, MEANS)][1:]
)
def test_constant_images(tmp_path, level, light, mean):
  constant(tmp_path, level, light, mean)


@pytest.mark.slow
def test_one_defect_and_nothing_else(tmp_path):
  root = write(tmp_path / 'parts', [programs.noise(0), programs.noise(1)], [], [programs.noise(2)])
  figures = go(tmp_path, root)
  assert figures['maps']['k8']['image_auroc'] is None
  assert 0 <= figures['maps']['k8']['pixel_auroc'] <= 1
  go_on(tmp_path, root)


# Links.


def test_circles_and_dangling_links_are_passed_over_or_named(tmp_path):
  root = programs.write(tmp_path / 'parts')
  (root / 'test' / 'hole' / 'circle').symlink_to(root)
  (root / 'train' / 'circle').symlink_to(root / 'train')
  (root / 'self.png').symlink_to('self.png')
  (root / 'test' / 'good' / 'self.png').symlink_to('self.png')
  (root / 'test' / 'good' / 'gone.png').symlink_to('nowhere.png')
  found = layout.scan(root)
  assert [item.name for item in found.test] == ['test/good/0.png', 'test/hole/0.png']
  names = {case.name for each in found.findings for case in each.cases}
  assert {'test/hole/circle', 'train/circle', 'self.png'} <= names
  assert 'links that lead nowhere and other non-files, left out: 3 (' in str(
    [each.text() for each in found.findings]
  )
  (root / 'round').symlink_to('round')
  config = configuration.read(programs.config_for(root)).data
  assert len(data.load(config).test) == 2
  with pytest.raises(UserError, match='round: no such file or folder'):
    file_search.find([root / 'round'])
  # One by one a file that is no more, or never was, is listed with what is wrong.
  sources = file_search.find([root]).sources
  failed = [
    source.name
    for batch in image_stream.batches(sources, 4, config)
    for source, _ in batch.failures
  ]
  assert failed == ['self.png', 'test/good/gone.png', 'test/good/self.png']
  config.root = str(root / 'round')
  with pytest.raises(UserError, match='round'):
    data.load(config)


# Clocks.


def make_clocks_jump(monkeypatch):
  real, jumps = time.time, itertools.cycle([0, -1e9, 3600, 5e8, -86400])
  monkeypatch.setattr(time, 'time', lambda: real() + next(jumps))
  monkeypatch.setattr(time, 'time_ns', lambda: int(time.time() * 1e9))

  class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
      return cls.fromtimestamp(time.time(), tz)

  monkeypatch.setattr(datetime, 'datetime', Clock)


@pytest.mark.slow
def test_a_clock_that_jumps_changes_nothing(tmp_path, monkeypatch):
  root = programs.write(tmp_path / 'parts')
  workdirs = [tmp_path / 'steady', tmp_path / 'jumping']
  for workdir in workdirs:
    data_key = f'--config.data.prepared={workdir}.prepared'
    if workdir.name == 'jumping':
      make_clocks_jump(monkeypatch)
      # It runs in two parts, the second of which goes on from the first.
      assert main(programs.train(root, workdir, data_key, '--config.train.steps=2')) == 0
    assert main(programs.train(root, workdir, data_key)) == 0
    found = workdir.with_suffix('.found')
    assert main(programs.predict(workdir, found, root)) == 0
  one, other = map(programs.metrics, workdirs)
  assert one == other
  one, other = ((each.with_suffix('.found') / 'results.jsonl').read_text() for each in workdirs)
  assert one == other
  rates = [
    line['steps_per_s']
    for line in map(json.loads, (workdirs[1] / 'metrics.jsonl').read_text().splitlines())
  ]
  assert all(0 < rate < 1e6 for rate in rates)


# Many files.


@pytest.mark.slow
def test_a_hundred_thousand_files(tmp_path, monkeypatch):
  """Found, passed over where they are done, and scored where not."""
  from patch_svdd_jax.commands import predict

  count, left = 100_000, 10
  images = tmp_path / 'images'
  images.mkdir()
  Image.fromarray(programs.noise(0)).save(images / '0.png')
  for index in range(1, count):
    # Links to one file are as many files; a file system allows some tens of thousands of each.
    target = images / f'{index - index % 20_000}.png'
    if index % 20_000:
      os.link(target, images / f'{index}.png')
    else:
      Image.fromarray(programs.noise(index)).save(target)
  sources = file_search.find([images]).sources
  assert [source.name for source in sources] == [f'{index}.png' for index in range(count)]

  root = programs.write(tmp_path / 'parts')
  assert main(programs.train(root, tmp_path / 'run')) == 0
  output = tmp_path / 'found'
  one = programs.predict(tmp_path / 'run', tmp_path / 'one', images / '0.png')
  assert main(one) == 0
  record = json.loads((tmp_path / 'one' / 'results.jsonl').read_text())
  taken = []
  real = predict.inspect

  def stop_or_note(detector, split, limit, tally):
    if not output.joinpath('go').exists():
      raise KeyboardInterrupt
    taken.extend(split.names)
    return real(detector, split, limit, tally)

  monkeypatch.setattr(predict, 'inspect', stop_or_note)
  arguments = programs.predict(tmp_path / 'run', output, images)
  assert main(arguments) == 130
  with (output / 'results.jsonl.partial').open('a') as file:
    contents = digest_cache.digest_files([source.path for source in sources])
    for index in range(count - left):
      line = record | {'image': f'{index}.png', 'digest': contents[index]}
      file.write(json.dumps(line) + '\n')
  (output / 'go').touch()
  assert main(arguments) == 0
  assert taken == [f'{index}.png' for index in range(count - left, count)]
  assert (output / 'results.jsonl').read_text().count('\n') == count

  data_root = tmp_path / 'many'
  (data_root / 'train').mkdir(parents=True)
  (data_root / 'train' / 'good').symlink_to(images)
  found = layout.scan(data_root)
  layout.fingerprint(found)
  assert len(found.train) == count
