"""`train` and `eval` end to end, on a tiny data set on disk."""

import itertools
import json
import os
import re
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
import tifffile
from PIL import Image

from patch_svdd_jax import configuration
from patch_svdd_jax.commands import main
from patch_svdd_jax.detection import bank_building
from patch_svdd_jax.search import memory_bank
from patch_svdd_jax.training import checkpoint_selection, train_state
from patch_svdd_jax.training.checkpoints import Checkpoints

SIZE = (40, 48)
# What needs no training, as the table and metrics.json call it.
BESIDE = {'random_encoder': 'random encoder', 'thumbnail': 'thumbnail'}
# Patches of an image at strides of 8 and 4, and at 16 and 8.
PATCHES = 2 * 3 + 7 * 9
FEWER_PATCHES = 1 * 2 + 4 * 5

CONFIG = """
from patch_svdd_jax.configs import default


def get_config(root):
  config = default.get_config()
  config.data.update(
    {'name': 'folder', 'category': '', 'root': root, 'prepared': root + '_prepared'}
  )
  config.data.image_size = (40, 48)
  config.encoder.update(
    {'receptive_field': 16, 'depth': 3, 'width': 0.25, 'embed_dim': 8, 'scales': (32, 16)}
  )
  config.train.update({'steps': 2, 'steps_per_call': 1, 'batch_size': 2})
  config.checkpoint.every = 1
  config.score.strides = (8, 4)
  return config
"""


def save(path, array):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(array).save(path)


def write_images(root, test=True):
  """Four normal images to train on; to test, two normal ones, two with a dot, one with a line."""
  rng = np.random.default_rng(0)

  def noise():
    return rng.normal(128, 10, (*SIZE, 3)).astype(np.uint8)

  for i in range(4):
    save(root / f'train/good/{i}.png', noise())
  defects = {'dot': np.s_[10:16, 20:26], 'line': np.s_[30:32, :]}
  for kind, index in (('good', 0), ('good', 1), ('dot', 0), ('dot', 1), ('line', 0)):
    if not test:
      break
    image = noise()
    if kind in defects:
      image[defects[kind]] = 255
      mask = np.zeros(SIZE, np.uint8)
      mask[defects[kind]] = 255
      save(root / f'ground_truth/{kind}/{index}_mask.png', mask)
    save(root / f'test/{kind}/{index}.png', image)


@pytest.fixture(scope='module')
def place(tmp_path_factory):
  folder = tmp_path_factory.mktemp('place')
  write_images(folder / 'parts')
  write_images(folder / 'untested', test=False)
  (folder / 'tiny.py').write_text(CONFIG)
  return folder


# Compiling takes most of the time, and this run is short.
QUICK = (
  '--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0 '
  '--xla_llvm_disable_expensive_passes=true'
)
HEAVY = ('tensorflow', 'torch', 'keras')
SCRIPT = """
import json, sys
from patch_svdd_jax.commands import main
config, workdir, report = sys.argv[1:]
train = main(['train', '--config', config, '--workdir', workdir])
measure = main(['eval', '--workdir', workdir, '--mvtec-maps', workdir + '_maps'])
with open(report, 'w') as file:
  json.dump({'status': [train, measure], 'modules': [*sys.modules]}, file)
"""


@pytest.fixture(scope='module')
def first(place):
  """A training run and its evaluation in a process of their own: what they say and import."""
  report = place / 'report.json'
  config = f'{place}/tiny.py:{place}/parts'
  # Whoever imports them where they are installed would import these.
  for name in HEAVY:
    (place / 'heavy' / name).mkdir(parents=True)
    (place / 'heavy' / name / '__init__.py').touch()
  path = os.pathsep.join([str(place / 'heavy'), *sys.path])
  done = subprocess.run(
    [sys.executable, '-c', SCRIPT, config, place / 'run', report],
    capture_output=True,
    text=True,
    env=os.environ | {'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': QUICK, 'PYTHONPATH': path},
  )
  assert done.returncode == 0, done.stderr
  return json.loads(report.read_text()) | {'out': done.stdout, 'err': done.stderr}


