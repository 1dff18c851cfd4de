"""VALID convolution, forward and backward, in forms that XLA multiplies as fast as matrices.

XLA's CPU backend has two convolutions of NHWC with HWIO. Eigen's packs the windows into cache-sized
panels of one matrix product and reaches a product's speed. YNNPACK's, which jaxlib 0.10 prefers, is
up to five times slower on patches: the rows of its products are as long as an image is wide.
YNNPACK declines images that zeros are put into. So on the CPU the rows of image and kernel are both
spread by two, and every other row of outputs is computed: the same products, the zeros in none of
them, in Eigen's hands.

What automatic differentiation makes of a convolution has its dimensions in another order. The
layout pass repairs that, but not inside the body of a loop, where such a gradient is 50 times
slower on the CPU (jax issue 12868). So the gradients are written out.
Where `vmap` gives each image a kernel of its own, XLA has a grouped convolution: on the CPU it is
half as fast as one convolution after another, which is what is done there.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap

from patch_svdd_jax.system.sharding import PRECISION

IMAGES = ('NHWC', 'HWIO', 'NHWC')
# Each channel of NHWC as an image that has the batch as channels, and the result as HWIO.
CHANNELS = ('CHWN', 'IHWO', 'HWNC')
CPU_ROWS = 2

Extents = tuple[tuple[int, int], tuple[int, int]]


def convolve(
  x: jax.Array,
  kernel: jax.Array,
  *,
  stride: int = 1,
  padding: Extents = ((0, 0), (0, 0)),
  lhs_dilation: int = 1,
  dilation: int = 1,
  rows: int = 1,
  layout: tuple[str, str, str] = IMAGES,
) -> jax.Array:
  """A convolution of two arrays of one type; those of bfloat16 are summed and returned in float32.

  Args:
    x: [B, H, W, C].
    kernel: [k, l, C, F].
    stride: pixels between outputs.
    padding: zeros above and below x, and to the left and right.
    lhs_dilation: pixels between x's own, zeros between them.
    dilation: the same for the kernel.
    rows: multiplies all of these along the rows, which changes nothing but who computes it.
    layout: the order of the dimensions of x, the kernel and the result.
  """
  (top, bottom), columns = padding
  return lax.conv_general_dilated(
    x,
    kernel,
    window_strides=(rows * stride, stride),
    padding=((rows * top, rows * bottom), columns),
    lhs_dilation=(rows * lhs_dilation, lhs_dilation),
    rhs_dilation=(rows * dilation, dilation),
    dimension_numbers=layout,
    precision=PRECISION,
    preferred_element_type=jnp.promote_types(x.dtype, jnp.float32),
  )


def one_by_one(conv: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
  """`conv` of two arrays, computed in turn for each member where `vmap` has both of each."""
  alone = custom_vmap(conv)

  @alone.def_vmap
  def of_members(
    axis_size: int, batched: Sequence[bool], *operands: jax.Array
  ) -> tuple[jax.Array, bool]:
    if all(batched):
      return lax.map(lambda member: alone(*member), operands), True
    return jax.vmap(conv, [0 if each else None for each in batched])(*operands), True

  return alone


def by_platform(x: jax.Array, kernel: jax.Array, **settings: Any) -> jax.Array:
  """`convolve` in the form that is fastest where it runs."""
  conv = functools.partial(convolve, **settings)
  on_cpu = one_by_one(functools.partial(conv, rows=CPU_ROWS))
  convolved: jax.Array = lax.platform_dependent(x, kernel, cpu=on_cpu, default=conv)
  return convolved


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def valid_conv(x: jax.Array, kernel: jax.Array, stride: int, dilation: int) -> jax.Array:
  """A VALID convolution, summed in full float32.

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
  """`valid_conv` as one operation whatever the platform, and without gradients of its own."""
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
  """The gradient by x: the gradient convolved with the kernel turned by 180 degrees."""
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
  """The gradient by the kernel: each channel of x convolved with the gradient's."""
  height, width = (
    (outputs - 1) * stride + (size - 1) * dilation + 1 for outputs in gradient.shape[1:3]
  )
  conv = functools.partial(convolve, stride=dilation, dilation=stride)

  def on_cpu(x: jax.Array, gradient: jax.Array) -> jax.Array:
    # The barriers keep XLA from transposing within another operation, element by element. In two
    # steps, the first of which moves whole pixels, the transposition of x is faster.
    by_position = lax.optimization_barrier(x.transpose(1, 2, 0, 3))
    by_channel, taps = lax.optimization_barrier(
      (by_position.transpose(3, 0, 1, 2), gradient.transpose(1, 2, 0, 3))
    )
    found: jax.Array = lax.optimization_barrier(conv(by_channel, taps, rows=CPU_ROWS)).transpose(
      1, 2, 0, 3
    )
    return found

  found: jax.Array = lax.platform_dependent(
    x[:, :height, :width],
    gradient,
    cpu=one_by_one(on_cpu),
    default=functools.partial(conv, layout=CHANNELS),
  )
  return found


valid_conv.defvjp(_forward, _backward)
