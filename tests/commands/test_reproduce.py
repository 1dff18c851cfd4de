"""`reproduce` end to end on an imitation of MVTec AD: what it shows, resumes, survives, refuses."""

import contextlib
import csv
import io
import json
import shutil

import numpy as np
import pytest

from patch_svdd_jax import configuration
from patch_svdd_jax.commands import main, reproduce
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.experiments import paper_results, training_run
from patch_svdd_jax.experiments.training_run import StopRequest
from tests.commands.test_import_authors import random_weights, write_weights
from tests.support import categories

pytestmark = pytest.mark.usefixtures('only_quick_compilation')

CONFIG = """
from patch_svdd_jax.configs import mvtec

def get_config(category):
  config = mvtec.get_config(category)
  config.encoder.update(receptive_field=8, scales=(8,), depth=2, width=0.25, embed_dim=8)
  config.train.update(steps=3, steps_per_call=1, batch_size=4)
  config.checkpoint.every = 10
  config.score.strides = (8,)
  return config
"""
PRESENT = ['bottle', 'cable', 'screw']
METRICS = ('image_auroc', 'pixel_auroc')


@pytest.fixture(scope='module')
def place(tmp_path_factory):
  """Three categories, one more with a broken image, some weights, a config to train with."""
  folder = tmp_path_factory.mktemp('reproduce')
  for seed, category in enumerate([*PRESENT, 'tile']):
    categories.write(folder / 'mvtec' / category, seed)
  shutil.move(folder / 'mvtec/tile', folder / 'broken/tile')
  shutil.copytree(folder / 'mvtec/screw', folder / 'broken/screw')
  (folder / 'broken/tile/test/scratch/001.png').write_bytes(b'no image')
  for category in ('bottle', 'screw', 'tile'):
    (folder / 'weights' / category).mkdir(parents=True)
    write_weights(folder / 'weights' / category / 'enchier.pkl', random_weights(8))
  (folder / 'tiny.py').write_text(CONFIG)
  return folder


def command(place, workdir, *others, data='mvtec'):
  """Of images that are small, but large enough for the authors' encoder."""
  return [
    'reproduce',
    '--data',
    str(place / data),
    '--workdir',
    str(workdir),
    f'--config.data.prepared={place / data}.prepared',
    '--config.data.image_size=(72,80)',
    *others,
  ]


def authors(place):
  return ['--weights', str(place / 'weights')]


def trained(place, *names):
  return ['--train', str(place / 'tiny.py'), *(['--categories', *names] if names else [])]


@pytest.fixture(scope='module')
def finished(place, tmp_path_factory):
  """The workdir of the authors' weights and one trained category, and what was printed last."""
  workdir, printed = tmp_path_factory.mktemp('finished') / 'run', io.StringIO()
  assert main(command(place, workdir, *authors(place))) == 0
  with contextlib.redirect_stdout(printed):
    assert main(command(place, workdir, *trained(place, 'screw'))) == 0
  return workdir, printed.getvalue()


def read(workdir):
  return json.loads((workdir / 'reproduce.json').read_text())


def rows(text):
  """The cells of a Markdown table by its first column."""
  lines = (line for line in text.splitlines() if line.startswith('|'))
  return {
    first: rest for first, *rest in ([c.strip() for c in line.split('|')[1:-1]] for line in lines)
  }


def shown(figures):
  return ' / '.join(f'{figures[metric]:.3f}' for metric in METRICS)


def fake(job):
  """A job's entry without the work, which takes seconds."""
  seed = sum(f'{job.category}{job.column}'.encode())
  image, pixel = np.random.default_rng(seed).random(2).tolist()
  entry = {'status': 'measured', 'image_auroc': image, 'pixel_auroc': pixel}
  return entry | ({'weights': reproduce.digest(job.weights)} if job.column == 'authors' else {})


@pytest.fixture
def calls(monkeypatch):
  """Replaces the work; the jobs that were run."""
  found = []

  def run_job(job):
    found.append((job.category, job.column))
    return fake(job)

  monkeypatch.setattr(reproduce, 'run_job', run_job)
  return found


