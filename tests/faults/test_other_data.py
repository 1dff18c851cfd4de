"""A run that is resumed on other data than it began with is refused, or begins anew if asked."""

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from patch_svdd_jax import PatchSVDD, configuration
from patch_svdd_jax.commands import main
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.experiments import data_record
from tests.faults import programs
from tests.support import categories
from tests.support.runs import tiny_config

GOOD = 'train/good'


def replace_in_place(file):
  """Other pixels in a file of equal size, times and inode."""
  times, pixels = file.stat(), np.array(Image.open(file))
  Image.fromarray(255 - pixels).save(file)
  assert file.stat().st_size == times.st_size
  os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def swap(one, other):
  contents = one.read_bytes(), other.read_bytes()
  one.write_bytes(contents[1])
  other.write_bytes(contents[0])


def replace_folder(folder):
  """Another folder of equal names, put in its place."""
  other = programs.write(folder.with_name('other'), train=5, good=2, bad=2)
  for index in range(5):
    programs.save(other / GOOD / f'{index}.png', programs.noise(7, index))
  (other / GOOD / '4.png').rename(other / GOOD / '4.bmp')
  shutil.rmtree(folder)
  other.rename(folder)


def take_defects(folder):
  """Half of the normal images are gone, and defective ones stand among them."""
  for index in (0, 1):
    (folder / GOOD / f'{index}.png').unlink()
    shutil.copy(folder / f'test/hole/{index}.png', folder / GOOD / f'bad_{index}.png')


# Changes of a folder, and what is said of each.
CHANGES = {
  'added': (
    lambda folder: programs.save(folder / GOOD / '9.png', programs.noise(9)),
    '1 added: train/good/9.png',
  ),
  'removed': (lambda folder: (folder / GOOD / '1.png').unlink(), '1 removed: train/good/1.png'),
  'replaced': (
    lambda folder: programs.save(folder / GOOD / '1.png', programs.noise(9)),
    '1 replaced: train/good/1.png',
  ),
  'replaced in place': (
    lambda folder: replace_in_place(folder / GOOD / '4.bmp'),
    '1 replaced: train/good/4.bmp',
  ),
  'renamed': (
    lambda folder: (folder / GOOD / '1.png').rename(folder / GOOD / '7.png'),
    '1 added: train/good/7.png; 1 removed: train/good/1.png',
  ),
  'swapped': (
    lambda folder: swap(folder / GOOD / '1.png', folder / GOOD / '2.png'),
    '2 replaced: train/good/1.png, ...',
  ),
  'of another class': (
    take_defects,
    '2 added: train/good/bad_0.png, ...; 2 removed: train/good/0.png, ...',
  ),
  'another folder': (replace_folder, '5 replaced: train/good/0.png, ...'),
}


def write(folder):
  programs.write(folder, train=5, good=2, bad=2)
  # Of a bitmap, every image of its shape has the same size.
  Image.open(folder / GOOD / '4.png').save(folder / GOOD / '4.bmp')
  (folder / GOOD / '4.png').unlink()
  return folder


def contents(folder):
  return {
    path.relative_to(folder).as_posix(): path.read_bytes()
    for path in sorted(folder.rglob('*'))
    if path.is_file()
  }


def refusal(capsys, workdir, arguments):
  """The one line by which a command is refused, which leaves the workdir as it was."""
  before = contents(workdir)
  capsys.readouterr()
  assert main(arguments) == 2
  said = capsys.readouterr().err.splitlines()
  assert [line for line in said if line.startswith('error: ')] == said[-1:]
  assert contents(workdir) == before
  return said[-1]


@pytest.fixture(scope='module')
def begun(tmp_path_factory):
  """A folder of images, its config, and a run of them that has two of its four steps."""
  place = tmp_path_factory.mktemp('begun')
  config = programs.config_for(write(place / 'parts'))
  assert main(train(config, place / 'run', '--config.train.steps=2')) == 0
  return place


@pytest.fixture
def copied(begun, tmp_path):
  """A copy of all that, at another place."""
  place = shutil.copytree(begun, tmp_path / 'copy')
  return place, programs.config_for(place / 'parts')


def train(config, workdir, *others):
  return ['train', '--config', config, '--workdir', str(workdir), *others]


@pytest.mark.parametrize('change', CHANGES)
def test_train_goes_on_with_no_other_images(copied, capsys, change):
  place, config = copied
  make, words = CHANGES[change]
  make(place / 'parts')
  line = refusal(capsys, place / 'run', train(config, place / 'run'))
  assert f'run was begun with other data ({words}): name another folder, or begin anew' in line


def test_train_goes_on_with_the_same_images_elsewhere(copied, capsys):
  """Prepared anew, and stored with other test images."""
  place, _ = copied
  moved = shutil.move(place / 'parts', place / 'moved')
  shutil.rmtree(moved / 'test/good')
  assert main(train(programs.config_for(moved), place / 'run')) == 0
  assert programs.metrics(place / 'run')[-1]['step'] == 4
  assert configuration.load(place / 'run').data.root == str(moved)


