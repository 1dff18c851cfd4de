"""What a config may hold: every wrong value by name, all at once, in one line."""

import pytest

from patch_svdd_jax import config_rules, configuration
from patch_svdd_jax.configs import default
from patch_svdd_jax.data import images
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.models import encoder
from patch_svdd_jax.training import objective, optimizer, windows

NAN, INFINITY = float('nan'), float('inf')

# A small encoder of native stride 2, on images that hold its pairs.
SMALL = {
  'data.image_size': (40, 48),
  'encoder.receptive_field': 16,
  'encoder.depth': 3,
  'encoder.scales': (16,),
  'score.strides': (8,),
  'train.batch_size': 16,
  'train.crops': 4,
  'train.crop_size': 31,
}
CROPS = {'train.pairs': 'crops'}
VALID = {'train.position_pairs': 'valid'}
CENTRE = {'score.compare': 'centre'}
THUMBNAIL = {'score.features': ('thumbnail',)}
# Points are 8 pixels apart; a neighbour of a 16-pixel patch lies 12 to 15 away.
SPARSE = CROPS | {'encoder.depth': 4, 'encoder.strided_layers': 3, 'encoder.strided_kernel': 2}


def small(**changes):
  config = default.get_config()
  config.update_from_flattened_dict(SMALL | changes)
  return config


def refusal(config, **options):
  with pytest.raises(UserError) as caught:
    config_rules.validate(config, **options)
  line = str(caught.value)
  assert line.isprintable()
  return line


def default_of(key):
  return dict(configuration.flatten(default.get_config()))[f'config.{key}']


@pytest.mark.parametrize('key', default.CHOICES)
def test_an_unknown_choice_is_refused(key):
  choices = default.CHOICES[key]
  config = default.get_config()
  words = ' or '.join(map(repr, choices))
  is_tuple = isinstance(default_of(key), tuple)
  value = (choices[-1], 'nonsense') if is_tuple else 'nonsense'
  config.update_from_flattened_dict({key: value})
  assert refusal(config) == f'config.{key}={value!r}: must be {words}'


def test_what_can_be_chosen_is_what_there_is():
  known = {
    'data.resize': images.FILTERS,
    'encoder.init': encoder.INITIALIZERS,
    'train.pairs': objective.PAIRS,
    'train.images': windows.PLACEMENTS,
    'train.compute': objective.COMPUTE,
    'train.optimizer': optimizer.OPTIMIZERS,
    'train.learning_rate_scaling': optimizer.SCALINGS,
  }
  for key, table in known.items():
    assert set(default.CHOICES[key]) == set(table)
  for key, choices in default.CHOICES.items():
    value = default_of(key)
    assert set(value if isinstance(value, tuple) else (value,)) <= set(choices)


OUTSIDE = {
  'at least 0': [-1],
  'at least 1': [0, -4],
  'at least 1, at most 1024': [0, 1025],
  'at least 1, at most 1048576': [0, -4, 2**20 + 1],
  'at least 2': [1],
  'above 0, at most 1024': [0.0, -0.5, 1025.0, NAN, INFINITY],
  'above 0': [0.0, -0.5, NAN, INFINITY],
  'a share, 0 to below 1': [-0.1, 1.0, 1.5, NAN],
  'a share, above 0, at most 1': [0.0, -0.5, 1.5, NAN],
}


@pytest.mark.parametrize('words', default.RANGES)
def test_values_out_of_range_are_refused(words):
  for key in default.RANGES[words][1]:
    for value in OUTSIDE[words]:
      config = default.get_config()
      like = default.FILLED.get(key, default_of(key))
      value = (*like[1:], value) if isinstance(like, tuple) else type(like)(value)
      config.update_from_flattened_dict({key: value})
      assert refusal(config) == f'config.{key}={value!r}: must be {words}'


def test_numbers_that_are_none_or_endless_are_refused():
  for key in ('train.learning_rate', 'train.svdd_weight', 'train.augment.gain'):
    for value in (NAN, INFINITY):
      config = default.get_config()
      config.update_from_flattened_dict({key: value})
      assert refusal(config) == f'config.{key}={value}: must be at least 0'


