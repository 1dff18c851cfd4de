"""`reproduce` end to end on an imitation of MVTec AD: what it shows, adds, survives, refuses."""

import contextlib
import io
import json
import shutil

import numpy as np
import pytest

from patch_svdd_jax import configuration
from patch_svdd_jax.commands import main, reproduce
from patch_svdd_jax.evaluation.metrics import TITLES
from patch_svdd_jax.experiments import paper_results, reproduction
from tests.commands.test_import_authors import random_weights, write_weights
from tests.support import categories

PRESENT = ['bottle', 'cable', 'screw']


# `categories.CONFIG` of a folder.
FOLDER = categories.CONFIG.replace(
  'config = mvtec.get_config(category)',
  """config = mvtec.get_config()
  config.data.update(name='folder', root=category, category='')""",
).replace('len(category)', '5')


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
  (folder / 'tiny.py').write_text(categories.CONFIG)
  return folder


def command(place, workdir, *others, data='mvtec'):
  """Of images that are small, but large enough for the authors' encoder."""
  return [
    'reproduce',
    f'--data={place / data}',
    f'--workdir={workdir}',
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


@pytest.fixture
def calls(monkeypatch):
  """Replaces the work, which takes seconds; the jobs that were run."""
  found = []

  def measure(options, job, entry):
    found.append(job.name)
    image, pixel = np.random.default_rng(sum(job.name.encode())).random(2).tolist()
    entry |= {'status': 'measured', 'image_auroc': image, 'pixel_auroc': pixel}
    entry |= {'step': job.config.seed}
    if weights := reproduce.weights_of(options, job):
      entry['weights'] = reproduce.digest(weights)

  monkeypatch.setattr(reproduce, 'measure', measure)
  return found


@pytest.mark.parametrize(
  ('category', 'column', 'name', 'step'),
  [
    ('bottle', 'authors', 'product', 0),
    ('screw', 'authors', 'product', 0),
    ('screw', 'trained', 'k8', 5),
  ],
)
def test_the_figures_are_those_of_eval(finished, capsys, category, column, name, step):
  workdir = finished[0] / category / column
  config = configuration.load(workdir)
  assert (config.data.category, config.data.resize) == (category, 'nearest')
  path = workdir / 'eval/metrics.json'
  maps = json.loads(path.read_text())['maps']
  entry = read(finished[0])['categories'][category][column]
  assert (entry['status'], entry['map'], entry['step']) == ('measured', name, step)
  assert {metric: entry[metric] for metric in TITLES} == maps[name]
  assert main(['eval', '--workdir', str(workdir), '--no-random-encoder']) == 0
  assert f'mvtec/{category}' in capsys.readouterr().out
  assert json.loads(path.read_text())['maps'] == maps


def test_all_categories_are_in_the_tables(place, finished):
  workdir, printed = finished
  contents = read(workdir)
  found = contents['categories']
  assert list(found) == list(paper_results.RESULTS)
  assert found['bottle']['authors'] != found['screw']['authors']
  lacking = {'cable': 'no weights'} | dict.fromkeys(found.keys() - set(PRESENT), 'no data')
  for category, status in lacking.items():
    assert found[category]['authors'] == {'status': status}
  given = f'{place / "tiny.py"} --config.data.prepared={place}/mvtec.prepared --config.data.image_'
  assert contents['train'].startswith(given)
  text = reproduction.render(found, contents['train'])
  assert printed == f'{text}\n\nwritten: {workdir}\n'
  assert (workdir / 'reproduce.md').read_text() == f'{text}\n'
  assert (workdir / 'reproduce.csv').read_text() == reproduction.sheet(found).to_csv()
  assert (workdir / 'reproduce.tex').read_text() == reproduction.to_latex(found)
  assert contents['summary'] == reproduction.summary(found)


def test_what_is_finished_is_not_run_again(place, finished, calls, capsys):
  workdir, printed = finished
  before = {path: path.read_bytes() for path in workdir.glob('reproduce.*')}
  for others in (authors(place), trained(place, 'screw')):
    assert main(command(place, workdir, *others)) == 0
    assert calls == []
    assert capsys.readouterr().out == printed
  assert {path: path.read_bytes() for path in workdir.glob('reproduce.*')} == before


def test_what_fails_is_shown_and_the_others_go_on(place, tmp_path, capsys):
  others = [*authors(place), '--categories', 'tile', 'screw']
  assert main(command(place, tmp_path / 'run', *others, data='broken')) == 1
  entries = read(tmp_path / 'run')['categories']
  assert entries['tile']['authors']['status'] == 'failed'
  assert 'tile: test/scratch/001.png' in entries['tile']['authors']['error']
  assert entries['screw']['authors']['status'] == 'measured'


def test_more_categories_and_another_column_add_to_what_is_there(place, tmp_path, calls):
  workdir = tmp_path / 'run'
  assert main(command(place, workdir, *authors(place), '--categories', 'screw')) == 0
  assert main(command(place, workdir, *trained(place, 'bottle', 'wood'))) == 0
  assert calls == ['screw/authors', 'bottle/trained']
  found = read(workdir)['categories']
  columns = {category: [*entries] for category, entries in found.items()}
  assert columns == {
    'bottle': ['paper', 'trained'],
    'screw': ['paper', 'authors'],
    'wood': ['paper', 'trained'],
  }


def test_another_config_is_refused_with_the_difference(place, tmp_path, calls, capsys):
  workdir = tmp_path / 'run'
  assert main(command(place, workdir, *authors(place), *trained(place))) == 0
  # First what takes less time.
  assert calls == ['bottle/authors', 'screw/authors', *(f'{name}/trained' for name in PRESENT)]
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
    (
      ['--train', 'mvtec', '--categories', 'screws'],
      '--categories screws: no such category; choose of bottle, cable,',
    ),
    ([], 'nothing to measure: give --weights FOLDER, --train CONFIG, or both'),
    (['--weights', '{place}/mvtec'], 'mvtec: has no bottle/enchier.pkl, nor others'),
    (['--train', 'nosuch'], "no config file 'nosuch'"),
    (['--train', 'laptop:mvtec:screw'], 'mvtec/screw:all; give a config that takes a category'),
    (['--train', 'dataset:nosuch'], "config.data.name='nosuch': no such data set; choose of mvtec"),
    (
      ['--train', 'dataset:visa', '--weights', '{place}/weights'],
      '--weights: the authors trained on MVTec AD, and --train dataset:visa is of visa; leave one',
    ),
    (['--train', 'mvtec', '--config.train.steps=0'], 'config.train.steps=0: must be at least 1'),
    (['--train', 'mvtec', '--config.train.step=3'], 'no such key: config.train.step; did you mean'),
    (['--train', 'mvtec', '--nosuch'], "Unknown command line flag 'nosuch'"),
    (
      ['--train', 'mvtec', '--data', '{place}/nosuch'],
      '/nosuch: does not exist; give the official archive',
    ),
    (
      ['--train', 'mvtec', '--data', '{place}/weights', '--categories', 'pill'],
      'weights: has none of pill; give the official archive with --data, or the folder that',
    ),
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


def test_a_folder_of_categories_with_seeds(place, tmp_path, calls, capsys):
  workdir = tmp_path / 'run'
  (tmp_path / 'tiny.py').write_text(FOLDER)
  words = ['reproduce', '--train', f'{tmp_path}/tiny.py:{place}/mvtec', '--workdir', str(workdir)]
  words += [f'--config.data.prepared={tmp_path}/prepared']
  assert main([*words, '--categories', 'screw', 'bottle', '--seeds', '2']) == 0
  found = read(workdir)
  assert found['data'] == 'folder'
  assert {name: [*runs] for name, runs in found['categories'].items()} == {
    'bottle': ['trained', 'trained_1'],
    'screw': ['trained', 'trained_1'],
  }
  runs = found['categories']['screw'].values()
  assert [each['step'] for each in runs] == [0, 1]  # the seed, see `calls`
  figures = [each['pixel_auroc'] for each in runs]
  common = found['summary']['trained']['screw']['pixel_auroc']
  assert (common['seeds'], common['mean']) == (2, pytest.approx(np.mean(figures)))
  text = (workdir / 'reproduce.md').read_text()
  assert 'paper' not in text
  assert f'{common["mean"]:.3f} ± {common["half_width"]:.3f}' in text
  capsys.readouterr()
  assert main([*words, '--seeds', '2']) == 0
  assert '1 of 2: cable/trained\n' in capsys.readouterr().err


def test_one_data_set_a_workdir(place, tmp_path, calls, capsys):
  workdir = tmp_path / 'run'
  assert main(command(place, workdir, *authors(place))) == 0
  capsys.readouterr()
  assert main(['reproduce', '--train', 'laptop', '--workdir', str(workdir)]) == 2
  assert capsys.readouterr().err == (
    f'error: {workdir} has measured mvtec, not textures: use another --workdir\n'
  )


def test_textures_and_sets_of_one_category(place, tmp_path, calls):
  assert main(['reproduce', '--train', 'laptop', '--workdir', str(tmp_path / 'textures')]) == 0
  assert calls == ['brick/trained', 'grass/trained', 'gravel/trained']
  calls.clear()
  words = ['--data', str(place), '--train', 'laptop:dataset:kolektor_sdd2', '--seeds', '3']
  assert main(['reproduce', *words, '--workdir', str(tmp_path / 'kolektor')]) == 0
  assert calls == ['all/trained', 'all/trained_1', 'all/trained_2']
