"""VALID convolution whose gradients keep to forms that XLA makes fast on every platform.

XLA's CPU backend has a fast convolution for NHWC x HWIO alone. What automatic differentiation makes
of it has its dimensions in another order; the layout pass repairs that, but not inside the body of
a loop, where such a gradient is 50 times slower (jax issue 12868).
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

# A TPU's default for float32 is one bfloat16 pass.
PRECISION = lax.Precision.HIGHEST


def convolve(
  x: jax.Array,
  kernel: jax.Array,
  *,
  stride: int = 1,
  padding: tuple[tuple[int, int], ...] = ((0, 0), (0, 0)),
  spread: int = 1,
  dilation: int = 1,
) -> jax.Array:
  """f32[B, H, W, C] with f32[k, k, C, F]; zeros put into x and kernel by `spread`, `dilation`."""
  return lax.conv_general_dilated(
    x,
    kernel,
    window_strides=(stride, stride),
    padding=padding,
    lhs_dilation=(spread, spread),
    rhs_dilation=(dilation, dilation),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    precision=PRECISION,
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def valid_conv(x: jax.Array, kernel: jax.Array, stride: int, dilation: int) -> jax.Array:
  """A VALID convolution in full float32.

  Args:
    x: f32[B, H, W, C].
    kernel: f32[k, k, C, F].
    stride: pixels between outputs.
    dilation: pixels between the kernel's taps.

  Returns:
    f32[B, H', W', F] with H' = (H - (k-1) * dilation - 1) // stride + 1, and W' likewise.
  """
  return convolve(x, kernel, stride=stride, dilation=dilation)


def _forward(
  x: jax.Array, kernel: jax.Array, stride: int, dilation: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  return valid_conv(x, kernel, stride, dilation), (x, kernel)


def _backward(
  stride: int, dilation: int, saved: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
  x, kernel = saved
  by_kernel = functools.partial(
    kernel_gradient, shape=kernel.shape, stride=stride, dilation=dilation
  )
  return (
    input_gradient(gradient, kernel, x.shape, stride, dilation),
    lax.platform_dependent(
      x, gradient, cpu=by_kernel, default=_transposed(kernel, stride, dilation)
    ),
  )


def input_gradient(
  gradient: jax.Array, kernel: jax.Array, shape: tuple[int, ...], stride: int, dilation: int
) -> jax.Array:
  """The gradient by x: the gradient convolved with the kernel turned by 180 degrees."""
  reach = (kernel.shape[0] - 1) * dilation
  padding = tuple(
    # Pixels past the last window, where the stride does not divide, have no gradient.
    (reach, size - 1 - (outputs - 1) * stride)
    for size, outputs in zip(shape[1:3], gradient.shape[1:3], strict=True)
  )
  turned = kernel[::-1, ::-1].swapaxes(2, 3)
  return convolve(gradient, turned, padding=padding, spread=stride, dilation=dilation)


def kernel_gradient(
  x: jax.Array, gradient: jax.Array, shape: tuple[int, ...], stride: int, dilation: int
) -> jax.Array:
  """The gradient by the kernel as one matrix product a tap, for the CPU."""
  size, _, channels, features = shape
  batch, rows, columns, _ = gradient.shape
  flat = gradient.reshape(-1, features)

  def tap(row: int, column: int) -> jax.Array:
    window = lax.slice(
      x,
      (0, row, column, 0),
      (batch, row + (rows - 1) * stride + 1, column + (columns - 1) * stride + 1, channels),
      (1, stride, stride, 1),
    ).reshape(-1, channels)
    # Without the barrier XLA fuses the slice into a transposed copy, element by element.
    window = lax.optimization_barrier(window)
    return lax.dot_general(window, flat, (((0,), (0,)), ((), ())), precision=PRECISION)

  taps = [tap(row * dilation, column * dilation) for row in range(size) for column in range(size)]
  return jnp.stack(taps).reshape(shape)


def _transposed(kernel: jax.Array, stride: int, dilation: int) -> Callable[..., jax.Array]:
  """The gradient by the kernel as automatic differentiation has it, for accelerators."""

  def gradient_by_kernel(x: jax.Array, gradient: jax.Array) -> jax.Array:
    conv = functools.partial(convolve, x, stride=stride, dilation=dilation)
    return jax.linear_transpose(conv, kernel)(gradient)[0]

  return gradient_by_kernel


valid_conv.defvjp(_forward, _backward)