@pytest.fixture
def workdir(place, first, tmp_path):
  """A copy of the run, without its evaluation."""
  assert first['status'] == [0, 0]
  ignored = shutil.ignore_patterns('eval')
  return shutil.copytree(place / 'run', tmp_path / 'run', ignore=ignored)


def run(capsys, *arguments):
  """Runs `eval` here: (status, what it prints, what it says on the way, metrics.json or None)."""
  status = main(['eval', *map(str, arguments)])
  shown = capsys.readouterr()
  path = arguments[arguments.index('--workdir') + 1] / 'eval/metrics.json'
  return status, shown.out, shown.err, json.loads(path.read_text()) if path.exists() else None


def rows(table):
  """The cells of a printed Markdown table by its first column."""
  cells = ([cell.strip() for cell in line.strip('|').split('|')] for line in table)
  return {first: rest for first, *rest in cells}


def test_neither_tensorflow_nor_torch(first):
  assert first['status'] == [0, 0]
  modules = {name.partition('.')[0] for name in first['modules']}
  assert {'jax', 'tensorflow_datasets'} <= modules
  assert not modules & set(HEAVY)


def test_files(place, first):
  assert first['status'] == [0, 0]
  folder = place / 'run/eval'
  pictures = {str(path.relative_to(folder / 'overlays')) for path in folder.rglob('[0-9].png')}
  names = {f'test/{name}.png' for name in ('good/0', 'good/1', 'dot/0', 'dot/1', 'line/0')}
  assert pictures == names
  assert {path.name for path in folder.iterdir()} == {
    'data_report.json',
    'maps.npz',
    'metrics.json',
    'overlays',
    'overview.png',
    'report.html',
  }
  with np.load(folder / 'maps.npz', allow_pickle=False) as arrays:
    assert set(arrays['names']) == names
    assert {'k32', 'k16', 'sum', 'product'} < set(arrays)
    for name in ('k32', 'k16', 'sum', 'product'):
      assert arrays[name].shape == (5, *SIZE)
      np.testing.assert_array_equal(arrays[f'{name}_score'], arrays[name].max(axis=(1, 2)))
    np.testing.assert_allclose(arrays['product'], arrays['k32'] * arrays['k16'], rtol=1e-5)


def test_maps_for_the_code_of_mvtec(place, first):
  assert first['status'] == [0, 0]
  folder = place / 'run_maps/parts'
  assert f'written: {folder}' in first['out']
  with np.load(place / 'run/eval/maps.npz', allow_pickle=False) as arrays:
    assert len(arrays['names']) == len(list(folder.rglob('*.tiff')))
    for name, expected in zip(arrays['names'], arrays['product'], strict=True):
      found = tifffile.imread((folder / name).with_suffix('.tiff'))
      np.testing.assert_array_equal(found, expected)


def test_metrics_are_those_of_the_maps(place, first):
  """Against scikit-learn, from the files alone."""
  from sklearn.metrics import roc_auc_score

  metrics = json.loads((place / 'run/eval/metrics.json').read_text())
  assert list(metrics['maps']) == ['k32', 'k16', 'sum', 'product']
  with np.load(place / 'run/eval/maps.npz') as arrays:
    for name, figures in metrics['maps'].items():
      auroc = roc_auc_score(arrays['labels'], arrays[f'{name}_score'])
      assert figures['image_auroc'] == pytest.approx(auroc)
      masks = [true_mask(place / 'parts', image) for image in arrays['names']]
      pixel_auroc = roc_auc_score(np.ravel(masks), arrays[name].ravel())
      assert figures['pixel_auroc'] == pytest.approx(pixel_auroc)
  assert list(metrics['per_defect']['k32']) == ['dot', 'line']
  for name in BESIDE:
    assert metrics[name]['maps'].keys() == metrics['maps'].keys()
  assert metrics['timing']['bank_rows'] == 4 * PATCHES


def true_mask(root, name):
  """The mask file of an image, all False where there is none."""
  _, kind, file = name.split('/')
  path = root / f'ground_truth/{kind}/{file.replace(".png", "_mask.png")}'
  return np.asarray(Image.open(path)) > 0 if path.exists() else np.zeros(SIZE, bool)


