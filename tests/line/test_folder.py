"""Files as they arrive: half-written, moved into place, changed, hidden, linked, gone."""

import threading
import time

import numpy as np
import pytest
from PIL import Image

from patch_svdd_jax.configs import default
from patch_svdd_jax.data import Split
from patch_svdd_jax.detection.prediction import Prediction
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.line import folder as module
from patch_svdd_jax.line.folder import Folder, Options
from patch_svdd_jax.reporting.prediction_lines import Failure

SETTLE, PATIENCE = 1.0, 10.0


class Clock:
  now = 100.0

  def __call__(self):
    return self.now


def write(path, level=0, size=(8, 9)):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(np.full((*size, 3), level, np.uint8)).save(path)
  return path


class Line:
  """Does what a line does, at a clock that stands still; notes the names of what has got a line."""

  def __init__(self, place, records=(), **options):
    self.clock = Clock()
    config = default.get_config().data
    config.image_size = (8, 8)
    self.feed = Folder(
      place, config, Options(settle=SETTLE, patience=PATIENCE, **options), clock=self.clock
    )
    self.lines, self.number = [], 0
    self.feed.resume(records)

  def after(self, seconds):
    """Lets time go by; returns the names of the lines that there are then, failures with a '!'."""
    self.clock.now += seconds
    new = []
    for item in self.feed.take(99):
      found = self.feed.accept(item, item.read())
      if found is not None:
        self.number += 1
        bad = isinstance(found, Split) and found.images.max() > 100
        line = found if isinstance(found, Failure) else Prediction(item.name, 1.0, alarm=bool(bad))
        self.feed.recorded(item, line, self.number)
        self.lines.append(line.to_json() | {'id': f's-{self.number}', 'digest': item.digest})
        new.append(item.name + '!' * isinstance(found, Failure))
    return new

  def hear(self, path, place):
    self.feed.notice(path.relative_to(place).as_posix(), path)


@pytest.fixture
def place(tmp_path):
  return tmp_path / 'in'


def test_what_is_there_is_taken_in_order_once_it_has_not_changed_for_a_moment(place):
  for name in (
    '10.png',
    '9.png',
    'sub/1.jpg',
    '.hidden.png',
    '.sub/2.png',
    'notes.txt',
    '3.png.tmp',
  ):
    write(place / name) if name.endswith(('png', 'jpg')) else (place / name).write_text('')
  line = Line(place)
  assert line.after(0) == []
  assert line.feed.waiting == 3
  assert line.after(SETTLE) == ['9.png', '10.png', 'sub/1.jpg']
  assert line.after(99) == []
  assert line.feed.waiting == 0
  assert line.feed.due() is None


def test_a_file_that_grows_is_waited_for(place):
  whole = write(place / 'a.bmp', size=(64, 64)).read_bytes()
  (place / 'a.bmp').write_bytes(whole[:100])
  line = Line(place)
  for part in (500, 5000):
    line.clock.now += SETTLE / 2
    (place / 'a.bmp').write_bytes(whole[:part])
    assert line.after(SETTLE / 2) == []
  # It stands still, but cannot be decoded yet.
  assert line.after(SETTLE) == []
  assert line.after(3) == []
  (place / 'a.bmp').write_bytes(whole)
  assert [line.after(0.5) for _ in range(8)].count(['a.bmp']) == 1
  assert line.after(PATIENCE) == []


def test_what_stays_undecodable_gets_a_line_that_says_so_until_it_changes(place):
  place.mkdir()
  bad = place / 'a.png'
  bad.write_bytes(b'\x89PNG\r\n\x1a\n')
  line = Line(place)
  waited = [line.after(0.5) for _ in range(30)]
  assert waited.count(['a.png!']) == 1
  assert waited.index(['a.png!']) == pytest.approx(PATIENCE / 0.5, abs=2)
  line.hear(bad, place)
  assert line.after(99) == []
  write(bad)
  line.hear(bad, place)
  assert line.after(SETTLE) == ['a.png']


def test_a_new_content_gets_a_line_and_a_new_time_does_not(place):
  path = write(place / 'a.png')
  line = Line(place)
  assert line.after(SETTLE) == ['a.png']
  path.touch()
  line.hear(path, place)
  assert line.after(SETTLE) == []
  write(path, 7)
  line.hear(path, place)
  assert line.after(SETTLE) == ['a.png']
  content = path.read_bytes()
  path.unlink()
  line.hear(path, place)
  path.write_bytes(content)  # as after a network was away
  line.hear(path, place)
  assert line.after(SETTLE) == []


