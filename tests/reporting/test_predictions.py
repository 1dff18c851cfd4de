"""Results on disk: whole or going on, whatever happened to the one who wrote them."""

import csv
import hashlib
import json
import os
import pathlib
import shutil

import pytest

from patch_svdd_jax.data.file_search import Source
from patch_svdd_jax.detection.prediction import Prediction
from patch_svdd_jax.detection.regions import Region
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.reporting.prediction_lines import Failure
from patch_svdd_jax.reporting.prediction_overlays import PLACES, is_drawn
from patch_svdd_jax.reporting.predictions import Predictions
from patch_svdd_jax.system.digests import digest_bytes

MADE_WITH = {'model': 'a' * 32, 'rate': 0.1}
REGION = Region((1, 2, 3, 4), 9, 2.0)


class Run:
  """Images on disk and a run over them, which writes a line and pictures for each."""

  def __init__(self, root):
    self.images, self.folder = root / 'images', root / 'found'
    for name in ('a.png', 'b.jpg', 'c/d.png', 'e.png'):
      self.put(name)

  def put(self, name, content='image'):
    path = self.images / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'{content} of {name}')

  def sources(self):
    paths = sorted(path for path in self.images.rglob('*') if path.is_file())
    return [Source(path.relative_to(self.images).as_posix(), path) for path in paths]

  def open(self, pictures='alarms', restart=False, **made_with):
    made_with = MADE_WITH | made_with
    return Predictions(self.folder, made_with, self.sources(), pictures, restart=restart)

  def line(self, source):
    """Says of the content: a digest, and an alarm where it is a defect."""
    if 'damaged' in source.path.read_text():
      return Failure(source.name, 'damaged')
    alarm = 'defect' in source.path.read_text()
    digest = digest_bytes(source.path.read_bytes())
    score = 1.0 + len(source.path.read_text())
    return Prediction(source.name, score, 0.01, alarm, (6, 8), (REGION,) * alarm, (), digest)

  def go(self, stop=99, pictures='alarms', drawn=99, **options):
    """Scores what has no line; draws `drawn` pictures and writes `stop` lines at most."""
    with self.open(pictures, **options) as results:
      left = [each for each in self.sources() if each.name not in results.names]
      for number, source in enumerate(left):
        line = self.line(source)
        if number < drawn and not isinstance(line, Failure) and is_drawn(line.alarm, pictures):
          for place in PLACES:
            path = self.folder / place / results.paths[source.name]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f'{place} of {source.path.read_text()}')
        if number < stop:
          results.add([line])
      if stop >= len(left):
        (self.folder / 'report.html').write_text(str(list(results.read())))
        results.finish()

  def state(self):
    return {
      path.relative_to(self.folder).as_posix(): path.read_text()
      for path in self.folder.rglob('*')
      if path.is_file()
    } | {f'{path}/': '' for path in self.folder.rglob('*') if path.is_dir()}

  def afresh(self, **options):
    """What a run into an empty folder leaves."""
    shutil.rmtree(self.folder)
    self.go(**options)
    return self.state()


@pytest.fixture
def run(tmp_path):
  return Run(tmp_path)


def lines(path):
  return [json.loads(text) for text in path.read_text().splitlines()]


def test_results_get_their_names_at_the_end(run):
  run.put('b.jpg', 'defect')
  run.put('e.png', 'damaged')
  with run.open() as results:
    found = [run.line(each) for each in run.sources()]
    results.add(found[1:], {'b.jpg': {'noise': 1.5}})
    results.add(found[:1])
    assert list(results.read()) == found  # in the order of the images
    assert list(results.statistics()) == [{}, {'noise': 1.5}, {}, {}]
    assert [path.name for path in run.folder.iterdir()] == ['results.jsonl.partial']
    results.finish()
  assert sorted(path.name for path in run.folder.iterdir()) == ['results.csv', 'results.jsonl']
  written = lines(run.folder / 'results.jsonl')
  assert written[1] == {
    'image': 'b.jpg',
    'verdict': 'alarm',
    'score': found[1].score,
    'p_value': 0.01,
    'size': [8, 6],
    'regions': [{'box': [1, 2, 3, 4], 'area': 9, 'score': 2.0}],
    'warnings': [],
    'digest': hashlib.blake2b(b'defect of b.jpg').hexdigest()[:32],
  }
  assert written[3] == {'image': 'e.png', 'error': 'damaged'}
  with (run.folder / 'results.csv').open(newline='') as file:
    rows = list(csv.DictReader(file))
  assert [row['image'] for row in rows] == ['a.png', 'b.jpg', 'c/d.png', 'e.png']
  assert (rows[1]['regions'], rows[1]['area']) == ('1', '9')
  assert (rows[3]['regions'], rows[3]['area'], rows[3]['error']) == ('', '', 'damaged')