def test_printed_tables(place, first):
  metrics = json.loads((place / 'run/eval/metrics.json').read_text())
  lines = first['out'].splitlines()
  starts = [i for i, line in enumerate(lines) if line.startswith(('| map', '| defect (product)'))]
  maps, defects = (
    rows(itertools.takewhile(lambda line: line.startswith('|'), lines[start:])) for start in starts
  )
  columns = ('image_auroc', 'image_ap', 'image_f1_max', 'pixel_auroc', 'pixel_ap', 'pixel_f1_max')
  for name, figures in metrics['maps'].items():
    assert maps[name][:6] == [f'{figures[column]:.4f}' for column in columns]
    for other, title in BESIDE.items():
      beside = metrics[other]['maps'][name]
      assert maps[f'{title} {name}'][:6] == [f'{beside[column]:.4f}' for column in columns]
  for name, figures in metrics['per_defect']['product'].items():
    assert defects[name][:6] == [f'{figures[column]:.4f}' for column in columns]
  assert 'folder/parts, 2 steps, 5 test images' in lines
  [meanings] = (line for line in lines if line.startswith('Random encoder: untrained'))
  assert 'scored as the trained one is. Thumbnail: ' in meanings
  assert any('GFLOP/s' in line and 'MiB' in line for line in lines)
  files = 'report.html, metrics.json, maps.npz, overview.png, overlays'
  assert lines[-3] == f'written: {place}/run/eval: {files}'


def test_printed_thresholds_are_those_of_the_metrics(place, first):
  found = json.loads((place / 'run/eval/metrics.json').read_text())
  thresholds, figures = found['thresholds'], found['maps']['product']
  lines = first['out'].splitlines()
  start = lines.index('Thresholds from normal images (product)') + 1
  table = rows(itertools.takewhile(lambda line: line.startswith('|'), lines[start:]))
  titles = {'false_alarm_rate': 'false-alarm rate', 'mean_plus_3_std': 'mean + 3 std'}
  for metric, kind in {'ClassF1': 'image', 'SegF1': 'pixel'}.items():
    assert thresholds[kind].keys() == titles.keys()
    for name, each in thresholds[kind].items():
      value, *shown, promised, realised, interval = table[f'{metric}, {titles[name]}']
      assert value == f'{each["value"]:.4g}'
      assert each['best_f1'] == figures[f'{kind}_f1_max']
      assert shown == [
        '-' if each[column] is None else f'{each[column]:.4f}'
        for column in ('f1', 'precision', 'recall', 'best_f1', 'gap')
      ]
      rate = each['promised']
      assert promised == ('-' if rate is None else f'{rate:.4f} (unproven)')
      assert realised == f'{each["realised"]:.4f}'
      low, high = each['interval']
      assert interval == ('-' if low is None else f'{low:.4f} to {high:.4f}')
  assert thresholds['image']['false_alarm_rate']['promised'] == pytest.approx(1 / 5)
  assert thresholds['p_values']['normal_images'] == 2
  error = f'{thresholds["p_values"]["calibration_error"]:.4f}'
  assert any(f'expected calibration error of {error}' in line for line in lines)
  assert thresholds['mask_rule'] in lines
  page = (place / 'run/eval/report.html').read_text()
  section = page[page.index('id="thresholds"') :].partition('</section>')[0]
  for name, cells in table.items():
    if name not in ('threshold', '-' * len(name)):
      assert f'data-row="{name}"' in section
      assert all(f'<td>{cell}</td>' in section for cell in cells)
  assert thresholds['mask_rule'] in section


