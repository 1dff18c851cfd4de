"""The files of an evaluation, read back as a stranger would read them."""

import dataclasses
import errno
import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from patch_svdd_jax.configs import default
from patch_svdd_jax.data import Split
from patch_svdd_jax.detection.calibration import Threshold
from patch_svdd_jax.detection.inspection import Inspection
from patch_svdd_jax.detection.scores import Scores
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.evaluation import metrics
from patch_svdd_jax.evaluation.evaluate import Evaluation
from patch_svdd_jax.evaluation.training_gain import TrainingGain
from patch_svdd_jax.reporting import checkpoint_table, evaluation_files, overlays
from patch_svdd_jax.reporting.html.evaluated import ReportContext

NAMES = ('test/good/000.png', 'test/hole/000.png', 'test/hole/001.png')


@pytest.fixture
def split():
  rng = np.random.default_rng(0)
  masks = np.zeros((3, 24, 32), bool)
  masks[1, 4:9, 6:12] = True
  return Split(
    images=rng.integers(0, 256, (3, 24, 32, 3), np.uint8),
    masks=masks,
    has_mask=np.array([True, True, False]),
    labels=np.array([False, True, True]),
    defects=('good', 'hole', 'hole'),
    names=NAMES,
    sizes=np.full((3, 2), (24, 32)),
    appearance=np.zeros((3, 4), np.float32),
    digests=NAMES,
  )


def make_evaluation(seed=0):
  rng = np.random.default_rng(seed)
  maps = {name: rng.random((3, 24, 32), np.float32) for name in ('k64', 'k32', 'sum', 'product')}
  figures = dict.fromkeys(metrics.TITLES, 0.75) | {'pixel_auroc': float('nan'), 'aupro_30': 1.0}
  return Evaluation(
    maps={name: dict(figures) for name in maps},
    per_defect={name: {'hole': dict(figures)} for name in maps},
    timing={'images_per_s': 3.5, 'metrics_seconds': 0.25},
    scores=Scores(
      maps, {name: m.max(axis=(1, 2)) for name, m in maps.items()}, {}, {}, {'embed': 0.1}
    ),
    aupimo={name: np.array([np.nan, 0.25, np.nan]) for name in maps},
  )


def first_two(evaluation):
  """The evaluation of its first two images."""
  maps = {name: each[:2] for name, each in evaluation.scores.maps.items()}
  images = {name: each.max(axis=(1, 2)) for name, each in maps.items()}
  aupimo = {name: each[:2] for name, each in evaluation.aupimo.items()}
  return dataclasses.replace(evaluation, scores=Scores(maps, images, {}, {}, {}), aupimo=aupimo)


def write(folder, split, evaluation, others=None, checkpoints=(), **context):
  evaluation_files.write_evaluation(
    folder, split, evaluation, others or {}, ReportContext(**context), checkpoints
  )


def read_json(path):
  def refuse(constant):
    raise AssertionError(f'{constant} is not JSON')

  return json.loads(path.read_text(), parse_constant=refuse)


def test_metrics(split, tmp_path):
  figures = {'image_auroc': 0.75, 'pixel_auroc': float('nan')}
  row = checkpoint_table.CheckpointRow(10, float('-inf'), figures, ('chosen', 'final'))
  others = {'random_encoder': make_evaluation(1), 'thumbnail': make_evaluation(2)}
  evaluation = make_evaluation()
  scores = evaluation.scores.images['product']
  write(tmp_path / 'eval', split, evaluation, others, [row])
  written = read_json(tmp_path / 'eval/metrics.json')
  figures = dict.fromkeys(metrics.TITLES, 0.75) | {'pixel_auroc': None, 'aupro_30': 1.0}
  of_maps = dict.fromkeys(('k64', 'k32', 'sum', 'product'), figures)
  per_defect = {name: {'hole': figures} for name in of_maps}
  assert written == {
    'main_map': 'product',
    'maps': of_maps,
    'per_defect': per_defect,
    'aupimo': {'mean': 0.25, 'std': 0.0, 'quartiles': [0.25, 0.25, 0.25], 'images': 1},
    'images': {
      name: {'defect': defect, 'digest': name, 'score': float(score), 'aupimo': aupimo}
      for name, defect, score, aupimo in zip(
        NAMES, split.defects, scores, (None, 0.25, None), strict=True
      )
    },
    'timing': {'images_per_s': 3.5, 'metrics_seconds': 0.25},
    **{name: {'main_map': 'product', 'maps': of_maps, 'per_defect': per_defect} for name in others},
    'checkpoints': [
      {
        'step': 10,
        'score': None,
        'figures': {'image_auroc': 0.75, 'pixel_auroc': None},
        'marks': ['chosen', 'final'],
      }
    ],
  }
  assert list(written['maps']) == list(of_maps)