def test_a_link_that_leads_to_other_images_is_no_way_in(copied, capsys):
  place, _ = copied
  link = place / 'link'
  link.symlink_to(place / 'parts')
  config = programs.config_for(link)
  assert main(train(config, place / 'run', '--config.train.steps=3')) == 0
  other = shutil.copytree(place / 'parts', place / 'others')
  programs.save(other / GOOD / '0.png', programs.noise(9))
  link.unlink()
  link.symlink_to(other)
  assert '1 replaced' in refusal(capsys, place / 'run', train(config, place / 'run'))


def test_restart_equals_a_run_in_an_empty_folder(copied):
  place, config = copied
  (place / 'run/notes.txt').write_text("somebody's own")
  take_defects(place / 'parts')
  for workdir, others in ((place / 'run', ['--restart']), (place / 'fresh', [])):
    assert main(train(config, workdir, *others)) == 0
  one, other = (programs.metrics(workdir) for workdir in (place / 'run', place / 'fresh'))
  assert [line['loss'] for line in one] == [line['loss'] for line in other]
  assert data_record.read(place / 'run') == data_record.read(place / 'fresh')
  assert (place / 'run/notes.txt').exists()
  # And goes on, once it is not asked to begin anew.
  assert main(train(config, place / 'run', '--config.train.steps=6')) == 0
  assert programs.metrics(place / 'run')[-1]['step'] == 6


def test_a_restart_allows_another_config(copied, capsys):
  place, config = copied
  assert 'another config' in refusal(
    capsys, place / 'run', train(config, place / 'run', '--config.seed=5')
  )
  assert main(train(config, place / 'run', '--config.seed=5', '--restart')) == 0
  assert configuration.load(place / 'run').seed == 5


def test_a_run_of_before_there_was_a_record_goes_on_and_keeps_one(copied):
  place, config = copied
  (place / 'run/data.json').unlink()
  assert main(train(config, place / 'run')) == 0
  assert next(iter(data_record.read(place / 'run')[data_record.RUN]['train'])) == f'{GOOD}/0.png'


@pytest.mark.parametrize('text', ['', '{', '[]', '{"run": {"train": 3}}', '{"run": []}', '3'])
def test_a_damaged_record_is_one_line(copied, capsys, text):
  place, config = copied
  (place / 'run/data.json').write_text(text)
  line = refusal(capsys, place / 'run', train(config, place / 'run'))
  assert 'data.json is damaged: put a copy in its place, or begin anew (--restart)' in line


@pytest.mark.parametrize(
  'change', [pytest.param('added', marks=pytest.mark.slow), 'replaced in place']
)
def test_eval_and_light_measure_a_run_on_no_other_images(copied, capsys, change):
  place, _ = copied
  arguments = ['--workdir', str(place / 'run')]
  root = f'--config.data.root={place / "parts"}'
  # The config leads to the folder that was copied, until another is asked for.
  assert main(['eval', *arguments, '--no-random-encoder', root]) == 0
  make, words = CHANGES[change]
  make(place / 'parts')
  config = configuration.load(place / 'run')
  config.data.root = str(place / 'parts')
  configuration.save(config, place / 'run')
  for command in ('eval', 'light'):
    line = refusal(capsys, place / 'run', [command, *arguments])
    assert f'has learned from other images than its data set has now ({words})' in line
  # Asked for by name, they may be others, and that is said.
  assert main(['eval', *arguments, '--no-random-encoder', root]) == 0
  said = capsys.readouterr().err
  assert f'the memory bank is of other images than the encoder has learned from ({words})' in said
  assert main(['build-bank', *arguments]) == 0
  assert f'the encoder has learned from other images than these: {words}' in capsys.readouterr().out
  assert main(['eval', *arguments, '--no-random-encoder']) == 0


def test_fit_goes_on_with_no_other_arrays(tmp_path):
  config = tiny_config(steps=2, every=2)
  images = [programs.noise(index) for index in range(4)]
  first = PatchSVDD.fit(images, config, workdir=tmp_path)
  again = PatchSVDD.fit(images, config, workdir=tmp_path)
  assert again.detector.origin.images == first.detector.origin.images
  changes = {
    'image 3': [*images[:3], images[3] + 1],
    '1 added': [*images, images[0]],
    '1 removed': images[:3],
    '4 replaced': images[::-1],
  }
  for words, others in changes.items():
    with pytest.raises(UserError, match=f'begun with other data.*{words}.*restart=True'):
      PatchSVDD.fit(others, config, workdir=tmp_path)
  other = PatchSVDD.fit(images[::-1], config, workdir=tmp_path, restart=True)
  assert other.detector.origin.images != first.detector.origin.images


