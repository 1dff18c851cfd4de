"""Which files are images, under which names, and what is said of the others."""

import os
import pathlib
import socket

import numpy as np
import pytest
from PIL import Image

from patch_svdd_jax.data import file_search, images
from patch_svdd_jax.errors import UserError


def save(path):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(path)
  return path


def names(*places):
  return [source.name for source in file_search.find(places).sources]


def test_folders_are_searched_to_any_depth_in_natural_order(tmp_path):
  for name in ('b/10.png', 'b/9.png', 'a/deep/er/x y.JPG', 'a/ü.tif', '.hidden/x.png', 'b/.x.png'):
    save(tmp_path / name)
  (tmp_path / 'b' / 'notes.txt').write_text('no image')
  (tmp_path / 'b' / 'loop').symlink_to(tmp_path)
  found = file_search.find([tmp_path / 'b', tmp_path / 'a', tmp_path / 'b' / '9.png'])
  expected = ['a/deep/er/x y.JPG', 'a/ü.tif', 'b/9.png', 'b/10.png']
  assert [source.name for source in found.sources] == expected
  assert found.passed_over == 'passed over: 1 file that is no image (.txt), 2 hidden'
  assert found.summary() == f'4 images (2 .png, 1 .jpg, 1 .tif); {found.passed_over}'
  assert names(tmp_path / 'b' / '9.png') == ['9.png']
  # A file that is named is an image, whatever it is called.
  (tmp_path / 'b' / '9.png').rename(tmp_path / 'b' / 'nine')
  assert names(tmp_path / 'b' / 'nine') == ['nine']


def test_places_without_images(tmp_path):
  with pytest.raises(UserError, match=r'nowhere: no such file or folder'):
    file_search.find([tmp_path / 'nowhere'])
  (tmp_path / 'empty').mkdir()
  with pytest.raises(UserError, match=r'empty: no images there \(.*\)$'):
    file_search.find([tmp_path / 'empty'])
  (tmp_path / 'empty' / 'a.xlsx').touch()
  with pytest.raises(UserError, match=r'no images there .*; passed over: 1 file that is no image'):
    file_search.find([tmp_path / 'empty'])


def test_every_suffix_of_images_is_one(tmp_path):
  for suffix in images.SUFFIXES:
    (tmp_path / f'a{suffix}').touch()
    (tmp_path / f'b{suffix.upper()}').touch()
  found = file_search.find([tmp_path])
  assert len(found.sources) == 2 * len(images.SUFFIXES)
  assert found.passed_over == ''


def test_what_is_passed_over_is_said(tmp_path):
  save(tmp_path / 'a.png')
  for name in ('1.txt', '2.TXT', '3.txt', 'b/4.xlsx', 'README', '.DS_Store', 'b/.x.png'):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
  (tmp_path / '.lock').touch()  # of a run that writes here
  os.mkfifo(tmp_path / 'pipe.png')
  place = socket.socket(socket.AF_UNIX)
  place.bind(os.path.relpath(tmp_path / 'socket.png'))
  with place:
    found = file_search.find([tmp_path])
  assert [source.name for source in found.sources] == ['a.png']
  assert found.passed_over == (
    'passed over: 5 files that are no images (.txt, no suffix, .xlsx), 2 hidden, '
    '2 that cannot be read as files (sockets, pipes or devices)'
  )
  for index in range(9):
    (tmp_path / f'x.{index}').touch()
  assert (
    'no images (.txt, no suffix, .0, .1, .2 and 7 more)' in file_search.find([tmp_path]).passed_over
  )