def test_the_last_line_and_metrics_have_the_time_of_every_stage(place, first):
  speed = json.loads((place / 'run/eval/metrics.json').read_text())['speed']
  seconds = speed['seconds_per_image']
  assert list(seconds) == ['decode', 'embed', 'search', 'map', 'verdict']
  assert all(each > 0 for each in seconds.values())
  assert speed['images_per_s'] == pytest.approx(1 / sum(seconds.values()))
  rate, *stages = re.fullmatch(
    r'(\S+) images/s; milliseconds an image: decode (\S+), embed (\S+), search (\S+), map (\S+), '
    r'verdict (\S+)',
    first['out'].splitlines()[-1],
  ).groups()
  assert float(rate.replace(',', '')) == pytest.approx(speed['images_per_s'], rel=0.01)
  shown = [float(each.replace(',', '')) / 1e3 for each in stages]
  assert shown == pytest.approx(list(seconds.values()), rel=0.01)


def test_the_page_has_the_figures_the_training_and_the_settings(place, first):
  metrics = json.loads((place / 'run/eval/metrics.json').read_text())
  html = (place / 'run/eval/report.html').read_text()
  assert '<h1><bdi>folder/parts, 2 steps</bdi></h1>' in html
  for value in metrics['maps']['product'].values():
    assert f'data-value="{value}"' in html
  assert 'data-chart="training-position_accuracy"' in html
  assert 'data-table="verdicts"' in html  # The detector is calibrated.
  assert 'warning: 4 normal images cannot ensure' in first['err']
  assert 'data-row="config.encoder.depth" data-changed' in html


def test_the_saved_bank_is_used(capsys, place, first, workdir):
  before = json.loads((place / 'run/eval/metrics.json').read_text())
  status, out, err, metrics = run(capsys, '--workdir', workdir, '--no-random-encoder')
  assert status == 0
  assert 'Embedding normal images' not in err
  assert not any(title in out.lower() for title in BESIDE.values())
  about = {'main_map', 'maps', 'per_defect', 'aupimo', 'images', 'thresholds', 'timing', 'speed'}
  assert metrics.keys() == about
  for name, figures in before['maps'].items():
    assert metrics['maps'][name] == pytest.approx(figures, abs=1e-6)


def test_other_strides_have_a_bank_of_their_own(capsys, place, workdir, tmp_path):
  # One test image is a copy: to evaluate twice takes seconds.
  parts = shutil.copytree(place / 'parts', tmp_path / 'parts')
  shutil.copy(parts / 'train/good/2.png', parts / 'test/good/1.png')
  overrides = ['--config.score.strides=(16,8)', '--no-random-encoder']
  overrides += [f'--config.data.root={parts}', f'--config.data.prepared={tmp_path / "prepared"}']
  status, out, err, metrics = run(capsys, '--workdir', workdir, *overrides)
  assert status == 0
  assert 'warning: 1 test image is a copy of normal images (test/good/1.png = train/good/2.' in err
  assert metrics['duplicates'] == [{'test': 'test/good/1.png', 'normal': 'train/good/2.png'}]
  assert 'test/good/1.png = train/good/2.png' in (workdir / 'eval/report.html').read_text()
  assert 'Embedding normal images' in err
  assert metrics['timing']['bank_rows'] == 4 * FEWER_PATCHES
  # It is not calibrated.
  assert 'thresholds' not in metrics
  assert only(out, 'No thresholds: the detector is not calibrated')
  assert 'No thresholds: the detector is not' in (workdir / 'eval/report.html').read_text()
  # Measuring changes nothing in the workdir: the saved bank is still that of training.
  assert sorted(path.name for path in workdir.iterdir() if path.name != 'eval') == [
    'checkpoints',
    'config.json',
    'data.json',
    'data_report.json',
    'metrics.jsonl',
    'model',
    'tensorboard',
  ]


DESCRIBED = ["--config.score.features=('hidden','thumbnail')", '--config.score.whiten']
ALONE = ["--config.score.features=('thumbnail',)", '--config.score.whiten']


@pytest.mark.parametrize(
  ('described', 'beside'),
  [
    ([], ['random_encoder', 'thumbnail']),
    (DESCRIBED, ['random_encoder', 'thumbnail']),
    (ALONE, ['random_encoder']),  # The thumbnail is the detector itself.
  ],
  ids=['embedding', 'described', 'thumbnail'],
)
def test_one_scale_of_two(capsys, workdir, described, beside):
  overrides = ['--config.encoder.scales=(16,)', '--config.score.strides=(8,)', *described]
  status, out, _, metrics = run(capsys, '--workdir', workdir, *overrides)
  assert status == 0
  assert list(metrics['maps']) == ['k16']
  assert [name for name in BESIDE if name in metrics] == beside
  for name in beside:
    assert list(metrics[name]['maps']) == ['k16']
    assert f'| {BESIDE[name]} k16 ' in out
  assert metrics['timing']['bank_rows'] == 4 * 20


