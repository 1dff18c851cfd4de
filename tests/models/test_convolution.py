"""The convolution and both its gradients against sums over output pixels in float64."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import PartitionSpec
from scipy import signal

from patch_svdd_jax.models import convolution
from patch_svdd_jax.models.convolution import valid_conv
from patch_svdd_jax.models.embedding import DEVICES, local_mesh

# LLVM's optimisations take longer than what they make faster here.
jit = functools.partial(jax.jit, compiler_options={'xla_backend_optimization_level': 0})

# (height, width), kernel, stride, dilation; with and without pixels past the last window
CASES = [
  ((9, 12), kernel, stride, dilation)
  for kernel, stride, dilation in itertools.product((1, 2, 3), (1, 2, 3), (1, 2))
] + [((8, 8), 8, 1, 1), ((11, 6), 3, 5, 1), ((12, 10), 9, 1, 1), ((13, 11), 4, 4, 2)]


def inputs(size, kernel, seed=0):
  rng = np.random.default_rng(seed)
  x = rng.normal(size=(2, *size, 3)).astype(np.float32)
  return x, rng.normal(size=(kernel, kernel, 3, 4)).astype(np.float32)


def windows(size, kernel, stride, dilation):
  """Every output pixel and the input pixels that it sees."""
  reach = (kernel - 1) * dilation + 1
  rows, columns = ((extent - reach) // stride + 1 for extent in size)
  for row, column in np.ndindex(rows, columns):
    top, left = row * stride, column * stride
    yield row, column, np.s_[:, top : top + reach : dilation, left : left + reach : dilation]


def by_definition(x, kernel, stride, dilation):
  """The convolution, and its gradients for the gradient that `weigh` makes of its output."""
  x, kernel = x.astype(np.float64), kernel.astype(np.float64)
  seen = list(windows(x.shape[1:3], kernel.shape[0], stride, dilation))
  output = np.zeros((len(x), seen[-1][0] + 1, seen[-1][1] + 1, kernel.shape[3]))
  for row, column, window in seen:
    output[:, row, column] = np.einsum('bijc,ijcf->bf', x[window], kernel)
  upstream = weigh(output.shape)
  by_x, by_kernel = np.zeros_like(x), np.zeros_like(kernel)
  for row, column, window in seen:
    by_x[window] += np.einsum('bf,ijcf->bijc', upstream[:, row, column], kernel)
    by_kernel += np.einsum('bf,bijc->ijcf', upstream[:, row, column], x[window])
  return output, by_x, by_kernel


def weigh(shape):
  """An arbitrary gradient of the output, exact in float32."""
  return (np.arange(np.prod(shape)).reshape(shape) * 7 % 13 - 6) / 4


def forward_and_gradients(x, kernel, stride, dilation):
  output, pull_back = jax.vjp(lambda x, kernel: valid_conv(x, kernel, stride, dilation), x, kernel)
  # The zeros are as divided over devices as the output is.
  return output, *pull_back(0 * output + jnp.asarray(weigh(output.shape), output.dtype))


@pytest.mark.parametrize(('size', 'kernel', 'stride', 'dilation'), CASES)
def test_agrees_with_its_definition(size, kernel, stride, dilation):
  x, weights = inputs(size, kernel)
  found = jit(forward_and_gradients, static_argnums=(2, 3))(x, weights, stride, dilation)
  for value, expected in zip(found, by_definition(x, weights, stride, dilation), strict=True):
    assert value.dtype == jnp.float32
    assert value.shape == expected.shape
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize(('stride', 'dilation'), [*itertools.product((1, 2, 3), (1, 2))])
def test_agrees_with_scipy(stride, dilation):
  x, weights = inputs((13, 10), 3)
  spread = np.zeros((2 * dilation + 1, 2 * dilation + 1, 3, 4))
  spread[::dilation, ::dilation] = weights
  expected = [
    [
      sum(signal.correlate(image[..., c], spread[..., c, f], 'valid') for c in range(3))
      for f in range(4)
    ]
    for image in x.astype(np.float64)
  ]
  expected = np.moveaxis(np.array(expected), 1, -1)[:, ::stride, ::stride]
  found = jit(valid_conv, static_argnums=(2, 3))(x, weights, stride, dilation)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(('stride', 'dilation'), [(1, 1), (2, 1), (3, 2)])
def test_the_forms_of_accelerators(monkeypatch, stride, dilation):
  def default_branch(*operands, cpu, default):
    return default(*operands)

  monkeypatch.setattr(convolution.lax, 'platform_dependent', default_branch)
  x, weights = inputs((9, 12), 3)
  # A function of its own, for which nothing is compiled yet.
  found = jit(lambda x, kernel: forward_and_gradients(x, kernel, stride, dilation))(x, weights)
  for value, expected in zip(found, by_definition(x, weights, stride, dilation), strict=True):
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize(('stride', 'dilation'), [(1, 1), (2, 1), (1, 2)])
def test_bfloat16_is_summed_in_float32_and_rounded_once(stride, dilation):
  arrays = inputs((11, 12), 3)
  x, weights = (jnp.asarray(array, jnp.bfloat16) for array in arrays)
  found = jit(forward_and_gradients, static_argnums=(2, 3))(x, weights, stride, dilation)
  rounded = (np.asarray(array, np.float64) for array in (x, weights))
  for value, expected in zip(found, by_definition(*rounded, stride, dilation), strict=True):
    assert value.dtype == jnp.bfloat16
    # Half a unit in the last of eight places, and what float32's sums are off.
    np.testing.assert_allclose(value.astype(jnp.float32), expected, rtol=2**-8 * 1.01, atol=2e-5)


@pytest.mark.parametrize(('stride', 'dilation'), [(1, 1), (2, 1), (1, 2)])
def test_members_of_a_population_are_convolved_each_with_its_kernel(stride, dilation):
  members = [inputs((9, 8), 3, seed) for seed in range(3)]
  x, weights = (np.stack(arrays) for arrays in zip(*members, strict=True))
  convolve = functools.partial(forward_and_gradients, stride=stride, dilation=dilation)
  found = jit(jax.vmap(convolve))(x, weights)
  for member, arrays in enumerate(members):
    for value, expected in zip(found, by_definition(*arrays, stride, dilation), strict=True):
      np.testing.assert_allclose(value[member], expected, rtol=1e-5, atol=2e-5)


def test_images_of_a_population_may_share_a_kernel():
  weights = inputs((9, 8), 3)[1]
  x = np.stack([inputs((9, 8), 3, seed)[0] for seed in range(3)])
  convolve = functools.partial(forward_and_gradients, stride=2, dilation=1)
  found = jit(jax.vmap(convolve, (0, None)))(x, weights)
  for member, images in enumerate(x):
    for value, expected in zip(found, by_definition(images, weights, 2, 1), strict=True):
      np.testing.assert_allclose(value[member], expected, rtol=1e-5, atol=2e-5)


def test_the_batch_can_be_divided_over_devices():
  devices = jax.local_device_count()
  shards = [inputs((9, 8), 3, seed)[0] for seed in range(devices)]
  weights = inputs((9, 8), 3)[1]
  sharded, replicated = PartitionSpec(DEVICES), PartitionSpec()

  @functools.partial(
    jax.shard_map,
    mesh=local_mesh(),
    in_specs=(sharded, replicated),
    out_specs=(sharded, sharded, replicated),
  )
  def convolve(x, kernel):
    kernel = lax.pcast(kernel, DEVICES, to='varying')
    output, by_x, by_kernel = forward_and_gradients(x, kernel, 2, 1)
    return output, by_x, lax.psum(by_kernel, DEVICES)

  output, by_x, by_kernel = jit(convolve)(np.concatenate(shards), weights)
  exact = list(zip(*(by_definition(x, weights, 2, 1) for x in shards), strict=True))
  for value, expected in ((output, exact[0]), (by_x, exact[1])):
    np.testing.assert_allclose(value, np.concatenate(expected), rtol=1e-5, atol=2e-5)
  np.testing.assert_allclose(by_kernel, sum(exact[2]), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(('stride', 'dilation'), [(1, 1), (2, 1)])
def test_a_loop_changes_no_gradient(stride, dilation):
  x, weights = inputs((9, 12), 3)
  expected = by_definition(x, weights, stride, dilation)

  @jit
  def looped(x, kernel):
    def body(carry, scale):
      again = jax.checkpoint(forward_and_gradients, static_argnums=(2, 3))
      values = lax.cond(
        scale > 0,
        lambda: again(scale * x, kernel, stride, dilation),
        lambda: again(x, kernel, stride, dilation),
      )
      return carry, values

    return lax.scan(body, 0, jnp.array([1.0, 2.0]))[1]

  inside = looped(x, weights)
  outside = jit(forward_and_gradients, static_argnums=(2, 3))(x, weights, stride, dilation)
  # The output and the gradient by the kernel are linear in x; the gradient by x does not see it.
  for value, alone, exact, second in zip(inside, outside, expected, (2, 1, 2), strict=True):
    np.testing.assert_allclose(value[0], alone, rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(value[0], exact, rtol=1e-5, atol=2e-5)
    np.testing.assert_allclose(value[1], second * exact, rtol=1e-5, atol=4e-5)