def test_the_figures_are_those_of_eval(finished):
  workdir, _ = finished
  measured = read(workdir)['categories']
  for category, column, name, step in (
    ('bottle', 'authors', 'product', 0),
    ('screw', 'authors', 'product', 0),
    ('screw', 'trained', 'k8', 3),
  ):
    metrics = json.loads((workdir / category / column / 'eval/metrics.json').read_text())
    entry = measured[category][column]
    assert (entry['status'], entry['map'], entry['step']) == ('measured', name, step)
    for metric in METRICS:
      assert entry[metric] == metrics['maps'][name][metric]
  assert measured['bottle']['authors'] != measured['screw']['authors']


@pytest.mark.parametrize('column', ['authors', 'trained'])
def test_eval_works_in_a_categorys_folder(finished, column, capsys):
  workdir = finished[0] / 'screw' / column
  config = configuration.load(workdir)
  assert (config.data.category, config.data.resize) == ('screw', 'nearest')
  path = workdir / 'eval/metrics.json'
  before = json.loads(path.read_text())['maps']
  assert main(['eval', '--workdir', str(workdir), '--no-random-encoder']) == 0
  assert 'mvtec/screw' in capsys.readouterr().out
  assert json.loads(path.read_text())['maps'] == before


def test_all_categories_are_in_the_table(place, finished):
  workdir, printed = finished
  text = (workdir / 'reproduce.md').read_text()
  assert text in printed
  assert f'written: {workdir}' in printed
  table, measured = rows(text), read(workdir)['categories']
  assert list(table)[2:17] == list(paper_results.RESULTS)
  for category, figures in paper_results.RESULTS.items():
    assert table[category][0] == shown(figures._asdict())
    if category not in PRESENT:
      assert table[category][1:] == ['no data', '-']
  of_authors = {category: shown(measured[category]['authors']) for category in ('bottle', 'screw')}
  assert table['bottle'][1:] == [of_authors['bottle'], '-']
  assert table['cable'][1:] == ['no weights', '-']
  assert table['screw'][1:] == [of_authors['screw'], shown(measured['screw']['trained'])]
  missing = [category for category in paper_results.RESULTS if category not in PRESENT]
  assert f'\nNo data: {", ".join(missing)}.\n' in text
  assert '\nNo weights of the authors: cable.\n' in text
  assert f'\nTrained here: `{place / "tiny.py"} --config.data.prepared=' in text


def test_the_means_are_those_of_the_same_categories(finished):
  text, contents = (finished[0] / 'reproduce.md').read_text(), read(finished[0])
  table = rows(text)
  assert list(table)[17:] == ['mean of 2 (authors)', 'mean of 1 (trained)', 'mean of all 15']
  assert table['mean of 1 (trained)'] == ['0.813 / 0.957', *table['screw'][1:]]
  values = [[contents['categories'][c]['authors'][m] for m in METRICS] for c in ('bottle', 'screw')]
  of_paper, of_authors, of_trained = table['mean of 2 (authors)']
  assert of_authors == ' / '.join(f'{value:.3f}' for value in np.mean(values, axis=0))
  assert of_trained == '-'
  # bottle .986 / .981, screw .813 / .957
  np.testing.assert_allclose(
    list(contents['means'][0]['columns']['paper'].values()), [0.8995, 0.969]
  )
  assert of_paper.endswith(' / 0.969')
  assert table['mean of all 15'] == ['0.921 / 0.957', '-', '-']


def test_the_csv_has_the_same_figures(finished):
  measured = read(finished[0])['categories']
  with (finished[0] / 'reproduce.csv').open() as file:
    found = {row['category']: row for row in csv.DictReader(file)}
  assert list(found) == list(paper_results.RESULTS)
  for metric in METRICS:
    assert float(found['screw'][f'authors_{metric}']) == measured['screw']['authors'][metric]
    assert float(found['screw'][f'paper_{metric}']) == getattr(
      paper_results.RESULTS['screw'], metric
    )
  assert found['cable']['authors_status'] == 'no weights'
  assert found['wood']['authors_status'] == 'no data'


