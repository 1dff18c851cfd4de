"""A small evaluation whose page has everything, and the page as its reader finds it."""

import dataclasses
import functools
from html.parser import HTMLParser

import numpy as np
import pytest

from patch_svdd_jax.configs import default
from patch_svdd_jax.data import Split
from patch_svdd_jax.data.report import Case, DataReport, Finding, Group
from patch_svdd_jax.detection.calibration import Threshold
from patch_svdd_jax.detection.inspection import Inspection
from patch_svdd_jax.detection.regions import Region
from patch_svdd_jax.detection.scores import Scores
from patch_svdd_jax.evaluation import metrics
from patch_svdd_jax.evaluation.evaluate import Evaluation
from patch_svdd_jax.reporting import evaluation_files, measured_run, overlays, run_comparison
from patch_svdd_jax.reporting.html import Item, compared_runs, evaluated, pictures, render
from patch_svdd_jax.reporting.html.evaluated import ReportContext
from patch_svdd_jax.reporting.measured_run import ALONE
from patch_svdd_jax.system import files

# Some that a page has to withstand.
NAMES = (
  'test/good/000.png',
  'test/good/001.png',
  'test/good/002.png',
  'test/good/003.png',
  'test/hole/<script>alert(1)</script>.png',
  'test/hole/"onload="alert(1).png',
  'test/hole/&amp;.png',
  'test/hole/10.png',
  'test/hole/9.png',
  "test/thread/'][{{ 7 * 7 }}.png",
  'test/thread/not text \udcff.png',
)
DEFECTS = ('good',) * 4 + ('hole',) * 5 + ('thread',) * 2
# One good image is a false alarm, one hole is missed.
SCORES = (0.1, 0.2, 0.6, 0.3, 0.9, 0.8, 0.7, 0.35, 0.95, 1.5, 0.5)
THRESHOLD = Threshold(0.4, 0.05, ensured=True)
REPORT = DataReport(
  groups=(
    Group('train', 'train/good', 'good', 3, 0, {'PNG 8-bit RGB': 3}, {'64 x 48': 3}, 0),
    Group('test', 'test/<b>', '<b>', 7, 5, {'PNG 8-bit RGB': 7}, {'64 x 48': 6, '9 x 9': 1}, 2),
  ),
  of_files=(Finding('mask_inverted', (Case('test/<b>/0.png'),)),),
  of_folders=(Finding('hidden', (Case('test/<b>', number=4),)),),
)
REGION = Region((2, 3, 10, 4), 30, 0.9)


@pytest.fixture(scope='session')
def split():
  rng = np.random.default_rng(0)
  masks = np.zeros((len(NAMES), 24, 32), bool)
  masks[4:9, 6:12, 8:20] = True
  return Split(
    images=rng.integers(0, 256, (len(NAMES), 24, 32, 3), np.uint8),
    masks=masks,
    has_mask=np.array([True] * 9 + [False] * 2),
    labels=np.array([defect != 'good' for defect in DEFECTS]),
    defects=DEFECTS,
    names=NAMES,
    sizes=np.full((len(NAMES), 2), (48, 64)),
    appearance=np.zeros((len(NAMES), 4), np.float32),
    digests=NAMES,
  )


def measure(split, scores, seed):
  """An evaluation of maps whose product has the scores as its maxima."""
  rng = np.random.default_rng(seed)
  product = 0.5 * rng.random(split.masks.shape) + 0.4 * split.masks
  product *= np.asarray(scores)[:, None, None] / product.max((1, 2), keepdims=True)
  maps = {'k64': rng.random(split.masks.shape, np.float32), 'product': product.astype(np.float32)}
  images = {name: each.max((1, 2)) for name, each in maps.items()}
  figures = {
    name: metrics.evaluate(
      split.labels, split.defects, split.masks, split.has_mask, images[name], maps[name]
    )
    for name in maps
  }
  return Evaluation(
    maps={name: each.overall for name, each in figures.items()},
    per_defect={name: each.per_type for name, each in figures.items()},
    timing={'images_per_s': 3.5, 'bank_rows': 12345.0, 'metrics_seconds': 0.25},
    scores=Scores(maps, images, {}, {}, {}),
    aupimo={name: each.aupimo for name, each in figures.items()},
  )


