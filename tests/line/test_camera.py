"""Frames of a camera: the newest is taken, the others are counted; it may go away."""

import datetime
import threading
import time

import numpy as np
import pytest

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.line import camera as module
from patch_svdd_jax.line.camera import Camera, name_of, shown
from patch_svdd_jax.reporting.prediction_lines import Failure


class Capture:
  """A camera that gives one frame each time that it is let; None: it is gone."""

  def __init__(self):
    self.frames, self.opened, self.wait = [], 0, threading.Event()

  def open(self, _):
    self.opened += 1
    return self

  def isOpened(self):  # noqa: N802  of OpenCV
    return True

  def get(self, _):
    return 0.0

  def read(self):
    while not self.frames:
      if self.wait.wait(0.002):
        return False, None
    level = self.frames.pop(0)
    return level is not None, None if level is None else np.full((4, 5, 3), level, np.uint8)

  def release(self):
    pass


@pytest.fixture
def capture(monkeypatch):
  found = Capture()
  monkeypatch.setattr(module.cv2, 'VideoCapture', found.open)
  monkeypatch.setattr(module, 'FIRST_WAIT', 0.001)
  yield found
  found.wait.set()


def until(condition):
  deadline = time.monotonic() + 10
  while not condition() and time.monotonic() < deadline:
    time.sleep(0.001)
  assert condition()


def started(every=0.0, clock=time.monotonic):
  camera = Camera('0', lambda frame, name: frame, every, clock=clock)
  camera.start(lambda job: job())
  return camera


def end(camera, capture):
  camera._stopping.set()  # noqa: SLF001
  capture.wait.set()
  camera.stop()


def levels(camera):
  return [int(item.read()[0, 0, 0]) for item in camera.take(9)]


def test_the_newest_frame_is_taken_and_the_others_counted(capture):
  camera = started()
  capture.frames = [1, 2, 3]
  until(lambda: camera.dropped == 2)
  assert camera.waiting == 1
  assert levels(camera) == [3]
  assert levels(camera) == []
  capture.frames = [4]
  until(lambda: camera.waiting)
  assert levels(camera) == [4]
  capture.frames = [5]
  until(lambda: camera.waiting)
  assert levels(camera) == []  # two are under way
  camera.recorded(None, Failure('', ''), 1)
  assert levels(camera) == [5]
  end(camera, capture)
  assert camera.dropped == 2


def test_frames_within_the_interval_are_not_dropped_but_not_wanted(capture):
  now = [0.0]
  camera = started(every=10.0, clock=lambda: now[0])
  capture.frames = [1]
  until(lambda: camera.waiting)
  assert levels(camera) == [1]
  now[0] = 9.0
  capture.frames = [2, 3]
  until(lambda: not capture.frames)
  now[0] = 10.5
  capture.frames = [4]
  until(lambda: camera.waiting)
  assert levels(camera) == [4]
  assert camera.dropped == 0
  end(camera, capture)


def test_a_camera_that_goes_away_is_opened_again(capture, caplog):
  camera = started()
  capture.frames = [1, None, None, 2]
  until(lambda: capture.opened == 3 and not capture.frames and camera.waiting)
  assert levels(camera) == [2]
  texts = [record.getMessage() for record in caplog.records]
  assert texts == ['0 gives no frames: it is opened again and again', '0 is back']
  end(camera, capture)


def test_one_that_is_not_there(tmp_path):
  (tmp_path / 'no.avi').write_bytes(b'?')
  with pytest.raises(UserError, match='cannot be opened'):
    Camera(str(tmp_path / 'no.avi'), lambda frame, name: frame)


def test_names_sort_by_time_and_say_no_password():
  when = datetime.datetime(2026, 12, 1, 7, 5, 9, 81999, datetime.UTC)
  assert name_of(when, 42) == '20261201T070509.081Z-000042.png'
  assert shown('rtsp://user:secret@cam/1') == 'rtsp://cam/1'
  assert shown('/videos/a@b.avi') == '/videos/a@b.avi'