def test_what_is_finished_is_not_run_again(place, finished, calls, capsys):
  workdir, printed = finished
  before = {path: path.read_bytes() for path in workdir.glob('reproduce.*')}
  for others in (authors(place), trained(place, 'screw')):
    capsys.readouterr()
    assert main(command(place, workdir, *others)) == 0
    assert calls == []
    assert capsys.readouterr().out == printed
  assert {path: path.read_bytes() for path in workdir.glob('reproduce.*')} == before


def test_what_was_killed_between_categories_goes_on(place, tmp_path, calls, monkeypatch, capsys):
  def killed(job):
    if (job.category, job.column) == ('bottle', 'trained'):
      raise KeyboardInterrupt
    return fake(job)

  arguments = command(place, tmp_path / 'run', *authors(place), *trained(place))
  with monkeypatch.context() as patch:
    patch.setattr(reproduce, 'run_job', killed)
    assert main(arguments) == 130
  table = rows((tmp_path / 'run/reproduce.md').read_text())
  assert table['cable'][1:] == ['no weights', '-']
  assert '/' in table['screw'][1]
  assert main(arguments) == 0
  assert calls == [(category, 'trained') for category in PRESENT]
  assert '-' not in rows((tmp_path / 'run/reproduce.md').read_text())['screw']


def test_stopped_training_saves_and_goes_on(place, finished, tmp_path, monkeypatch, capsys):
  class Impatient(StopRequest):
    asked = 0

    def __call__(self):
      self.asked += 1
      self.signal = 15 * (self.asked > 1)
      return bool(self.signal)

  workdir = tmp_path / 'run'
  arguments = command(place, workdir, *trained(place, 'screw'))
  with monkeypatch.context() as patch:
    patch.setattr(training_run, 'StopRequest', Impatient)
    assert main(arguments) == 128 + 15
  folder = workdir / 'screw/trained'
  stopped = f'stopped at step 1 of {folder}: the same command goes on from there\n'
  assert capsys.readouterr().out == stopped
  assert [path.name for path in (folder / 'checkpoints').iterdir()] == ['1']
  assert main(arguments) == 0
  entries = (read(each)['categories']['screw']['trained'] for each in (workdir, finished[0]))
  assert next(entries) == next(entries)


def test_what_fails_is_shown_and_the_others_go_on(place, tmp_path, capsys):
  workdir = tmp_path / 'run'
  arguments = command(place, workdir, *authors(place), '--categories', 'tile', 'screw')
  arguments[arguments.index(str(place / 'mvtec'))] = str(place / 'broken')
  assert main(arguments) == 1
  printed = capsys.readouterr()
  entry = read(workdir)['categories']['tile']['authors']
  assert entry['status'] == 'failed'
  assert 'tile/test/scratch/001.png' in entry['error']
  assert f"tile, authors' weights here: {entry['error']}\n" in printed.err
  text = (workdir / 'reproduce.md').read_text()
  assert f"Failed:\n\n- tile, authors' weights here: {entry['error']}\n" in text
  table = rows(printed.out)
  assert table['tile'] == ['0.978 / 0.914', 'failed', '-']
  assert table['screw'] == ['0.813 / 0.957', *table['mean of 1 (authors)'][1:]]


def test_what_failed_is_tried_again(place, tmp_path, monkeypatch):
  def fail(job):
    raise UserError('it is raining')

  arguments = command(place, tmp_path / 'run', *trained(place, 'screw'))
  monkeypatch.setattr(reproduce, 'run_trained', fail)
  assert main(arguments) == 1
  assert 'raining' in (tmp_path / 'run/reproduce.md').read_text()
  monkeypatch.setattr(reproduce, 'run_trained', fake)
  assert main(arguments) == 0
  assert 'raining' not in (tmp_path / 'run/reproduce.md').read_text()


def test_more_categories_and_another_column_add_to_what_is_there(place, tmp_path, calls):
  workdir = tmp_path / 'run'
  assert main(command(place, workdir, *authors(place), '--categories', 'screw')) == 0
  assert main(command(place, workdir, *trained(place, 'bottle', 'wood'))) == 0
  assert calls == [('screw', 'authors'), ('bottle', 'trained')]
  table = rows((workdir / 'reproduce.md').read_text())
  assert list(table)[2:5] == ['bottle', 'screw', 'wood']
  assert (table['bottle'][1], table['wood'][1:], table['screw'][2]) == ('-', ['-', 'no data'], '-')


