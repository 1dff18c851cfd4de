"""Files that are moved: clashes, crashes in between, links, other disks, other contents."""

import errno
import os

import pytest

from patch_svdd_jax.line import moving
from patch_svdd_jax.line.moving import move, state_of
from patch_svdd_jax.system.digests import digest_bytes


@pytest.fixture
def part(tmp_path):
  path = tmp_path / 'in' / 'part.png'
  path.parent.mkdir()
  path.write_bytes(b'new')
  return path


@pytest.fixture
def good(tmp_path):
  return tmp_path / 'good' / 'sub' / 'part.png'


@pytest.fixture(params=['link', 'no link'])
def disk(request, monkeypatch):
  """Hard links, or a disk without."""
  if request.param == 'no link':

    def refuse(*_, **__):
      raise OSError(errno.EXDEV, 'other disk')

    monkeypatch.setattr(os, 'link', refuse)


def contents(path):
  return {each.name: each.read_bytes() for each in path.parent.iterdir()}


@pytest.mark.usefixtures('disk')
def test_a_file_is_moved_with_its_times(part, good):
  os.utime(part, ns=(10**18, 10**18))
  assert move(part, good, 7, state_of(part))
  assert not part.exists()
  assert contents(good) == {'part.png': b'new'}
  assert good.stat().st_mtime_ns == 10**18


@pytest.mark.usefixtures('disk')
def test_another_of_its_name_is_not_overwritten(part, good):
  good.parent.mkdir(parents=True)
  good.write_bytes(b'old')
  assert move(part, good, 7, state_of(part))
  assert contents(good) == {'part.png': b'old', 'part~7.png': b'new'}
  part.write_bytes(b'third')
  assert move(part, good, 7, state_of(part))
  assert contents(good) == {'part.png': b'old', 'part~7.png': b'new', 'part~7~7.png': b'third'}


def test_what_a_crash_has_left_undone_is_done(part, good):
  good.parent.mkdir(parents=True)
  os.link(part, good)
  assert move(part, good, 7, state_of(part))
  assert not part.exists()
  assert contents(good) == {'part.png': b'new'}


def test_a_copy_that_a_crash_has_left_is_known_by_its_content(part, good):
  good.parent.mkdir(parents=True)
  good.write_bytes(b'new')
  assert move(part, good, 7, state_of(part), digest_bytes(b'new'))
  assert not part.exists()
  assert contents(good) == {'part.png': b'new'}


def test_another_content_stays(part, good, monkeypatch):
  state = state_of(part)
  part.write_bytes(b'newer')
  assert not move(part, good, 7, state)
  assert part.read_bytes() == b'newer'
  state = state_of(part)
  place = moving._place  # noqa: SLF001

  def late(path, target):
    path.unlink()
    path.write_bytes(b'the very newest')
    place(path, target)

  monkeypatch.setattr(moving, '_place', late)
  assert not move(part, good, 7, state)
  assert part.read_bytes() == b'the very newest'
  assert not good.exists()


def test_a_link_is_moved_and_leads_to_the_same_file(part, good, tmp_path):
  link = tmp_path / 'in' / 'link.png'
  link.symlink_to('part.png')
  assert move(link, good, 7, state_of(link))
  assert not link.is_symlink()
  assert good.resolve() == part