@pytest.mark.parametrize(
  ('changes', 'expected'),
  [
    ({'data.image_size': (40,)}, 'config.data.image_size=(40,): must be (height, width) in whole'),
    ({'data.image_size': (40, 48, 3)}, 'config.data.image_size=(40, 48, 3): must be (height, '),
    ({'data.image_size': (40, -1)}, 'config.data.image_size=(40, -1): must be (height, width)'),
    ({'encoder.depth': 1}, 'config.encoder.depth=1 cannot map 16x16 pixels to 1x1: depths from 2'),
    ({'encoder.scales': (24,)}, 'config.encoder.scales=(24,): give different values out of 16, '),
    ({'score.strides': (8, 4)}, 'config.score.strides=(8, 4): give one for each of config.encoder'),
    ({'score.strides': (3,)}, "a stride of 3 at K=16 is not a multiple of the encoder's native"),
    ({'score.tile': 9}, 'config.score.tile=9: give at least 16 pixels for patches of 16 at'),
    ({'score.tile': -5}, 'config.score.tile=-5: give at least 16 pixels'),
    (CENTRE | {'score.neighbours': 2}, "config.score.compare='centre' has one row: leave config."),
    (CENTRE | {'score.coreset': 0.5}, "config.score.compare='centre' has one row: leave config."),
    (CENTRE | {'score.outliers': 0.1}, "config.score.compare='centre' has one row: leave config."),
    (
      {'score.features': ('hidden', 'hidden')},
      "config.score.features=('hidden', 'hidden'): give each once",
    ),
    (
      {'score.features': ('hidden',), 'encoder.depth': 2},
      "config.score.features=('hidden',): 'hidden' is of the second and third convolution, where ",
    ),
    (
      THUMBNAIL | {'encoder.receptive_field': 18, 'encoder.scales': (18,)},
      "config.score.features=('thumbnail',): the side of a 'thumbnail' has 4 cells, by which K=18 ",
    ),
    (
      {'score.scale_weights': (1.0, 0.5)},
      'config.score.scale_weights=(1.0, 0.5): give one for each of config.encoder.scales=(16,), ',
    ),
    ({'score.scale_weights': (0.0,)}, 'config.score.scale_weights=(0.0,): give one for each of '),
    (
      {'train.warmup_steps': 11, 'train.steps': 10},
      'config.train.warmup_steps=11: must be at most config.train.steps=10',
    ),
    (CROPS | {'train.crop_size': 30}, 'config.train.crop_size=30: pairs of 16-pixel patches need'),
    (CROPS | {'train.crops': 3}, 'config.train.crops=3: must divide config.train.batch_size=16, '),
    (SPARSE, "config.train.pairs='crops': neighbours of 16-pixel patches lie 12 to 15 pixels away"),
    (
      CROPS | {'train.crop_size': 40},
      (
        'images of 40x48 pixels are too small for two views of a crop (config.train.crop_size=40), '
        'which need 41: enlarge config.data.image_size or make crops smaller'
      ),
    ),
    (
      {'data.image_size': (48, 16)},
      "images of 48x16 pixels are too small for 'clip' pairs of 16-pixel patches, which need 17: ",
    ),
    (
      VALID | {'data.image_size': (30, 0)},
      "images of 30x0 pixels are too small for 'valid' pairs of 16-pixel patches, which need 31: ",
    ),
    (
      {'train.batch_size': 6},
      'config.train.batch_size=6 cannot be divided among 4 devices x config.train.accumulate=1: ',
    ),
  ],
)
def test_what_does_not_fit_together_is_refused(changes, expected):
  line = refusal(small(**changes))
  assert line.startswith(expected)
  assert '; ' not in line


def test_a_pair_alone_has_nothing_to_be_contrasted_with():
  changes = {'train.contrast': 0.5, 'train.batch_size': 8, 'train.accumulate': 8}
  # Training on several devices needs more pairs in any case.
  assert refusal(small(**changes), training=False) == (
    'config.train.contrast=0.5: compares pairs within each part of a batch: '
    'config.train.batch_size=8 must be at least twice config.train.accumulate=8'
  )
  config_rules.validate(small(**changes | {'train.accumulate': 4}), training=False)
  config_rules.validate(small(**changes | {'train.contrast': 0.0}), training=False)


@pytest.mark.parametrize(
  'changes',
  [
    {},
    CROPS,
    CROPS | VALID | {'data.image_size': (32, 0)},
    {'data.image_size': (17, 17)},
    VALID | {'data.image_size': (31, 31)},
    {'data.image_size': (0, 0)},
    {'train.warmup_steps': 10, 'train.steps': 10},
    {'train.crop_size': 1, 'train.crops': 3},  # nobody asks where pairs are patches
    {'score.tile': 0},
    {'score.tile': 16},
    {'encoder.scales': (16, 32), 'score.strides': (8, 4)},
    CENTRE,
    CENTRE | {'score.features': ('hidden',), 'score.whiten': True},
    THUMBNAIL | {'encoder.depth': 2},  # which has no hidden layer that counts
    {'encoder.receptive_field': 18, 'encoder.scales': (18,)},
    {'score.scale_weights': (0.5,)},
  ],
  ids=str,
)
def test_what_fits_together(changes):
  config_rules.validate(small(**changes))