def test_linked_folders_are_followed_once(tmp_path):
  save(tmp_path / 'parts' / 'a.png')
  save(tmp_path / 'store' / 'deep' / 'b.png')
  parts = tmp_path / 'parts'
  (parts / 'one').symlink_to(tmp_path / 'store')
  (parts / 'two').symlink_to(tmp_path / 'store' / 'deep')
  (tmp_path / 'store' / 'deep' / 'back').symlink_to(parts)
  (parts / 'self').symlink_to('self')
  assert names(parts) == ['a.png', 'one/deep/b.png']
  # What has a path of its own has that as its name, in whatever order they are given.
  expected = ['parts/a.png', 'store/deep/b.png']
  assert names(parts, tmp_path / 'store') == names(tmp_path / 'store', parts) == expected
  assert names(parts / 'one', tmp_path / 'store') == ['b.png', 'back/a.png']
  assert names(parts / 'one') == ['b.png', 'back/a.png']


def test_links_to_files_are_images_of_their_own(tmp_path):
  save(tmp_path / 'store' / '0123.png')
  parts = tmp_path / 'parts'
  parts.mkdir()
  (parts / 'a.png').symlink_to('../store/0123.png')
  (parts / 'b.png').symlink_to('a.png')
  (parts / 'gone.png').symlink_to('nowhere.png')
  os.link(tmp_path / 'store' / '0123.png', parts / 'c.png')
  assert names(parts) == ['a.png', 'b.png', 'c.png', 'gone.png']


def test_one_file_in_many_spellings_is_one_image(tmp_path, monkeypatch):
  for name in ('a.png', 'b.png'):
    save(tmp_path / 'parts' / name)
  (tmp_path / 'other').mkdir()
  (tmp_path / 'link').symlink_to('parts')
  monkeypatch.chdir(tmp_path / 'other')
  relative = [
    pathlib.Path(text)
    for text in ('../parts/a.png', '../other/../parts/a.png', '../link/a.png', '.././parts/./a.png')
  ]
  assert names(*relative) == ['a.png']
  assert names(*relative, tmp_path / 'parts') == ['a.png', 'b.png']
  assert names(tmp_path / 'parts', *relative, tmp_path / 'link') == ['a.png', 'b.png']
  assert names(pathlib.Path('..')) == ['a.png', 'b.png']
  (source, _) = file_search.find([pathlib.Path('../parts')]).sources
  assert source.path == tmp_path / 'parts' / 'a.png'


def test_a_parent_of_a_link_is_that_of_its_target(tmp_path):
  save(tmp_path / 'store' / 'deep' / 'a.png')
  save(tmp_path / 'store' / 'b.png')
  save(tmp_path / 'parts' / 'c.png')
  (tmp_path / 'parts' / 'link').symlink_to(tmp_path / 'store' / 'deep')
  (source,) = file_search.find([tmp_path / 'parts' / 'link' / '..' / 'b.png']).sources
  assert source.path == tmp_path / 'store' / 'b.png'
  assert source.name == 'b.png'


@pytest.mark.parametrize('shown_by', ['results.jsonl', 'results.jsonl.partial', 'maps.npz'])
def test_what_runs_have_written_is_not_scored(tmp_path, shown_by):
  parts = tmp_path / 'parts'
  save(parts / 'a.png')
  (parts / 'masks').mkdir()  # of the user, until a run is known to have written here
  save(parts / 'masks' / 'b.png')
  found = parts / 'found'
  written = ['report.html', 'overlays/a.png', shown_by]
  written += ['overview.png'] if shown_by == 'maps.npz' else ['masks/a.png', 'results.csv']
  for name in written:
    (found / name).parent.mkdir(parents=True, exist_ok=True)
    (found / name).touch()
  sources, passed_over = file_search.find([parts])
  assert [source.name for source in sources] == ['a.png', 'masks/b.png']
  assert passed_over == f'passed over: what earlier runs have written to {found}'
  (parts / 'results.jsonl').touch()
  assert names(parts) == ['a.png']


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
  save(tmp_path / 'a.png')
  (tmp_path / 'closed').mkdir()
  real = os.scandir

  def scan(folder):
    if str(folder).endswith('closed'):
      raise PermissionError(13, 'Permission denied', str(folder))
    return real(folder)

  monkeypatch.setattr(os, 'scandir', scan)
  with pytest.raises(UserError, match=r'closed: cannot be read \(Permission denied\); check it'):
    file_search.find([tmp_path])