def sweep(config, workdir, seeds):
  return ['sweep', '--config', config, '--workdir', str(workdir), '--seeds', str(seeds)]


def baselines(config, workdir, *systems):
  return [
    *('baselines', '--config', config, '--workdir', str(workdir)),
    *('--config.baseline.stride=8', '--systems', *systems),
  ]


# Also what is measured, not learned from, makes other figures.
MEASURED = {
  'image': (
    lambda folder: programs.save(folder / 'test/hole/0.png', programs.noise(9)),
    '1 replaced: test/hole/0.png',
  ),
  'mask': (
    lambda folder: programs.save(
      folder / 'ground_truth/hole/0_mask.png', np.full(programs.SIZE, 255, np.uint8)
    ),
    '1 replaced: test/hole/0.png',
  ),
  'label': (
    lambda folder: (folder / 'test/good/0.png').rename(folder / 'test/hole/good.png'),
    '1 added: test/hole/good.png; 1 removed: test/good/0.png',
  ),
}


@pytest.mark.parametrize('name', ['sweep', pytest.param('baselines', marks=pytest.mark.slow)])
def test_rows_of_other_data_are_not_added_to_a_table(tmp_path, capsys, name):
  config, workdir = programs.config_for(write(tmp_path / 'parts')), tmp_path / name
  first, longer = {
    'sweep': (sweep(config, workdir, 1), sweep(config, workdir, 2)),
    'baselines': (
      baselines(config, workdir, 'raw_patch'),
      baselines(config, workdir, 'raw_patch', 'thumbnail'),
    ),
  }[name]
  assert main(first) == 0
  kept = shutil.copytree(tmp_path / 'parts', tmp_path / 'kept')
  for make, words in (*MEASURED.values(), CHANGES['added'], CHANGES['replaced in place']):
    shutil.rmtree(tmp_path / 'parts')
    shutil.copytree(kept, tmp_path / 'parts')
    make(tmp_path / 'parts')
    for arguments in (first, longer):
      line = refusal(capsys, workdir, arguments)
      assert f'{name} was begun with other data ({words})' in line
  assert main([*longer, '--restart']) == 0
  assert main(longer) == 0
  record = json.loads((workdir / f'{name}.json').read_text())
  fresh = [str(tmp_path / 'fresh') if each == str(workdir) else each for each in longer]
  assert main(fresh) == 0
  expected = json.loads((tmp_path / f'fresh/{name}.json').read_text())
  assert maps_in(record) == maps_in(expected) != []


def maps_in(contents):
  """All metrics of maps in a record, in their order."""
  if not isinstance(contents, dict):
    return []
  own = [contents['maps']] if 'maps' in contents else []
  return own + [each for value in contents.values() for each in maps_in(value)]


@pytest.mark.slow
@pytest.mark.parametrize('name', ['train', 'reproduce'])
def test_categories_of_other_data_are_not_added_to_a_table(tmp_path, capsys, name):
  categories.write(tmp_path / 'mvtec/screw')
  (tmp_path / 'tiny.py').write_text(categories.CONFIG)
  tiny, root, workdir = tmp_path / 'tiny.py', tmp_path / 'mvtec', tmp_path / 'all'
  arguments = [f'--workdir={workdir}', f'--config.data.prepared={tmp_path / "prepared"}']
  arguments = {
    'train': ['train', f'--config={tiny}:all', f'--config.data.root={root}', *arguments],
    'reproduce': ['reproduce', f'--train={tiny}', f'--data={root}', *arguments],
  }[name]
  assert main(arguments) == 0
  test = root / 'screw/test/good/000.png'
  categories.save(test, categories.pixels(99))
  line = refusal(capsys, workdir, arguments)
  assert 'was begun with other data (1 replaced: test/good/000.png)' in line
  if name == 'train':
    # Measured anew, all rows are of the data of today.
    assert main(['eval', f'--workdir={workdir}', '--no-random-encoder']) == 0
    assert main(arguments) == 0
  assert main([*arguments, '--restart']) == 0
  assert main(arguments) == 0


def test_a_relative_root_is_kept_whole(tmp_path, monkeypatch, capsys):
  config = programs.config_for(write(tmp_path / 'parts'))
  other = tmp_path / 'elsewhere'
  programs.write(other / 'parts', train=1, good=1, bad=1)
  monkeypatch.chdir(tmp_path)
  relative = ['--config.data.root=parts', '--config.data.prepared=prepared']
  assert main(train(config, tmp_path / 'run', '--config.train.steps=2', *relative)) == 0
  assert configuration.load(tmp_path / 'run').data.root == str(tmp_path / 'parts')
  monkeypatch.chdir(other)
  assert main(['eval', '--workdir', str(tmp_path / 'run'), '--no-random-encoder']) == 0
  assert '4 test images' in capsys.readouterr().out
