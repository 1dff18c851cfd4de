import errno
import json
import logging
import os
import resource
import threading
import time

import numpy as np
import pytest

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system import files

FULL = r'no space left on the disk of .*file: free some and run the same command again'


@pytest.mark.parametrize(
  ('error', 'words'),
  [
    (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), FULL),
    (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), FULL),
    # As tensorstore says it.
    (
      ValueError(
        'RESOURCE_EXHAUSTED: Error writing "w/0" in OCDBT database at local file "/runs/2/d/1": '
        "Failed to write 2779593 bytes to file 12: No space left on device [os_error_code='28']"
      ),
      FULL,
    ),
    (PermissionError(errno.EACCES, ''), r'cannot write .*/file: Permission denied'),
    (OSError(errno.EROFS, ''), r'cannot write .*/file: Read-only file system'),
    (OSError(errno.EIO, ''), r'cannot write .*/file: Input/output error'),
  ],
  ids=['full', 'quota', 'full-tensorstore', 'permission', 'read-only', 'broken'],
)
def test_what_a_disk_can_do_is_said_in_a_line(tmp_path, error, words):
  with pytest.raises(UserError, match=words) as raised, files.explained(tmp_path / 'file'):
    raise error
  assert '\n' not in str(raised.value)


@pytest.mark.parametrize('error', [ValueError('of another kind'), OSError('without a number')])
def test_other_errors_pass(tmp_path, error):
  with pytest.raises(type(error)) as raised, files.explained(tmp_path):
    raise error
  assert raised.value is error


def test_only_what_orbax_logs_is_kept_quiet_while_it_writes(tmp_path, caplog):
  def log(place):
    record = logging.makeLogRecord({'msg': place, 'levelno': logging.ERROR, 'pathname': place})
    logging.getLogger('absl').handle(record)

  def save():
    log('/lib/orbax/checkpoint/future.py')
    log('/lib/jax/another.py')
    raise TypeError('a bug')

  with pytest.raises(TypeError, match='a bug'), files.orbax_writes(tmp_path):
    save()
  log('/lib/orbax/checkpoint/afterwards.py')
  assert caplog.messages == ['/lib/jax/another.py', '/lib/orbax/checkpoint/afterwards.py']


def test_a_save_that_fails_ends_after_its_writers(tmp_path):
  class Writer(threading.Thread):
    __module__ = 'orbax.checkpoint.futures'

    def join(self, timeout=None):
      raise OSError('of the writer')

  written = []
  writer = Writer(target=lambda: (time.sleep(0.1), written.append(True)))

  def save():
    writer.start()
    raise OSError(errno.ENOSPC, '')

  with pytest.raises(UserError, match='no space left'), files.orbax_writes(tmp_path):
    save()
  assert written


def test_a_file_and_its_folder(tmp_path):
  path = tmp_path / 'new' / 'names with spaces, Ünïcode 名' / 'file'
  files.write(path, b'one')
  files.write(path, b'another')
  assert path.read_bytes() == b'another'
  assert list(path.parent.iterdir()) == [path]


def test_what_json_lacks_is_null_and_what_numpy_has_is_a_number(tmp_path):
  values = {
    'lacking': [float('nan'), (float('inf'), np.float64('nan')), np.float32('-inf')],
    'numbers': {'i': np.int64(3), 'f': np.float32(0.5), 'b': np.bool_(True), 'x': 0.1},
  }
  files.write_json(tmp_path / 'file', values)
  text = (tmp_path / 'file').read_text()
  assert json.loads(text) == {
    'lacking': [None, [None, None], None],
    'numbers': {'i': 3, 'f': 0.5, 'b': True, 'x': 0.1},
  }
  assert text.startswith('{\n  "lacking"')
  assert text.endswith('}\n')


def test_a_file_that_grows_too_large_leaves_the_old_one(tmp_path):
  path = tmp_path / 'file'
  files.write(path, b'old')
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
  try:
    with pytest.raises(UserError, match=FULL):
      files.write(path, bytes(2000))
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  assert path.read_bytes() == b'old'
  assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize('error', [ValueError('of another kind'), KeyboardInterrupt()])
def test_a_writer_that_fails_leaves_the_old_file(tmp_path, error):
  path = tmp_path / 'file'
  files.write(path, b'old')

  def fail(unfinished):
    unfinished.write_bytes(b'half')
    raise error

  with pytest.raises(type(error)), files.whole(path) as unfinished:
    fail(unfinished)
  assert path.read_bytes() == b'old'
  assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_a_file(tmp_path):
  (tmp_path / 'file').touch()
  words = 'cannot write .*: a file has the name of a folder'
  with pytest.raises(UserError, match=words):
    files.write(tmp_path / 'file' / 'another', b'')
  with pytest.raises(UserError, match=words):
    files.check_writable(tmp_path / 'file' / 'another')
  with pytest.raises(UserError, match=r'cannot write .*: it is a folder'):
    files.check_writable(tmp_path)
  files.check_writable(tmp_path / 'folder' / 'file')
  assert list((tmp_path / 'folder').iterdir()) == []
