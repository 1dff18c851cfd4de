"""The journal after crashes, and what is not its own."""

import json

import pytest

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.line.journal import Journal, number_of


def add(journal, *names):
  journal.add([{'id': journal.next_id(), 'image': name} for name in names])


def images(journal, position=0):
  return [json.loads(event.body)['image'] for event in journal.read(position)]


def test_what_is_added_is_read_from_any_event_on(tmp_path):
  journal = Journal(tmp_path)
  add(journal, 'a', 'b')
  add(journal, 'c')
  events = list(journal.read())
  assert images(journal, events[0].end) == ['b', 'c']
  assert [number_of(event.id) for event in events] == [1, 2, 3]
  assert events[-1].end == journal.end == journal.path.stat().st_size
  journal.close()


@pytest.mark.parametrize('rest', [b'', b'{"id": "x-2", "im', b'\0' * 5000, b'\0\0\n\0', b'[1]\n'])
def test_what_a_crash_has_cut_off_is_removed_and_the_numbers_go_on(tmp_path, rest):
  journal = Journal(tmp_path)
  add(journal, 'a', 'b')
  journal.close()
  with journal.path.open('ab') as file:
    file.write(rest)
  again = Journal(tmp_path)
  add(again, 'c')
  assert again.stream == journal.stream
  assert [number_of(event.id) for event in again.read()] == [1, 2, 3]
  assert images(again) == ['a', 'b', 'c']
  again.close()


def test_a_first_line_that_was_cut_off(tmp_path):
  (tmp_path / 'results.jsonl').write_bytes(b'{"id": "7f')
  journal = Journal(tmp_path)
  assert journal.end == journal.path.stat().st_size == 0
  journal.close()


@pytest.mark.parametrize('name', ['results.jsonl', 'results.jsonl.partial'])
def test_results_of_predict_are_refused(tmp_path, name):
  (tmp_path / name).write_text('{"image": "a.png", "error": "?"}\n')
  before = (tmp_path / name).read_bytes()
  with pytest.raises(UserError, match='another --output'):
    Journal(tmp_path)
  assert (tmp_path / name).read_bytes() == before


def test_damage_within_is_said(tmp_path):
  journal = Journal(tmp_path)
  add(journal, 'a', 'b')
  content = journal.path.read_bytes()
  journal.path.write_bytes(b'x' + content[1:])
  with pytest.raises(UserError, match='is damaged before byte'):
    list(journal.read())
  journal.close()
