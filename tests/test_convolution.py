"""The convolution and both its gradients against sums over output pixels in float64."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from scipy import signal

from patch_svdd_jax import convolution
from patch_svdd_jax.convolution import valid_conv

# LLVM's optimisations take longer than what they make faster here.
jit = functools.partial(jax.jit, compiler_options={'xla_backend_optimization_level': 0})

# (height, width), kernel, stride, dilation; with and without pixels past the last window
CASES = [
  ((9, 12), kernel, stride, dilation)
  for kernel, stride, dilation in itertools.product((1, 2, 3), (1, 2, 3), (1, 2))
] + [((8, 8), 8, 1, 1), ((11, 6), 3, 5, 1)]


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
  return output, *pull_back(jnp.asarray(weigh(output.shape), jnp.float32))


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
def test_gradient_by_the_kernel_of_accelerators(stride, dilation):
  x, weights = inputs((9, 12), 3)
  output, _, expected = by_definition(x, weights, stride, dilation)
  by_kernel = convolution._transposed(jnp.array(weights), stride, dilation)
  found = jit(by_kernel)(jnp.array(x), jnp.asarray(weigh(output.shape), jnp.float32))
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize(('stride', 'dilation'), [(1, 1), (2, 1)])
def test_a_loop_changes_no_gradient(stride, dilation):
  x, weights = inputs((9, 12), 3)
  expected = by_definition(x, weights, stride, dilation)

  @jit
  def looped(x, kernel):
    def body(carry, scale):
      return carry, forward_and_gradients(scale * x, kernel, stride, dilation)

    return lax.scan(body, 0, jnp.array([1.0, 2.0]))[1]

  inside = looped(x, weights)
  outside = jit(forward_and_gradients, static_argnums=(2, 3))(x, weights, stride, dilation)
  # The output and the gradient by the kernel are linear in x; the gradient by x does not see it.
  for value, alone, exact, second in zip(inside, outside, expected, (2, 1, 2), strict=True):
    np.testing.assert_allclose(value[0], alone, rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(value[0], exact, rtol=1e-5, atol=2e-5)
    np.testing.assert_allclose(value[1], second * exact, rtol=1e-5, atol=4e-5)