@pytest.mark.parametrize('torn', ['', '{"image": "b.pn', '{"image": "b.png", "score": 1}'])
def test_a_run_that_was_killed_goes_on(run, torn):
  run.go(stop=1)
  with (run.folder / 'results.jsonl.partial').open('a') as file:
    file.write(torn)  # no end of a line: it may be half of one
  with run.open() as results:
    assert [each.name for each in results.read()] == ['a.png']
  run.go()
  assert run.state() == run.afresh()


@pytest.mark.parametrize('torn', ['', '{"model": "a'])
def test_killed_before_the_first_line_was_whole(run, torn):
  run.folder.mkdir()
  (run.folder / 'results.jsonl.partial').write_text(torn)
  with run.open() as results:
    assert list(results.read()) == []


def test_results_of_another_model_are_not_mixed(run):
  run.go(stop=1)
  before = run.state()
  for other, text in (
    ({'model': 'b' * 32}, 'another model: '),
    ({'rate': 0.2}, r'another rate \(0.1, now 0.2\): '),
    ({'pictures': 'all'}, r'another choice of pictures \(alarms, now all\): '),
    ({'model': 'b', 'rate': 1}, r'another model, another rate \(0.1, now 1\): '),
    ({'new': 1}, 'another version: '),
  ):
    with pytest.raises(UserError, match=f'found holds unfinished results of {text}--restart begi'):
      run.open(**other)
  assert run.state() == before
  run.go(restart=True, rate=0.2)
  assert run.state() == run.afresh(rate=0.2)


def remove(run):
  (run.images / 'a.png').unlink()


def replace(run):
  run.put('a.png', 'image')


def replace_in_place(run):
  """With equal size and times."""
  path = run.images / 'a.png'
  before = path.stat()
  path.write_text('normal of a.png')
  os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
  assert path.stat().st_size == before.st_size


def another_folder(run):
  shutil.rmtree(run.images)
  for name in ('x.png', 'y.png'):
    run.put(name)


def swap(run):
  """Two files that have a line take each other's name."""
  a, b = run.images / 'a.png', run.images / 'b.jpg'
  content = a.read_text()
  a.write_text(b.read_text())
  b.write_text(content)


def add(run):
  for name in ('0.png', 'c/0.png', 'z.png'):
    run.put(name, 'defect')


def collide(run):
  """Images whose pictures would be those of others, if the case of letters did not count."""
  for name in ('A.png', 'C/d.png', 'b.jpg.png'):
    run.put(name, 'defect')


def change_the_rest(run):
  """Only files that have no line yet."""
  run.put('e.png', 'image')
  (run.images / 'c/d.png').unlink()


def repair(run):
  """What could not be read is tried again."""
  run.put('b.jpg', 'image')


def nothing(run):
  del run


OTHER = {
  remove: r'1 removed \(a.png\)',
  replace: r'1 replaced \(a.png\)',
  replace_in_place: r'1 replaced \(a.png\)',
  another_folder: r'1 removed \(a.png\)',
  swap: r'1 replaced \(a.png\)',
}
CHANGES = (*OTHER, add, collide, change_the_rest, repair, nothing)


def prepare(run):
  """Three of four images with pictures, one that is damaged."""
  run.put('a.png', 'defect')
  run.put('b.jpg', 'damaged')
  run.put('c/d.png', 'defect')
  run.put('e.png', 'defect')


@pytest.mark.parametrize('change', CHANGES)
@pytest.mark.parametrize('history', ['unfinished', 'drawn', 'finished', 'both', 'restarted'])
def test_the_end_is_that_of_a_run_into_an_empty_folder(run, change, history):
  """Whatever was there: or it is refused, and everything stays."""
  prepare(run)
  if history in ('finished', 'both'):
    run.go(pictures='all')
  if history != 'finished':
    run.go(stop=2, drawn=4 if history in ('drawn', 'both') else 2)
  change(run)
  before, restart = run.state(), history == 'restarted'
  if change in OTHER and history not in ('finished', 'restarted'):
    with pytest.raises(
      UserError, match=f'of other images, {OTHER[change]}: --restart begins'
    ) as it:
      run.go()
    assert '\n' not in str(it.value)
    assert run.state() == before
    restart = True
  run.go(restart=restart)
  assert run.state() == run.afresh()


