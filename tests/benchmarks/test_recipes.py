"""A search over recipes from end to end on few small images; what is refused; what is resumed."""

import csv
import json

import pytest

from benchmarks import recipe_list, recipe_plan, recipes
from patch_svdd_jax import configuration
from patch_svdd_jax.configs import laptop
from tests.support import categories

RECIPES = """
from benchmarks.recipe_plan import Recipe

def get_recipes(config):
  near, far = {'score.neighbours': 1}, {'score.neighbours': 3}
  loss = {'train.svdd_weight': 0.1}
  return {
    'untrained': Recipe({}, {'near': near}, trained=False),
    'short': Recipe(loss, {'near': near, 'far': far}),
    'long': Recipe(loss | {'train.steps': 2 * config.train.steps}, {'near': near}),
  }
"""
SMALL = (
  '--config.data.image_size=(32,40)',
  '--config.encoder.receptive_field=8',
  '--config.encoder.scales=(16,8)',
  '--config.encoder.depth=2',
  '--config.encoder.width=0.25',
  '--config.encoder.embed_dim=8',
  '--config.train.steps=4',
  '--config.train.steps_per_call=2',
  '--config.train.warmup_steps=0',
  '--config.train.pairs=patches',
  '--config.train.batch_size=8',
  '--config.checkpoint.every=2',
  '--config.score.strides=(16,8)',
  '--config.score.features=embedding',
  '--config.score.whiten=false',
)
SETS = ('tiles', 'screws')
ROWS = ('local_contrast', 'raw_patch', 'raw_patch_whitened')
ENCODED = ('untrained/near', 'short/near', 'short/far', 'long/near')


def run(capsys, *arguments):
  """(status, standard output, standard error)."""
  try:
    status = recipes.main([*map(str, arguments)])
  except SystemExit as ended:
    status = ended.code
  shown = capsys.readouterr()
  return status, shown.out, shown.err


@pytest.fixture(scope='module')
def place(tmp_path_factory):
  """A folder with data and recipes, which all tests share."""
  folder = tmp_path_factory.mktemp('recipes')
  for seed, name in enumerate(SETS):
    categories.write(folder / name, seed)
  (folder / 'list.py').write_text(RECIPES)
  return folder


@pytest.fixture
def search(place, capsys):
  """Runs the benchmark on two folders."""
  added = [f'{name}=folder:{place / name}' for name in SETS]

  def start(*arguments):
    return run(
      capsys,
      *('--workdir', place / 'runs', '--recipes', place / 'list.py', '--seeds', 0),
      *('--set', added[0], '--set', added[1], '--sets', *SETS),
      *(*SMALL, f'--config.data.prepared={place / "prepared"}', *arguments),
    )

  return start


def record(place):
  return json.loads((place / 'runs/recipes.json').read_text())


@pytest.mark.slow
def test_all_is_measured_and_the_same_command_goes_on(place, search):
  status, out, err = search('--only', 'short/near')
  assert status == 0, err
  assert list(record(place)['runs']) == ['tiles/short/near/seed=0', 'screws/short/near/seed=0']
  first = record(place)['runs']['tiles/short/near/seed=0']
  steps = (place / 'runs/tiles/short/seed=0/metrics.jsonl').read_text()

  status, out, err = search()
  assert status == 0, err
  assert '1 of 12: tiles/local_contrast/seed=0' in err
  runs = record(place)['runs']
  names = {f'{category}/{row}/seed=0' for category in SETS for row in ROWS + ENCODED}
  assert set(runs) == names
  assert runs['tiles/short/near/seed=0'] == first
  # Another scoring trains nothing anew.
  assert (place / 'runs/tiles/short/seed=0/metrics.jsonl').read_text() == steps

  trained = runs['tiles/long/near/seed=0']
  assert trained['maps'].keys() == {'k16', 'k8', 'sum', 'product'}
  assert {'image_auroc', 'aupro_5', 'contrast_auroc'} <= trained['maps']['product'].keys()
  assert trained['criteria'].keys() == {
    *('checkpoint rule', 'held-out distance', 'held-out tail', 'separation'),
    *(f'separation, {each}' for each in ('image AUROC', 'pixel AUROC', 'AU-PRO .05')),
  }
  assert trained['costs'].keys() == {
    *('images_per_s', 'fit_s', 'image_gflop', 'training_s', 'training_tflop'),
  }
  assert runs['tiles/untrained/near/seed=0']['criteria'].keys() == trained['criteria'].keys()
  assert runs['screws/local_contrast/seed=0']['maps'].keys() == {'contrast'}

  status, again, err = search()
  assert (status, again, err) == (0, out, '')
  assert out.startswith((place / 'runs/recipes.md').read_text())
  assert 'chosen: ' in out
  with (place / 'runs/recipes.csv').open() as file:
    rows = list(csv.DictReader(file))
  assert len(rows) == 2 * (len(ROWS) + 4 * len(ENCODED))
  assert (
    float(rows[0]['pixel_auroc']) == runs['tiles/short/near/seed=0']['maps']['k16']['pixel_auroc']
  )


@pytest.mark.slow
def test_every_checkpoint_is_measured_if_asked_for(place, search):
  status, _, err = search('--only', 'long', '--sets', 'tiles', '--every-checkpoint')
  assert status == 0, err
  entry = record(place)['runs']['tiles/long/near/seed=0']
  assert len(entry['checkpoints']) == 2  # of three
  for each in entry['checkpoints'].values():
    assert each['maps'].keys() == entry['maps'].keys()
    assert each['criteria'].keys() == entry['criteria'].keys()


