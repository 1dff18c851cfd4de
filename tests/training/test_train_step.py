"""The train step: any number of devices, parts and members is the same training."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.models import mean_image
from patch_svdd_jax.models.encoder import PositionClassifier
from patch_svdd_jax.system.sharding import place
from patch_svdd_jax.training import loop, objective, train_state, train_step, windows
from patch_svdd_jax.training.train_state import Hyperparams
from tests.support.contrast import contrast64
from tests.support.runs import (
  COUNT,
  IMAGES,
  MEAN,
  assert_close,
  assert_same_bits,
  mesh_of,
  moved,
  on_host,
  tiny_config,
)

STEPS = 3
# The order of a sum, after a few steps of Adam.
SAME = {'rtol': 1e-5, 'atol': 1e-6}


def step_config(scales=(8,), steps_per_call=1, **train):
  return tiny_config(scales=scales, steps_per_call=steps_per_call, **train)


class Program:
  """A train step on so many devices, and what it takes besides the state."""

  def __init__(self, devices=1, population=False, slices=1, **train):
    self.config, self.mesh = step_config(**train), mesh_of(devices, slices)
    self.step = train_step.make_train_step(self.config, COUNT, self.mesh, population)
    *self.data, self.hyperparams = loop.place_inputs(self.config, IMAGES, MEAN, self.mesh)

  def run(self, state=None, hyperparams=None, steps=STEPS):
    """The states before each step and after the last, and the metrics of each."""
    state = train_state.init_state(self.config) if state is None else state
    state, hyperparams = place((state, hyperparams or self.hyperparams), self.mesh)
    states, metrics = [on_host(state)], []
    for _ in range(steps):
      state, found = self.step(state, *self.data, hyperparams)
      states.append(on_host(state))
      metrics.append(jax.device_get(found))
    return states, metrics


@functools.cache
def program(devices=1, population=False, slices=1, **train):
  return Program(devices, population, slices, **train)


@functools.cache
def run(devices=1, **train):
  return program(devices, **train).run()


def check_same_run(found, expected, parts=1, learning_rate=1e-4):
  # These are no means over pairs: they depend on the parts of a batch.
  but = [f'{name}/k8' for name in ('embedding_spread', 'effective_rank')] if parts > 1 else []
  (states, metrics), (expected_states, expected_metrics) = found, expected
  for one, other in zip(metrics, expected_metrics, strict=True):
    assert one.keys() == other.keys()
    for name in one.keys() - set(but):
      np.testing.assert_allclose(one[name], other[name], **SAME, err_msg=name)
  # Where Adam divides a gradient of nearly 0 by its size, the last bit is a share of the step.
  atol = 0.02 * learning_rate
  assert_close(states[-1].params, expected_states[-1].params, rtol=0, atol=atol)
  assert states[-1].step == STEPS


# The gradient divided among devices, slices of them, or parts; the images here or dealt out.
@pytest.mark.parametrize(
  ('devices', 'train'),
  [
    (4, {}),
    (4, {'images': 'sharded'}),
    (2, {'images': 'sharded', 'accumulate': 2}),
    (4, {'pairs': 'crops'}),
    (2, {'pairs': 'crops', 'images': 'sharded', 'accumulate': 2}),
    (4, {'contrast': 0.5}),
    (2, {'contrast': 0.5, 'accumulate': 2}),
    (4, {'contrast': 0.5, 'pairs': 'crops'}),
    (4, {'slices': 2, 'images': 'sharded'}),
    (4, {'slices': 2, 'contrast': 0.5, 'pairs': 'crops'}),
  ],
  ids=str,
)
def test_devices_and_parts_change_no_run(devices, train):
  # A pair is contrasted with those of its part.
  shared = ('pairs', 'contrast', 'accumulate') if 'contrast' in train else ('pairs',)
  on_one = run(**{key: value for key, value in train.items() if key in shared})
  check_same_run(run(devices, **train), on_one, train.get('accumulate', 1))


def test_each_slice_has_all_of_the_images():
  """So that no window travels from one to another."""
  images, *_ = program(4, slices=2, images='sharded').data
  assert images.shape[0] == 6
  assert [shard.data.shape[0] for shard in images.addressable_shards] == [3, 3, 3, 3]


def contrast_gradient(devices, config, params):
  """The gradient of the contrastive loss alone, and its metrics, as a step takes it."""
  loss = objective.make_loss(config, COUNT)
  gradient = jax.jit(
    jax.shard_map(
      train_step.make_gradient(config, loss, mesh_of(devices)),
      mesh=mesh_of(devices),
      in_specs=PartitionSpec(),
      out_specs=PartitionSpec(),
      check_vma=False,
    )
  )
  hyperparams = train_state.hyperparams(config, {})
  return jax.device_get(gradient(params, hyperparams.key, IMAGES, MEAN, hyperparams))


@pytest.mark.parametrize('accumulate', [1, 2])
def test_devices_change_no_gradient_of_the_contrastive_loss(accumulate):
  """Neither its direction nor its size, which Adam hides."""
  config = step_config(
    accumulate=accumulate, contrast=1.0, svdd_weight=0.0, position_weight=0.0, pairs='crops'
  )
  params = train_state.init_state(config).params
  expected, metrics = contrast_gradient(1, config, params)
  found, of_two = contrast_gradient(2, config, params)
  assert of_two['loss'] == pytest.approx(metrics['loss'], rel=1e-6)
  for one, other in zip(
    jax.tree.leaves(found['encoder']), jax.tree.leaves(expected['encoder']), strict=True
  ):
    largest = np.abs(other).max()
    assert largest > 1e-4
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-4 * largest)


@pytest.mark.parametrize('train', [{}, {'contrast': 0.5}], ids=str)
def test_what_is_watched_agrees_with_float64_and_so_does_the_loss(train):
  """Of every step, on the pairs that its keys draw."""
  config = step_config(**train)
  embed = jax.jit(objective.embed_patch_pairs(config, COUNT, windows.crop))
  classify = jax.jit(PositionClassifier().apply)
  states, metrics = run(4, **train)
  for step, found in enumerate(metrics):
    key = jax.random.fold_in(jax.random.key(config.seed), step)
    params = states[step].params
    pairs = embed(params['encoder'], jax.random.split(key, 8), IMAGES, MEAN)[8]
    logits = classify({'params': params['classifiers']['k8']}, pairs.first, pairs.second)
    logits, anchor, neighbour = (
      np.asarray(value, np.float64) for value in (logits, pairs.anchor, pairs.neighbour)
    )
    odds = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    eigenvalues = np.linalg.eigvalsh(np.cov(anchor, rowvar=False, bias=True))
    position = -np.log(odds[np.arange(8), np.asarray(pairs.positions)]).mean()
    contrast = {'contrast_loss/k8': contrast64(anchor, neighbour, 0.2)} if train else {}
    neighbour = np.sqrt(((anchor - neighbour) ** 2).sum(axis=1)).mean()
    expected = {
      'loss': position + 0.1 * neighbour + sum(0.5 * value for value in contrast.values()),
      'position_loss/k8': position,
      'position_accuracy/k8': (odds.argmax(axis=1) == np.asarray(pairs.positions)).mean(),
      'neighbour_loss/k8': neighbour,
      'embedding_spread/k8': np.sqrt(eigenvalues.mean()),
      'effective_rank/k8': eigenvalues.sum() ** 2 / (eigenvalues**2).sum(),
      'steps': 1,
      'finite_steps': 1,
    } | contrast
    assert found.keys() == expected.keys()
    for name, value in expected.items():
      assert found[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name


def test_all_but_the_last_classifier_layer_moves():
  states, _ = run()
  changed = moved(states[0].params, states[1].params)
  assert len(changed) == 2 * 2 + 6
  assert [name for name, differs in changed.items() if not differs] == [
    'classifiers/k8/last_kernel'
  ]
  # Adam's first step is as long as the learning rate, along every axis.
  for before, after in zip(
    jax.tree.leaves(states[0].params), jax.tree.leaves(states[1].params), strict=True
  ):
    assert np.abs(after - before).max() < 1.01e-4


def learn_layout(**train):
  """The metrics of three calls of 20 steps on images whose content tells positions."""
  # Red grows downwards and green to the right, in every image.
  size = 40
  ramp = np.linspace(0, 255, size)
  layout = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], 128.0), axis=-1)
  noise = np.random.default_rng(0).normal(0, 5, (3, size, size, 3))
  images = np.clip(layout + noise, 0, 255).astype(np.uint8)
  settings = {'steps': 60, 'steps_per_call': 20, 'learning_rate': 3e-3, 'position_pairs': 'valid'}
  config = tiny_config(**settings | train)
  train = train_step.make_train_step(config, len(images), mesh_of(1))
  mean = mean_image.training_mean(images, 'channel')
  given = loop.place_inputs(config, images, mean, mesh_of(1))
  state, metrics = train_state.init_state(config), []
  for _ in range(3):
    state, found = train(state, *given)
    metrics.append(jax.device_get(found))
  return metrics


def test_positions_are_learned_where_content_tells_them():
  first, _, last = learn_layout(svdd_weight=0.01)
  for scale in ('k16', 'k8'):
    # By chance 1/8.
    assert last[f'position_accuracy/{scale}'] > 0.7
    assert last[f'position_loss/{scale}'] < 0.5 * first[f'position_loss/{scale}']


def test_neighbours_are_recognised_among_others_where_that_is_trained():
  first, _, last = learn_layout(contrast=1.0, svdd_weight=0.0, position_weight=0.0)
  for scale in ('k16', 'k8'):
    # By chance log 8 = 2.08.
    assert last[f'contrast_loss/{scale}'] < 0.8 * first[f'contrast_loss/{scale}']
    assert last[f'effective_rank/{scale}'] > first[f'effective_rank/{scale}']


def test_a_run_repeats_bit_for_bit_and_another_seed_draws_other_pairs():
  for one, other in zip(program(4).run(), run(4), strict=True):
    assert_same_bits(one, other)
  # From the same initial state.
  hyperparams = train_state.hyperparams(step_config(seed=1), {})
  states, metrics = program(4).run(hyperparams=hyperparams, steps=1)
  changed = moved(states[1].params, run(4)[0][1].params)
  assert [name for name, differs in changed.items() if not differs] == [
    'classifiers/k8/last_kernel'
  ]
  assert metrics[0]['loss'] != run(4)[1][0]['loss']


def test_the_state_is_donated():
  of_four = program(4)
  before = place(train_state.init_state(of_four.config), of_four.mesh)
  after, _ = of_four.step(before, *of_four.data, of_four.hyperparams)
  assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before))
  assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(after))
  assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(after))


def test_a_step_that_is_not_finite_does_nothing():
  states, metrics = program(4).run(
    hyperparams=all_hyperparams()[1]._replace(svdd_weight=jnp.float32(np.nan))
  )
  for state in states[1:]:
    assert_same_bits(state, states[0])
  for found in metrics:
    assert (found['steps'], found['finite_steps'], found['loss']) == (1, 0, 0)


# Several runs in one program.

MEMBERS = ((0, 0.1, 1e-4), (5, 1.0, 1e-3), (2, 0.01, 3e-4))  # seed, lambda, learning rate


def all_hyperparams(members=MEMBERS):
  return [
    Hyperparams(jax.random.key(seed), jnp.float32(svdd_weight), jnp.float32(learning_rate), {})
    for seed, svdd_weight, learning_rate in members
  ]


def stacked(trees):
  return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def member(result, index):
  """The states and the metrics of one member."""
  return jax.tree.map(lambda leaf: leaf[index], result)


@functools.cache
def initial(seed):
  # On the host, as the step donates what lies on a device.
  return on_host(train_state.init_state(step_config(seed=seed)))


def run_population(members=MEMBERS, **train):
  states = stacked([initial(seed) for seed, _, _ in members])
  return program(4, population=True, **train).run(states, stacked(all_hyperparams(members)))


@pytest.mark.parametrize('train', [{}, {'contrast': 0.5}], ids=str)
def test_a_population_equals_its_members_trained_one_by_one(train):
  together = run_population(**train)
  for index, (given, hyperparams) in enumerate(zip(MEMBERS, all_hyperparams(), strict=True)):
    alone = program(4, **train).run(initial(given[0]), hyperparams)
    check_same_run(member(together, index), alone, learning_rate=given[2])
    assert all(found['finite_steps'] == 1 for found in alone[1])


def test_a_bad_member_stops_no_other():
  together = run_population()
  with_bad = run_population((MEMBERS[0], (5, np.nan, 1e-3), MEMBERS[2]))
  for index in (0, 2):
    for one, other in zip(member(with_bad, index), member(together, index), strict=True):
      assert_same_bits(one, other)
  states, metrics = member(with_bad, 1)
  assert_same_bits(states[-1], states[0])
  assert [int(found['finite_steps']) for found in metrics] == [0] * STEPS


# What is refused.


@pytest.mark.parametrize(
  ('devices', 'train', 'words'),
  [
    (3, {}, r'batch_size=8 cannot be divided among 3 devices x .*accumulate=1: .* multiple of 3'),
    (4, {'accumulate': 4}, r'batch_size=8 .* 4 devices x .*accumulate=4: give a multiple of 16'),
    (8, {'pairs': 'crops'}, r'config\.train\.crops=4 cannot be divided among 8 devices'),
  ],
  ids=str,
)
def test_a_batch_that_cannot_be_divided_is_refused(devices, train, words):
  with pytest.raises(UserError, match=words):
    train_step.check(step_config(**train), devices)


def test_the_step_itself_refuses_it_too():
  with pytest.raises(UserError, match='among 4 devices'):
    train_step.make_train_step(step_config(batch_size=6), COUNT, mesh_of(4))