def test_beside_nothing(split, tmp_path):
  write(tmp_path, split, make_evaluation())
  assert read_json(tmp_path / 'metrics.json').keys() == {
    'main_map',
    'maps',
    'per_defect',
    'aupimo',
    'images',
    'timing',
  }


def test_maps(split, tmp_path):
  evaluation = make_evaluation()
  write(tmp_path, split, evaluation, {'random_encoder': make_evaluation(1)})
  with np.load(tmp_path / 'maps.npz', allow_pickle=False) as arrays:
    assert arrays['names'].tolist() == list(NAMES)
    assert arrays['defects'].tolist() == ['good', 'hole', 'hole']
    np.testing.assert_array_equal(arrays['labels'], [False, True, True])
    for name, maps in evaluation.scores.maps.items():
      assert arrays[name].dtype == np.float32
      np.testing.assert_array_equal(arrays[name], maps)
      np.testing.assert_array_equal(arrays[f'{name}_score'], maps.max(axis=(1, 2)))
    assert len(arrays) == 3 + 2 * 4


def test_pictures_show_the_main_map_on_one_scale(split, tmp_path, monkeypatch):
  drawn = []

  def remember(draw):
    def remembering(*arguments):
      drawn.append(arguments)
      return draw(*arguments)

    return remembering

  for name in ('write_overlays', 'draw_overview'):
    monkeypatch.setattr(overlays, name, remember(getattr(overlays, name)))
  evaluation = make_evaluation()
  write(tmp_path, split, evaluation)
  for name in (*(f'overlays/{name}' for name in NAMES), 'overview.png'):
    with Image.open(tmp_path / name) as picture:
      picture.load()
      assert min(picture.size) > 24
  product = evaluation.scores.maps['product']
  (_, _, maps, limits), (_, overview_maps, scores, overview_limits) = drawn
  assert maps is overview_maps is product
  assert scores is evaluation.scores.images['product']
  assert limits == overview_limits
  assert np.quantile(product, 0.5) == pytest.approx(limits[0])


def files(folder):
  return sorted(str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file())


def test_another_evaluation_replaces_all_files(split, tmp_path):
  write(tmp_path, split, make_evaluation())
  of_two = first_two(make_evaluation(1))
  write(tmp_path, split.take(np.arange(2)), of_two)
  expected = [
    'maps.npz',
    'metrics.json',
    *(f'overlays/{name}' for name in NAMES[:2]),
    'overview.png',
    'report.html',
  ]
  assert files(tmp_path) == expected
  with np.load(tmp_path / 'maps.npz') as arrays:
    np.testing.assert_array_equal(arrays['k64'], of_two.scores.maps['k64'])


def test_pictures_of_images_that_are_gone_go_through_a_link_too(split, tmp_path):
  elsewhere = tmp_path / 'larger disk'
  elsewhere.mkdir()
  (tmp_path / 'eval').mkdir()
  (tmp_path / 'eval' / 'overlays').symlink_to(elsewhere)
  write(tmp_path / 'eval', split, make_evaluation())
  assert files(elsewhere) == sorted(NAMES)
  write(tmp_path / 'eval', split.take(np.arange(2)), first_two(make_evaluation()))
  assert files(elsewhere) == sorted(NAMES[:2])


def test_pictures_that_cannot_be_removed_are_one_line(split, tmp_path, monkeypatch):
  write(tmp_path, split, make_evaluation())
  before = files(tmp_path / 'overlays')

  def refuse(path, **_):
    if path.suffix == '.png':
      raise PermissionError(errno.EACCES, 'Permission denied', str(path))

  monkeypatch.setattr(pathlib.Path, 'unlink', refuse)
  with pytest.raises(UserError, match=r'cannot write .*: Permission denied'):
    write(tmp_path, split.take(np.arange(2)), make_evaluation())
  assert files(tmp_path / 'overlays') == before