def test_without_training_neither_images_nor_devices_need_to_suit_it():
  for changes in ({'data.image_size': (16, 16)}, {'train.batch_size': 6}):
    config = small(**changes)
    config_rules.validate(config, training=False)
    refusal(config)


def test_all_mistakes_are_named_at_once():
  line = refusal(
    small(
      **{
        'data.resize': 'area',
        'train.steps': 0,
        'train.warmup_steps': 5,  # not blamed: it is steps that is wrong
        'train.pairs': 'crops',
        'train.crops': 3,
        'encoder.depth': 1,
        'score.strides': (8, 3),  # may be right for a right encoder
        'score.coreset': 2.0,
        'data.image_size': (9,),
      }
    )
  )
  assert [part.partition('=')[0] for part in line.split('; ')] == [
    'config.data.resize',
    'config.train.steps',
    'config.score.coreset',
    'config.data.image_size',
    'config.encoder.depth',
    'config.train.crops',
  ]


def test_keys_and_types_are_those_of_the_defaults():
  config = default.get_config().unlock()
  del config.train.steps
  config.data.colour = 'red'
  with config.ignore_type():
    config.seed = 'many'
  line = refusal(config)
  assert line.startswith('config: ')
  for part in ('no such key: config.data.colour', 'lacks config.train.steps', 'config.seed='):
    assert part in line


def test_a_config_by_name():
  config = config_rules.read('laptop:grass', ['--config.train.steps=70'])
  assert (config.data.category, config.train.steps) == ('grass', 70)
  with pytest.raises(UserError, match=r'^config\.train\.steps=-7: must be at least 1$'):
    config_rules.read('laptop:grass', ['--config.train.steps=-7', '--config.train.warmup_steps=0'])


# Values that are none of anybody's; where a key takes one, it says what it means.
EXTREME = {
  int: [0, -1, 10**9, 2**31, 2**63, 10**30],
  float: [0.0, -1.0, 1e9, NAN, INFINITY, -INFINITY],
}
MEANT = {
  (int, 0): """data.normal_images data.image_size encoder.strided_layers train.warmup_steps
    score.tile calibration.images seed""",
  (int, -1): 'seed',
  (int, 10**9): """data.normal_images train.steps train.steps_per_call checkpoint. score.tile
    calibration. baseline.fitted_patches baseline.steps seed""",
  (float, 0.0): """train.contrast train.svdd_weight train.position_weight train.learning_rate
    train.clip_norm train.augment. data.held_out data.contamination score.outliers
    baseline.gamma data.cache_gib""",
  # Finite: a loss that is not is found where it arises.
  (float, 1e9): """train.contrast train.contrast_temperature train.svdd_weight
    train.position_weight train.learning_rate train.clip_norm train.augment. score.scale_weights
    baseline.gamma baseline.learning_rate data.cache_gib data.value_range""",
}


def numeric_keys():
  for key, value in configuration.flatten(small()):
    key = key.removeprefix('config.')
    like = default.FILLED.get(key, value)
    first = like[0] if isinstance(like, tuple) else like
    if type(first) in EXTREME:
      yield key, like, type(first)


@pytest.mark.parametrize(('key', 'like', 'kind'), list(numeric_keys()), ids=str)
def test_extreme_numbers_are_refused_by_name_or_mean_something(key, like, kind):
  for extreme in EXTREME[kind]:
    value = (*like[1:], extreme) if isinstance(like, tuple) else extreme
    meant = MEANT.get((kind, extreme), '').split()
    if key in meant or f'{key.rpartition(".")[0]}.' in meant:
      config_rules.validate(small(**{key: value}))
    else:
      assert f'config.{key}=' in refusal(small(**{key: value}))
  if isinstance(like, tuple) and key not in default.FILLED:
    assert f'config.{key}=()' in refusal(small(**{key: ()}))


def test_saved_configs_are_checked_too():
  config = small()
  config.score.batch_size = 0
  with pytest.raises(UserError, match=r'^here is damaged: config\.score\.batch_size=0: must be at'):
    configuration.from_json(configuration.to_json(config), 'here')