def test_what_changes_or_goes_while_it_is_read(place):
  path, gone = write(place / 'a.png'), write(place / 'b.png')
  line = Line(place)
  line.clock.now += SETTLE
  first, second = line.feed.take(2)
  read = first.read()
  write(path, 9)
  line.hear(path, place)
  assert line.feed.accept(first, read) is not None  # what was read was whole
  line.feed.recorded(first, Prediction('a.png', 1.0), 1)
  assert line.after(SETTLE) == ['a.png']
  gone.unlink()
  assert line.feed.accept(second, second.read()) is None
  assert line.after(99) == []
  assert line.feed.waiting == 0


def test_a_restart_goes_on(place):
  for name in ('a', 'b', 'c'):
    write(place / f'{name}.png')
  line = Line(place)
  assert len(line.after(SETTLE)) == 3
  write(place / 'b.png', 5)
  write(place / 'd.png')
  (place / 'c.png').unlink()
  again = Line(place, line.lines)
  assert again.after(SETTLE) == ['b.png', 'd.png']
  write(place / 'c.png')
  again.hear(place / 'c.png', place)
  assert again.after(SETTLE) == []


def files_below(folder):
  return sorted(path.relative_to(folder).as_posix() for path in folder.rglob('*.png'))


def test_files_are_moved_and_another_of_their_name_is_another_image(place):
  options = {'good': place / 'good', 'bad': place / 'bad'}
  write(place / 'sub/a.png')
  write(place / 'b.png', 200)
  (place / 'c.png').write_bytes(b'?')
  line = Line(place, **options)
  assert line.after(SETTLE) == ['b.png', 'sub/a.png']
  assert line.after(PATIENCE) == ['c.png!']
  assert files_below(place) == ['bad/b.png', 'c.png', 'good/sub/a.png']
  line.hear(write(place / 'sub/a.png'), place)
  assert line.after(SETTLE) == ['sub/a.png']
  assert files_below(place / 'good') == ['sub/a.png', 'sub/a~4.png']
  assert Line(place, line.lines, **options).after(99) == []


def test_what_was_not_moved_before_a_crash_is_moved_at_the_next_start(place):
  write(place / 'a.png')
  write(place / 'b.png', 200)
  line = Line(place)
  line.after(SETTLE)
  write(place / 'b.png', 201)  # has no line yet
  again = Line(place, line.lines, good=place / 'good', bad=place / 'bad')
  assert files_below(place) == ['b.png', 'good/a.png']
  again.number = 2
  assert again.after(SETTLE) == ['b.png']
  assert files_below(place) == ['bad/b.png', 'good/a.png']


def test_a_folder_that_is_not_there(tmp_path):
  with pytest.raises(UserError, match='no such folder'):
    Line(tmp_path / 'none')


@pytest.fixture(params=['events', 'polling'])
def started(place, tmp_path, request, monkeypatch):
  """A feed whose threads look for files, and what they find."""
  monkeypatch.setattr(module, 'INSTEAD', (0.05, 0.0))
  place.mkdir()
  (tmp_path / 'elsewhere').mkdir()
  write(tmp_path / 'elsewhere' / 'first.png')
  (place / 'link').symlink_to(tmp_path / 'elsewhere')
  options = Options(poll=request.param == 'polling', without=(place / 'results',))
  config = default.get_config().data
  config.image_size = (8, 8)
  feed = Folder(place, config, options)
  heard = {}

  def notice(name, path):
    heard.setdefault(name, path)

  monkeypatch.setattr(feed, 'notice', notice)
  feed.start(lambda job: job())
  yield heard
  feed.stop()
  assert not [each for each in threading.enumerate() if each.name in ('search', 'listen')]


def test_files_are_found_wherever_they_come(started, place, tmp_path):
  deadline = time.monotonic() + 10

  def wait_for(*names):
    while not started.keys() >= set(names) and time.monotonic() < deadline:
      time.sleep(0.01)
    assert started.keys() >= set(names)

  wait_for('link/first.png')
  time.sleep(0.3)
  outside = write(tmp_path / 'moved.png')
  outside.rename(place / 'moved.png')
  write(tmp_path / 'elsewhere' / 'second.png')
  write(place / 'new' / 'deep' / 'third.png')
  write(place / 'results' / 'overlays' / 'x.png')
  write(place / '.hidden' / 'x.png')
  (tmp_path / 'folder').mkdir()
  write(tmp_path / 'folder' / 'fourth.png')
  (tmp_path / 'folder').rename(place / 'folder')
  wait_for('moved.png', 'link/second.png', 'new/deep/third.png', 'folder/fourth.png')
  assert not [name for name in started if 'x.png' in name]
  assert all(path.exists() for path in started.values())
