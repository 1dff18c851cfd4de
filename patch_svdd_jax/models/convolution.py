"""VALID convolution and both its gradients, which are convolutions too.

They are written out: what automatic differentiation makes of a convolution has its dimensions in an
order that XLA does not repair inside the body of a loop. On a CPU other forms of the same products
are faster: see convolution_cpu.py.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from patch_svdd_jax.models import convolution_cpu
from patch_svdd_jax.system.sharding import PRECISION

IMAGES = ('NHWC', 'HWIO', 'NHWC')
# Each channel of NHWC as an image that has the batch as channels, and the result as HWIO.
CHANNELS = ('CHWN', 'IHWO', 'HWNC')

Extents = tuple[tuple[int, int], tuple[int, int]]


def convolve(
  x: jax.Array,
  kernel: jax.Array,
  *,
  stride: int = 1,
  padding: Extents = ((0, 0), (0, 0)),
  lhs_dilation: int = 1,
  dilation: int = 1,
  layout: tuple[str, str, str] = IMAGES,
) -> jax.Array:
  """Convolves two arrays of one type; those of bfloat16 are summed and returned in float32.

  Args:
    x: [B, H, W, C].
    kernel: [k, l, C, F].
    stride: pixels between outputs.
    padding: zeros above and below x, and to the left and right.
    lhs_dilation: pixels between x's own, zeros between them.
    dilation: the same for the kernel.
    layout: the order of the dimensions of x, the kernel and the result.
  """
  return lax.conv_general_dilated(
    x,
    kernel,
    window_strides=(stride, stride),
    padding=padding,
    lhs_dilation=(lhs_dilation, lhs_dilation),
    rhs_dilation=(dilation, dilation),
    dimension_numbers=layout,
    precision=PRECISION,
    preferred_element_type=jnp.promote_types(x.dtype, jnp.float32),
  )


def by_platform(x: jax.Array, kernel: jax.Array, **settings: Any) -> jax.Array:
  """Calls `convolve` in the form that is fastest where it runs."""
  found: jax.Array = lax.platform_dependent(
    x,
    kernel,
    cpu=functools.partial(convolution_cpu.convolve, **settings),
    default=functools.partial(convolve, **settings),
  )
  return found


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def valid_conv(x: jax.Array, kernel: jax.Array, stride: int, dilation: int) -> jax.Array:
  """Returns a VALID convolution, summed in full float32.

  Args:
    x: [B, H, W, C], float32 or bfloat16.
    kernel: [k, k, C, F], of the same type.
    stride: pixels between outputs.
    dilation: pixels between the kernel's taps.

  Returns:
    [B, H', W', F], of the same type, with H' = (H - (k-1) * dilation - 1) // stride + 1, and W'
    likewise. The gradients are of that type too.
  """
  return by_platform(x, kernel, stride=stride, dilation=dilation).astype(x.dtype)


def plain_conv(x: jax.Array, kernel: jax.Array, stride: int, dilation: int) -> jax.Array:
  """Computes `valid_conv` as one operation on every platform, without gradients of its own."""
  return convolve(x, kernel, stride=stride, dilation=dilation).astype(x.dtype)


def _forward(
  x: jax.Array, kernel: jax.Array, stride: int, dilation: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  return valid_conv(x, kernel, stride, dilation), (x, kernel)


def _backward(
  stride: int, dilation: int, saved: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
  x, kernel = saved
  return (
    input_gradient(gradient, kernel, x.shape, stride, dilation).astype(x.dtype),
    kernel_gradient(x, gradient, kernel.shape[0], stride, dilation).astype(kernel.dtype),
  )


def input_gradient(
  gradient: jax.Array, kernel: jax.Array, shape: tuple[int, ...], stride: int, dilation: int
) -> jax.Array:
  """Returns the gradient by x: the gradient convolved with the kernel turned by 180 degrees."""
  reach = (kernel.shape[0] - 1) * dilation
  vertical, horizontal = (
    # Pixels past the last window, where the stride does not divide, have no gradient.
    (reach, size - 1 - (outputs - 1) * stride)
    for size, outputs in zip(shape[1:3], gradient.shape[1:3], strict=True)
  )
  turned = kernel[::-1, ::-1].swapaxes(2, 3)
  return by_platform(
    gradient, turned, padding=(vertical, horizontal), lhs_dilation=stride, dilation=dilation
  )


def kernel_gradient(
  x: jax.Array, gradient: jax.Array, size: int, stride: int, dilation: int
) -> jax.Array:
  """Returns the gradient by the kernel: each channel of x convolved with the gradient's."""
  height, width = (
    (outputs - 1) * stride + (size - 1) * dilation + 1 for outputs in gradient.shape[1:3]
  )
  return by_platform(
    x[:, :height, :width], gradient, stride=dilation, dilation=stride, layout=CHANNELS
  )


valid_conv.defvjp(_forward, _backward)