def test_another_config_is_refused_with_the_difference(place, tmp_path, calls, capsys):
  workdir = tmp_path / 'run'
  assert main(command(place, workdir, *authors(place), *trained(place))) == 0
  before = (workdir / 'reproduce.json').read_bytes()
  calls.clear()
  capsys.readouterr()
  for change, difference in (
    ('--config.train.learning_rate=0.5', 'config.train.learning_rate: 0.0001 -> 0.5'),
    ('--config.score.neighbours=2', 'config.score.neighbours: 1 -> 2'),
  ):
    assert main(command(place, workdir, *authors(place), *trained(place), change)) == 2
    line = capsys.readouterr().err
    assert line == (
      f'error: {workdir} was started with another config ({difference}): use another --workdir\n'
    )
  # It is nothing to the authors' weights what is trained here.
  change = '--config.train.learning_rate=0.5'
  assert main(command(place, workdir, *authors(place), change)) == 0
  assert (calls, (workdir / 'reproduce.json').read_bytes()) == ([], before)


def test_other_weights_are_refused(place, tmp_path, calls, capsys):
  workdir, weights = tmp_path / 'run', tmp_path / 'weights/screw/enchier.pkl'
  weights.parent.mkdir(parents=True)
  weights.write_bytes(b'some')
  others = ['--weights', str(tmp_path / 'weights'), '--categories', 'screw']
  assert main(command(place, workdir, *others)) == 0
  weights.write_bytes(b'others')
  assert main(command(place, workdir, *others)) == 2
  line = f'error: {workdir} was measured with other weights than {weights}: use another --workdir\n'
  assert capsys.readouterr().err.endswith(line)


def test_a_folder_of_another_command_is_not_overwritten(place, tmp_path, capsys):
  precious = tmp_path / 'run/screw/authors/precious'
  precious.mkdir(parents=True)
  assert main(command(place, tmp_path / 'run', *authors(place), *trained(place))) == 2
  assert f'{precious.parent} was made by another command' in capsys.readouterr().err
  assert precious.exists()


@pytest.mark.parametrize(
  ('others', 'words'),
  [
    (['--categories', 'screws'], '--categories screws: no such category; choose of bottle, cable,'),
    ([], 'nothing to measure: give --weights FOLDER, --train CONFIG, or both'),
    (['--weights', '{place}/mvtec'], 'mvtec: has no bottle/enchier.pkl, nor others'),
    (['--train', 'nosuch'], "no config file 'nosuch'"),
    (['--train', 'laptop:mvtec:screw'], 'give a config that takes a category of MVTec AD'),
    (['--train', 'folder'], '--train folder: folder:bottle is of folder/; give a config that'),
    (['--train', 'mvtec', '--config.train.steps=0'], 'config.train.steps=0: must be at least 1'),
    (['--train', 'mvtec', '--config.train.step=3'], 'no such key: config.train.step; did you mean'),
    (['--train', 'mvtec', '--nosuch'], "Unknown command line flag 'nosuch'"),
    (['--train', 'mvtec', '--data', '{place}/nosuch'], '/nosuch: does not exist; give the archive'),
    (['--train', 'mvtec', '--data', '{place}/weights', '--categories', 'pill'], 'none of pill;'),
    (['--train', 'mvtec', '--data', '{place}/tiny.py'], 'tiny.py: is no tar archive or is damaged'),
  ],
)
def test_refused(place, tmp_path, capsys, others, words):
  others = [text.format(place=place) for text in others]
  assert main(command(place, tmp_path / 'run', *others)) == 2
  printed = capsys.readouterr()
  assert printed.out == ''
  # What reads an archive has a progress bar.
  [line] = [line for line in printed.err.splitlines() if line.startswith('error: ')]
  assert printed.err.endswith(f'{line}\n')
  assert words in line
  assert not (tmp_path / 'run').exists()


def test_a_file_that_is_no_record_is_refused(place, tmp_path, capsys):
  (tmp_path / 'reproduce.json').write_text('{}')
  assert main(command(place, tmp_path, *authors(place), *trained(place))) == 2
  assert 'reproduce.json is no file of reproduce: use another' in capsys.readouterr().err