def choose_third(workdir):
  """Two more checkpoints of the same encoder, of which the older one is chosen."""
  with Checkpoints(workdir, keep=9) as checkpoints:
    state = checkpoints.restore(train_state.init_state(configuration.load(workdir)))
    for step, accuracy in ((3, 0.9), (4, 0.1)):
      checkpoints.save(state._replace(step=jax.numpy.int32(step)), known(accuracy))


def known(accuracy):
  return {'position_accuracy/k16': accuracy, 'relative_99/k16': 0.5}


def test_the_chosen_checkpoint_is_measured_and_with_every_checkpoint_all(capsys, workdir):
  choose_third(workdir)
  status, out, err, metrics = run(
    capsys, '--workdir', workdir, '--no-random-encoder', '--every-checkpoint'
  )
  assert status == 0
  assert 'folder/parts, 3 steps, 5 test images' in out.splitlines()
  assert 'Embedding normal images' in err  # the saved detector is that of step 2
  product = metrics['maps']['product']
  lines = out.splitlines()
  start = next(i for i, line in enumerate(lines) if line.startswith('| step'))
  assert 'by test labels' not in lines[start]
  table = rows(lines[start : start + 6])
  scores = {3: checkpoint_selection.score(known(0.9)), 4: checkpoint_selection.score(known(0.1))}
  assert [row['step'] for row in metrics['checkpoints']] == [1, 2, 3, 4]
  for row in metrics['checkpoints']:
    step = row['step']
    assert row['score'] == scores.get(step)
    assert ('chosen' in row['marks'], 'final' in row['marks']) == (step == 3, step == 4)
    figures = [f'{row["figures"][metric]:.4f}' for metric in ('image_auroc', 'pixel_auroc')]
    score = f'{scores[step]:.3f}' if step in scores else ''
    assert table[str(step)] == [*figures, score, ', '.join(row['marks'])]
    if step > 1:  # The same encoder.
      assert row['figures'] == pytest.approx(product, abs=1e-6)
  assert (workdir / 'eval/checkpoints.png').read_bytes().startswith(b'\x89PNG')
  # An evaluation of one leaves no picture of several.
  status, out, _, metrics = run(capsys, '--workdir', workdir, '--no-random-encoder')
  assert (status, 'checkpoints' in metrics, '| step' in out) == (0, False, False)
  assert not (workdir / 'eval/checkpoints.png').exists()


@pytest.mark.slow
def test_training_is_compared_with_none_on_synthetic_anomalies(capsys, place, tmp_path):
  config, workdir = f'{place}/tiny.py:{place}/parts', tmp_path / 'run'
  keys = ['--config.data.held_out=0.5', '--config.train.batch_size=4']
  assert main(['train', '--config', config, '--workdir', str(workdir), *keys]) == 0
  line = only(capsys.readouterr().out, 'synthetic anomalies of 2 held-out images: trained image')
  assert 'untrained image AUROC' in line
  status, out, err, metrics = run(capsys, '--workdir', workdir)
  assert status == 0
  # What training has measured is not measured again.
  assert only(out, 'synthetic anomalies') == line
  assert 'Scoring synthetic anomalies' not in err
  assert metrics['training_gain']['images'] == 2
  assert 'data-table="synthetic"' in (workdir / 'eval/report.html').read_text()
  _, out, _, metrics = run(capsys, '--workdir', workdir, '--no-random-encoder')
  assert 'synthetic anomalies' not in out
  assert 'training_gain' not in metrics


def only(text, start):
  """The one line that begins so."""
  (line,) = (line for line in text.splitlines() if line.startswith(start))
  return line


