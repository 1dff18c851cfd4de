"""The convolutions of convolution.py in forms that XLA's CPU backend computes fast.

It has two convolutions of NHWC with HWIO. Eigen's packs the windows into cache-sized panels of one
matrix product and reaches a product's speed. YNNPACK's, which jaxlib 0.10 prefers, is up to five
times slower on patches: the rows of its products are as long as an image is wide. YNNPACK declines
images that zeros are put into. So the rows of image and kernel are both spread by two, and every
other row of outputs is computed: the same products, the zeros in none of them, in Eigen's hands.

The gradient by the kernel has its dimensions in another order. The layout pass repairs that, but
not inside the body of a loop, where it is 50 times slower (jax issue 12868): it is transposed here.
Where `vmap` gives each image a kernel of its own, XLA has a grouped convolution: it is half as fast
as one convolution after another, which is what is done here.

A slow test of each fails once the plain form is as fast: then this file can go.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap

from patch_svdd_jax.system.sharding import PRECISION

ROWS = 2
IMAGES = ('NHWC', 'HWIO', 'NHWC')

Binary = Callable[[jax.Array, jax.Array], jax.Array]


def convolve(
  x: jax.Array,
  kernel: jax.Array,
  *,
  stride: int = 1,
  padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0)),
  lhs_dilation: int = 1,
  dilation: int = 1,
  layout: tuple[str, str, str] = IMAGES,
) -> jax.Array:
  """Returns what `convolution.convolve` does, in either of its layouts."""
  (top, bottom), columns = padding
  conv = functools.partial(
    lax.conv_general_dilated,
    window_strides=(ROWS * stride, stride),
    padding=((ROWS * top, ROWS * bottom), columns),
    lhs_dilation=(ROWS * lhs_dilation, lhs_dilation),
    rhs_dilation=(ROWS * dilation, dilation),
    dimension_numbers=IMAGES,
    precision=PRECISION,
    preferred_element_type=jnp.promote_types(x.dtype, jnp.float32),
  )
  return one_by_one(conv if layout == IMAGES else of_channels(conv))(x, kernel)


def of_channels(conv: Binary) -> Binary:
  """Returns `conv` of images for arrays that are laid out as `convolution.CHANNELS`."""

  def transposed(x: jax.Array, kernel: jax.Array) -> jax.Array:
    # The barriers keep XLA from transposing within another operation, element by element. In two
    # steps, the first of which moves whole pixels, the transposition of x is faster.
    by_position = lax.optimization_barrier(x.transpose(1, 2, 0, 3))
    by_channel, taps = lax.optimization_barrier(
      (by_position.transpose(3, 0, 1, 2), kernel.transpose(1, 2, 0, 3))
    )
    found: jax.Array = lax.optimization_barrier(conv(by_channel, taps))
    return found.transpose(1, 2, 0, 3)

  return transposed


def one_by_one(conv: Binary) -> Binary:
  """Returns `conv`, computed in turn for each member where `vmap` has both arrays of each."""
  alone = custom_vmap(conv)

  @alone.def_vmap
  def of_members(
    axis_size: int, batched: Sequence[bool], *operands: jax.Array
  ) -> tuple[jax.Array, bool]:
    del axis_size
    if all(batched):
      return lax.map(lambda member: alone(*member), operands), True
    return jax.vmap(conv, [0 if each else None for each in batched])(*operands), True

  return alone