def test_the_report_is_of_the_main_map_with_what_is_given(split, tmp_path):
  evaluation = make_evaluation()
  scores, maps = evaluation.scores.images['product'], evaluation.scores.maps['product']
  found = Inspection(scores, maps, scores, scores > scores.min(), ((),) * 3, ((),) * 3, {})
  write(
    tmp_path,
    split,
    evaluation,
    {'random_encoder': make_evaluation(1)},
    title='parts <1>',
    config=default.get_config(),
    history=[{'step': 10, 'loss': 2.0}, {'step': 20, 'loss': 1.0}],
    threshold=Threshold(float(scores.min()), 0.05, ensured=True),
    found=found,
    warnings=['dark & light'],
  )
  page = (tmp_path / 'report.html').read_text()
  assert all(f'data-score="{float(score)}"' in page for score in scores)
  for text in ('parts &lt;1&gt;', 'dark &amp; light', 'random encoder product'):
    assert text in page
  for attribute in ('verdict="alarm"', 'verdict="pass"', 'chart="training-loss"'):
    assert f'data-{attribute}' in page
  assert 'config.train.steps' in page


def test_what_training_gains_stands_in_the_report_and_among_the_metrics(split, tmp_path):
  systems = {'trained': 0.71, 'untrained': 0.8}
  figures = {name: dict.fromkeys(metrics.TITLES, value) for name, value in systems.items()}
  per_kind = {name: {'stain': each} for name, each in figures.items()}
  gain = TrainingGain(16, figures, per_kind, {'untrained': (-0.09, 0.01)})
  write(tmp_path, split, make_evaluation(), warnings=['dark'], gain=gain)
  written = read_json(tmp_path / 'metrics.json')['training_gain']
  assert written == {
    'images': 16,
    'figures': figures,
    'per_kind': per_kind,
    'gains': {'untrained': [-0.09, 0.01]},
  }
  page = (tmp_path / 'report.html').read_text()
  table = page[page.index('data-table="synthetic"') :].partition('</table>')[0]
  assert page.index('id="warnings"') < page.index('data-table="synthetic"')
  assert page.index('data-table="synthetic"') < page.index('data-table="maps"')
  assert 'data-row="trained"><' in table
  assert 'data-row="untrained" class="compared"' in table
  assert 'data-metric="image_auroc" data-value="0.71"' in table
  assert '16 held-out normal images' in page


@pytest.mark.parametrize('name', ['overlays/', 'overview.png', 'report.html'])
def test_where_metrics_are_the_rest_is_whole(split, tmp_path, monkeypatch, name):
  """Also where an older evaluation was, whose figures must not stand beside newer maps."""
  write(tmp_path, split, make_evaluation())

  def full(path, contents, real=pathlib.Path.write_bytes):
    if str(path.relative_to(tmp_path)).startswith(name):
      raise OSError(28, 'No space left on device')
    return real(path, contents)

  monkeypatch.setattr(pathlib.Path, 'write_bytes', full)
  with pytest.raises(UserError) as caught:
    write(tmp_path, split, make_evaluation(1))
  assert f'no space left on the disk of {tmp_path}' in str(caught.value)
  assert not (tmp_path / 'metrics.json').exists()
  assert not (tmp_path / 'report.html').exists()


def test_what_drawing_cannot_read_is_no_fault_of_the_disk(split, tmp_path, monkeypatch):
  def draw(*_):
    raise FileNotFoundError(2, 'No such file or directory', 'font.ttf')

  monkeypatch.setattr(overlays, 'draw_overview', draw)
  with pytest.raises(FileNotFoundError, match=r'font\.ttf'):
    write(tmp_path, split, make_evaluation())


def test_maps_appear_whole_or_not_at_all(split, tmp_path, monkeypatch):
  def fill_the_disk(file, **_):
    file.write(b'PK')
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(np, 'savez_compressed', fill_the_disk)
  with pytest.raises(UserError, match='no space left on the disk of'):
    write(tmp_path, split, make_evaluation())
  assert files(tmp_path) == []


def test_a_folder_that_cannot_be_made(split, tmp_path):
  (tmp_path / 'file').touch()
  with pytest.raises(UserError, match=r'cannot write .*file/eval: a file has the name of a folder'):
    write(tmp_path / 'file/eval', split, make_evaluation())


def test_what_lies_outside_of_regions_is_told_and_gives_no_colours(split, tmp_path):
  evaluation = make_evaluation()
  regions = np.zeros(split.masks.shape, bool)
  regions[:, 10:, :16] = True  # the defect of the second image lies elsewhere
  maps = evaluation.scores.maps['product']
  maps[~regions] = 0
  write(tmp_path / 'eval', dataclasses.replace(split, regions=regions), evaluation)
  written = read_json(tmp_path / 'eval/metrics.json')['region']
  assert written == {'share_of_pixels': 14 * 16 / (24 * 32), 'defects_outside': [NAMES[1]]}
  low, high = np.quantile(maps[regions], (0.5, 0.999))
  page = (tmp_path / 'eval/report.html').read_text()
  assert f'{low:.4g}' in page
  assert f'{high:.4g}' in page
  assert low > 0.3