def test_a_smaller_bank_is_measured_beside_the_full_one(capsys, place, first, workdir):
  overrides = ['--config.score.coreset=0.25', '--no-random-encoder']
  status, out, _, metrics = run(capsys, '--workdir', workdir, *overrides)
  assert status == 0
  # A quarter of 4 images' 6 and 63 patches, at two scales.
  assert metrics['timing']['bank_rows'] == 6 + 63
  full = json.loads((place / 'run/eval/metrics.json').read_text())['maps']
  for name, figures in metrics['full_bank']['maps'].items():
    assert figures == pytest.approx(full[name], abs=1e-6)
  assert list(metrics['coreset']) == ['k32', 'k16']
  for name, error in metrics['coreset'].items():
    assert 0 < error['mean'] <= error['max']
    assert f'{name}: with 0.25 of the memory bank the nearest patch is ' in out
  assert any(line.startswith('| full bank product') for line in out.splitlines())


def test_a_bank_on_the_host_gives_the_same(capsys, place, first, workdir, monkeypatch):
  monkeypatch.setattr(bank_building, 'place', lambda rows: memory_bank.on_host(rows, 64))
  status, out, _, metrics = run(capsys, '--workdir', workdir, '--no-random-encoder')
  assert status == 0
  assert 'K=16: memory bank of 252 patches x 8 numbers on the host, ' in out
  for name, figures in json.loads((place / 'run/eval/metrics.json').read_text())['maps'].items():
    assert metrics['maps'][name] == pytest.approx(figures, abs=1e-6)


@pytest.mark.parametrize(
  ('arguments', 'line'),
  [
    (['--config.score.coreset=0.0'], 'config.score.coreset=0.0: must be a share'),
    (
      ['--config.encoder.embed_dim=16'],
      'holds an encoder of another config: config.encoder.embed_dim: 8 -> 16',
    ),
    (['--config', 'default'], 'holds an encoder of another config: config.encoder.depth: 3 -> 8; '),
    (['--config.train.mean=channel'], "config.train.mean: 'image' -> 'channel'"),
    (
      ['--config.encoder.scales=(64,32,16)', '--config.score.strides=(8,8,4)'],
      'another config: config.encoder.scales: (32, 16) -> (64, 32, 16)',
    ),
    (['--config.score.strides=(8,3)'], 'native stride 2: change config.score.strides'),
    (['--config.score.stride=(8,4)'], 'no such key: config.score.stride; did you mean'),
    (['--config.data.root=/nosuch'], '/nosuch: is no folder; set config.data.root'),
    (['--config', 'nosuch'], "no config file 'nosuch'"),
    (['--random=true'], "Unknown command line flag 'random'"),
  ],
)
def test_refused(capsys, workdir, arguments, line):
  status, out, err, metrics = run(capsys, '--workdir', workdir, *arguments)
  assert (status, out, metrics) == (2, '', None)
  [shown] = [text for text in err.splitlines() if text.startswith('error: ')]
  assert line in shown
  assert shown.isprintable()
  assert err.endswith(shown + '\n')


def test_a_workdir_that_does_not_exist(capsys, tmp_path):
  missing = tmp_path / 'missing'
  status, out, err, _ = run(capsys, '--workdir', missing)
  assert (status, out) == (2, '')
  assert err.startswith(f'error: {missing}/config.json: No such file or directory; --workdir must')
  assert err.count('\n') == 1
  assert not missing.exists()


def test_no_test_images(capsys, place, workdir):
  root = f'--config.data.root={place}/untested'
  status, out, err, metrics = run(capsys, '--workdir', workdir, root)
  assert (status, out, metrics) == (2, '', None)
  line = 'error: folder/untested has no test images: put some into test/good and test/<defect>\n'
  assert err.endswith(line)


def test_a_workdir_whose_training_has_not_begun(capsys, workdir):
  shutil.rmtree(workdir / 'checkpoints')
  shutil.rmtree(workdir / 'model')
  status, _, err, _ = run(capsys, '--workdir', workdir)
  assert status == 2
  assert f'error: no checkpoint in {workdir}/checkpoints: train first' in err