def test_what_fails_does_not_lose_the_others_and_is_tried_again(place, search, monkeypatch):
  def broken(config, images):
    raise recipes.UserError('no room')

  arguments = '--workdir', place / 'failing', '--only', 'raw_patch*'
  with monkeypatch.context() as patched:
    patched.setitem(recipes.recipe_baselines.FITTED, 'raw_patch', broken)
    status, out, _ = search(*arguments)
  assert status == 1
  assert 'screws/raw_patch/seed=0 failed: no room' in out
  assert '| raw_patch_whitened |' in out
  status, out, err = search(*arguments)
  assert status == 0
  assert 'failed' not in out
  assert '2 of 2: screws/raw_patch/seed=0' in err


@pytest.mark.slow
def test_other_values_under_an_old_name_are_refused(place, search):
  (place / 'other.py').write_text(RECIPES.replace("'score.neighbours': 3", "'score.neighbours': 2"))
  status, _, err = search('--recipes', place / 'other.py')
  assert status == 2
  assert 'error: tiles/short/far/seed=0 was measured with' in err
  status, _, err = search('--config.train.steps=6')
  assert status == 2
  assert 'config.train.steps: 4 -> 6' in err


@pytest.mark.parametrize(
  ('arguments', 'line'),
  [
    (['--set', 'parts'], '--set parts: give NAME=ARGUMENT'),
    (['--set', '../up=brick'], '--set ../up=brick: give NAME=ARGUMENT'),
    (['--sets', 'wood'], '--sets wood: give some of brick, grass, gravel'),
    (['--only', 'brick'], '--only brick: matches no row'),
    (['--recipes', 'nowhere.py'], 'nowhere.py'),
    (['--config.nonsense=1'], 'no such key: config.nonsense'),
  ],
)
def test_bad_options_are_refused(capsys, tmp_path, arguments, line):
  status, out, err = run(capsys, '--workdir', tmp_path / 'runs', *arguments)
  assert (status, out) == (2, '')
  assert line in err.splitlines()[-1]
  assert not (tmp_path / 'runs').exists()


@pytest.mark.parametrize(
  ('recipe', 'line'),
  [
    ("Recipe({'train.nonsense': 1}, {})", 'no such key: config.train.nonsense'),
    ("Recipe({}, {'a/b': {}})", "'a/b': give a name"),
    ("Recipe({}, {'raw_patch': {}})", "'raw_patch': give a name"),
  ],
)
def test_bad_recipes_are_refused(tmp_path, recipe, line):
  file = tmp_path / 'list.py'
  file.write_text(
    'from benchmarks.recipe_plan import Recipe\n'
    f"def get_recipes(config):\n  return {{'mine': {recipe}}}\n"
  )
  with pytest.raises(recipes.UserError) as caught:
    recipe_plan.read_recipes(file, laptop.get_config())
  assert line in str(caught.value)


def test_sets_share_all_but_their_data():
  config = laptop.get_config('grass')
  found = recipe_plan.sets(config, ['screw=mvtec:screw@/data/mvtec'], ['screw', 'brick'])
  assert list(found) == ['screw', 'brick']
  screw = found['screw'].data
  assert (screw.name, screw.category, screw.root) == ('mvtec', 'screw', '/data/mvtec')
  assert (found['brick'].data.name, found['brick'].data.category) == ('textures', 'brick')
  for each in found.values():
    assert each.train.to_dict() == config.train.to_dict()
    assert each.data.image_size == config.data.image_size


def test_the_recipes_that_are_searched_can_be_run(tmp_path):
  config = laptop.get_config()
  found = recipe_plan.read_recipes(recipes.RECIPES, config)
  configs = recipe_plan.sets(config, [], ['brick'])
  planned = recipe_plan.plan(configs, found, tmp_path, seeds=[0, 1], only=None)
  assert len({run.name for run in planned}) == len(planned)
  steps = {run.row.partition('/')[0]: run.config.train.steps for run in planned}
  assert steps['default-x3.3'] == 10 * steps['default-third'] == 10 * config.train.steps // 3
  only = recipe_plan.plan(configs, found, tmp_path, seeds=[3], only=['thumbnail', '*-x3.3/hidden'])
  assert {run.row.partition('/')[2] for run in only} == {'whitened', 'hidden'}
  assert all(run.config.seed == 3 for run in only)


def test_every_recipe_states_all_that_any_varies():
  found = recipe_list.get_recipes(laptop.get_config())
  for recipe in found.values():
    assert recipe.training.keys() >= recipe_list.LOSSES.keys()
    for scoring in recipe.scorings.values():
      assert scoring.keys() == recipe_list.EMBEDDING.keys()


def test_help(capsys):
  status, shown, _ = run(capsys, '--help')
  assert status == 0
  for option in ('config', 'workdir', 'set', 'sets', 'seeds', 'only', 'every-checkpoint'):
    assert f'--{option} ' in shown or f'--{option}\n' in shown


def test_the_default_recipe_is_that_of_laptop():
  config = laptop.get_config()
  recipe = recipe_list.get_recipes(config)['default']
  values = {**recipe.training, **recipe.scorings['all']}
  for key, value in configuration.flatten(config):
    assert values.get(key.removeprefix('config.'), value) == value
