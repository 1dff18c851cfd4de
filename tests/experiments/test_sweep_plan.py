"""Which groups and members a sweep has."""

import pathlib

import pytest

from patch_svdd_jax import configuration
from patch_svdd_jax.configs import default, laptop
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.experiments import sweep_plan

NOTHING = {'seeds': 1, 'svdd_weights': None, 'learning_rates': None, 'vary': []}


def plan(config, ablation, **given):
  return sweep_plan.plan(config, pathlib.Path('runs'), ablation=ablation, **(NOTHING | given))


def test_several_lists_give_all_combinations():
  found = sweep_plan.variations(
    default.get_config(),
    ['encoder.scales=(64,32),(32,)', 'config.train.decay=none,cosine', 'encoder.depth=8'],
  )
  assert list(found.values()) == [
    {'config.encoder.scales': scales, 'config.train.decay': decay, 'config.encoder.depth': 8}
    for scales in ((64, 32), (32,))
    for decay in ('none', 'cosine')
  ]
  assert next(iter(found)) == 'encoder.scales=-64-32,train.decay=none,encoder.depth=8'


@pytest.mark.parametrize('base', ['default', 'laptop'])
@pytest.mark.parametrize('name', configuration.packaged('ablations'))
def test_every_ablation_can_be_trained(name, base):
  groups = plan(configuration.read(base), name, seeds=2)
  assert len(groups) > 1
  configs = [configuration.to_json(group.config) for group in groups]
  # Rows differ from one another, and at most one is what the config says already.
  assert len(set(configs)) == len(configs)
  for group in groups:
    assert [member.config.seed for member in group.members] == [0, 1]
    for key, value in group.varied.items():
      assert dict(configuration.flatten(group.members[0].config))[key] == value


def test_depths_are_those_that_fit():
  at_16, at_32 = (plan(config, 'depth') for config in (laptop.get_config(), default.get_config()))
  assert [group.name for group in at_16] == ['depth=4', 'depth=6']
  assert [group.config.encoder.depth for group in at_32] == [2, 4, 6, 8, 10, 12, 15]


def test_losses_are_the_paper_s():
  config = laptop.get_config()
  config.train.contrast = 1.0
  weights = {
    group.name: (
      group.config.train.svdd,
      group.config.train.svdd_weight,
      group.config.train.position_weight,
      group.config.train.contrast,
    )
    for group in plan(config, 'losses')
  }
  assert weights == {
    'L_SVDD': ('centre', 1, 0, 0),
    'L_SVDD_near': ('neighbour', 1, 0, 0),
    'L_SSL': ('neighbour', 0, 1, 0),
    'L_SVDD_near+L_SSL': ('neighbour', 1e-3, 1, 0),
  }


ROWS = 'def get_rows(config):\n  return {rows}\n'


@pytest.mark.parametrize(
  ('rows', 'words'),
  [
    ("{'deep': {'encoder.deph': 3}}", r"row 'deep': no such key: config.encoder.deph; did you"),
    ("{'deep': {'encoder.depth': 'three'}}", r"row 'deep': config.encoder.depth='three': must be"),
    ("{'a/b': {'encoder.depth': 3}}", r"row 'a/b': give a name of letters, digits"),
    ("{'deep': {'encoder.depth': 99}}", r'config.encoder.depth=99 cannot map'),
    ('1 / 0', r':2: ZeroDivisionError'),
  ],
)
def test_a_bad_row_is_one_line(tmp_path, rows, words):
  file = tmp_path / 'mine.py'
  file.write_text(ROWS.format(rows=rows))
  with pytest.raises(UserError, match=words):
    plan(default.get_config(), str(file))


def test_an_unknown_ablation_names_those_there_are():
  with pytest.raises(UserError, match=r"no config file 'dept': give a path, or one of .*, depth, "):
    plan(default.get_config(), 'dept')


def test_an_ablation_lists_all_that_varies():
  with pytest.raises(UserError, match='--ablation depth lists what varies; leave one out'):
    plan(default.get_config(), 'depth', vary=['encoder.depth=3'])
