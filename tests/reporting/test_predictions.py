"""Results on disk: whole or going on, whatever happened to the one who wrote them."""

import csv
import json

import pytest

from patch_svdd_jax.detection.prediction import Prediction
from patch_svdd_jax.detection.regions import Region
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.reporting import predictions
from patch_svdd_jax.reporting.predictions import Failure, Predictions

MADE_WITH = {'model': 'abc', 'threshold': 1.5}


REGION = Region((1, 2, 3, 4), 9, 2.0)


def line(name):
  return Prediction(name, 2.0, 0.01, True, (6, 8), (REGION, REGION), ('dark', 'blurred'))


def lines(path):
  return [json.loads(text) for text in path.read_text().splitlines()]


def test_results_get_their_names_at_the_end(tmp_path):
  found = [line('a, "b".png'), Failure('c.png', 'c.png: is damaged')]
  with Predictions(tmp_path / 'found', MADE_WITH) as results:
    results.add(found[:1])
    results.add(found[1:])
    assert list(results.read()) == found
    assert [path.name for path in (tmp_path / 'found').iterdir()] == ['results.jsonl.partial']
    results.finish()
  assert sorted(path.name for path in (tmp_path / 'found').iterdir()) == [
    'results.csv',
    'results.jsonl',
  ]
  region = {'box': [1, 2, 3, 4], 'area': 9, 'score': 2.0}
  assert lines(tmp_path / 'found' / 'results.jsonl') == [
    {
      'image': 'a, "b".png',
      'verdict': 'alarm',
      'score': 2.0,
      'p_value': 0.01,
      'size': [8, 6],
      'regions': [region, region],
      'warnings': ['dark', 'blurred'],
    },
    {'image': 'c.png', 'error': 'c.png: is damaged'},
  ]
  with (tmp_path / 'found' / 'results.csv').open(newline='') as file:
    good, bad = csv.DictReader(file)
  assert good['image'] == 'a, "b".png'
  assert (good['regions'], good['area'], good['warnings']) == ('2', '18', 'dark; blurred')
  assert (bad['regions'], bad['area'], bad['error']) == ('', '', 'c.png: is damaged')


@pytest.mark.parametrize('torn', ['', '{"image": "b.pn', '{"image": "b.png", "score": 1}'])
def test_a_run_that_was_killed_goes_on(tmp_path, torn):
  with Predictions(tmp_path, MADE_WITH) as results:
    results.add([line('a.png')])
  with (tmp_path / 'results.jsonl.partial').open('a') as file:
    file.write(torn)  # no end of a line: it may be half of one
  with Predictions(tmp_path, MADE_WITH) as results:
    assert [each.name for each in results.read()] == ['a.png']
    results.add([line('b.png')])
    results.finish()
  assert [each['image'] for each in lines(tmp_path / 'results.jsonl')] == ['a.png', 'b.png']


@pytest.mark.parametrize('torn', ['', '{"model": "a'])
def test_killed_before_the_first_line_was_whole(tmp_path, torn):
  (tmp_path / 'results.jsonl.partial').write_text(torn)
  with Predictions(tmp_path, MADE_WITH) as results:
    assert list(results.read()) == []


def test_results_of_another_model_are_not_mixed(tmp_path):
  with Predictions(tmp_path, MADE_WITH) as results:
    results.add([line('a.png')])
  with pytest.raises(UserError, match='another model or other rates'):
    Predictions(tmp_path, MADE_WITH | {'threshold': 2.0})
  assert len(lines(tmp_path / predictions.LINES.replace('.jsonl', '.jsonl.partial'))) == 2


def test_a_folder_that_cannot_be_one(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match='cannot write'):
    Predictions(tmp_path / 'file' / 'found', MADE_WITH)