@pytest.fixture(scope='session')
def evaluation(split):
  return measure(split, SCORES, 0)


@pytest.fixture(scope='session')
def other(split):
  return measure(split, SCORES[::-1], 1)


def inspected(evaluation):
  """What a calibrated detector says of the images; one looks otherwise."""
  scores = evaluation.scores.images['product']
  alarms = scores > THRESHOLD.value
  return Inspection(
    scores=scores,
    maps=evaluation.scores.maps['product'],
    p_values=np.linspace(0.1, 0.9, len(NAMES)),
    alarms=alarms,
    regions=tuple((REGION,) if alarm else () for alarm in alarms),
    warnings=(('brightness 9 is <below>',), *((),) * (len(NAMES) - 1)),
    statistics={},
  )


@pytest.fixture(scope='session')
def found(evaluation):
  return inspected(evaluation)


def history():
  lines = [
    {'step': step, 'loss': 4 / step, 'position_accuracy/k64': step / 100, 'steps_per_s': 9.0}
    for step in range(10, 60, 10)
  ]
  return [*lines, {'step': 50, 'held_out/position_accuracy/k64': 0.25}]


@pytest.fixture(scope='session')
def page(split, evaluation, other, found):
  config = default.get_config()
  config.train.steps = 50
  config.data.root = '</script><script>alert(2)</script>'
  return evaluated.make(
    split,
    evaluation,
    {'random_encoder': other, 'thumbnail': other},
    overlays.colour_limits(evaluation.scores.maps['product']),
    ReportContext(
      title='folder/<b>parts</b>',
      config=config,
      history=history(),
      threshold=THRESHOLD,
      found=found,
      warnings=['It is <i>dark</i>.'],
      data=REPORT,
    ),
  )


@pytest.fixture(scope='session')
def html(page):
  return render(page)


def without_truth(views):
  return [view for view in views() if view.name != pictures.TRUTH]


@pytest.fixture(scope='session')
def untold(page):
  """The page of images of which nothing but scores is known."""
  items = [
    Item(item.name, item.score, views=functools.partial(without_truth, item.views))
    for item in page.items
  ]
  return dataclasses.replace(
    page,
    items=items,
    scores={'images': np.concatenate([*page.scores.values()])},
    threshold=None,
    warnings=(),
    headlines=(),
    tables=(),
    curves=(),
    aupimo=None,
    training=(),
    data=DataReport(),
    timing=(),
    settings=(),
  )


@pytest.fixture(scope='session')
def comparison(split, evaluation, other, tmp_path_factory):
  place, runs = tmp_path_factory.mktemp('compared'), []
  for name, each in {'first': evaluation, '<b>other</b>': other}.items():
    folder = place / name.replace('/', '')
    evaluation_files.write_maps(folder / 'eval' / 'maps.npz', split, each)
    files.write_json(folder / 'eval' / 'metrics.json', evaluation_files.summary(split, each, {}))
    runs.append(measured_run.read(folder, {ALONE: folder}))
  return run_comparison.compare(runs, 100, seed=0)


@pytest.fixture(scope='session')
def compared(comparison):
  return compared_runs.render(comparison)


class Parsed(HTMLParser):
  """The elements of a page, as (tag, attributes), and the text that each starts with."""

  def __init__(self, html):
    super().__init__()
    self.elements = []
    self.texts = []
    self.feed(html)

  def handle_starttag(self, tag, attributes):
    # None: without a value.
    self.elements.append((tag, dict(attributes)))
    self.texts.append('')

  def handle_data(self, data):
    if self.texts:
      self.texts[-1] += data

  def all(self, tag=None, **attributes):
    """(attributes, text) of elements; data_row='x' asks for data-row."""
    wanted = {name.strip('_').replace('_', '-'): value for name, value in attributes.items()}
    return [
      (found, text.strip())
      for (name, found), text in zip(self.elements, self.texts, strict=True)
      if (tag is None or name == tag)
      and all(
        key in found if value is True else found.get(key) == value for key, value in wanted.items()
      )
    ]


@pytest.fixture(scope='session')
def parse():
  return Parsed