@pytest.mark.parametrize('change', CHANGES)
def test_a_run_that_is_killed_at_each_of_its_steps(run, change, monkeypatch):
  """Over a finished run, then again and again: the end is that of an undisturbed one."""
  prepare(run)
  run.go(pictures='all')
  change(run)
  steps = 0
  real = {name: getattr(pathlib.Path, name) for name in ('replace', 'unlink', 'rmdir')}

  def kill_at(number):
    left = iter(range(number))

    def limited(name):
      def act(path, *arguments, **options):
        if path.is_relative_to(run.folder) and next(left, None) is None:
          raise KeyboardInterrupt
        return real[name](path, *arguments, **options)

      return act

    for name in real:
      monkeypatch.setattr(pathlib.Path, name, limited(name))

  finished = False
  while not finished:
    kill_at(steps)
    steps += 1
    try:
      run.go()
      finished = True
    except KeyboardInterrupt:
      old = {'report.html', 'results.csv', 'results.jsonl'} & run.state().keys()
      # Either nothing was begun yet, or the lines say that this is unfinished.
      assert len(old) == 3 or 'results.jsonl.partial' in run.state()
  monkeypatch.undo()
  assert steps > 10
  assert run.state() == run.afresh()


def test_pictures_that_are_gone_are_drawn_again(run):
  run.put('a.png', 'defect')
  run.go(stop=2)
  shutil.rmtree(run.folder / 'masks')
  run.go()
  assert run.state() == run.afresh()


@pytest.mark.parametrize(
  'name',
  ['masks/mine.png', 'overlays/c/mine.png', 'overlays/a.png.txt', 'results.jsonl', 'results.csv'],
)
@pytest.mark.parametrize('history', ['nothing', 'unfinished', 'finished'])
def test_files_of_others_are_neither_removed_nor_written_over(run, name, history):
  prepare(run)
  if history != 'nothing':
    run.go(stop=2 if history == 'unfinished' else 99)
  path = run.folder / name
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text('mine\n')
  before = run.state()
  if name == 'results.csv' and history != 'nothing':
    run.go()  # it has the name of ours where ours is
    return
  for restart in (False, True):
    with pytest.raises(UserError, match=f'{name} is not of a prediction there: move it, or give'):
      run.go(restart=restart)
    assert run.state() == before


def test_what_a_desktop_leaves_stays(run):
  prepare(run)
  run.go()
  (run.folder / 'masks' / '.DS_Store').write_text('')
  (run.folder / 'notes.txt').write_text('')
  run.go(pictures='none')
  kept = {'masks/.DS_Store', 'notes.txt', 'report.html', 'results.csv', 'results.jsonl'}
  assert {name for name in run.state() if not name.endswith('/')} == kept


def test_a_picture_that_was_half_written_is_removed(run):
  prepare(run)
  run.go(stop=2)
  (run.folder / 'overlays' / 'c').mkdir(exist_ok=True)
  (run.folder / 'overlays' / 'c' / 'd.png.tmp').write_text('half')
  change_the_rest(run)
  run.go()
  assert run.state() == run.afresh()


def test_pictures_of_hidden_images_are_known(run):
  """They can be named, though searches pass them over."""
  run.put('.hidden.png', 'defect')
  run.go()
  assert 'masks/.hidden.png' in run.state()
  (run.images / '.hidden.png').unlink()
  run.go()
  assert run.state() == run.afresh()


@pytest.mark.parametrize('name', ['', '..', '../a.png', '/a.png', 3, None, ['a.png']])
def test_lines_of_impossible_names(run, name):
  run.put('b.jpg', 'defect')
  run.go(stop=2)
  with (run.folder / 'results.jsonl.partial').open('a') as file:
    file.write(json.dumps({'image': name, 'error': 'damaged'}) + '\n')
  run.go()
  assert run.state() == run.afresh()


def test_a_folder_that_cannot_be_one(run):
  run.folder.parent.mkdir(exist_ok=True)
  run.folder.write_text('')
  with pytest.raises(UserError, match='cannot write'):
    run.open()
