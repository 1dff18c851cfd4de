"""Whether the forms for the CPU are worth their lines: each fails once plain XLA is as fast."""

import functools
import time

import jax
import numpy as np
import pytest

from patch_svdd_jax.models import convolution, convolution_cpu

ROUNDS, WORTH_IT = 10, 1.1


def arrays(*shapes):
  rng = np.random.default_rng(0)
  return [jax.device_put(rng.normal(size=shape).astype(np.float32)) for shape in shapes]


def best_seconds(functions, operands):
  """The least of several times of each, taken in turn."""
  taken = [[] for _ in functions]
  for _ in range(ROUNDS):
    for times, function in zip(taken, functions, strict=True):
      start = time.perf_counter()
      jax.block_until_ready(function(*operands))
      times.append(time.perf_counter() - start)
  return map(min, taken)


# A layer of 64 to 128 channels on the 32-pixel quadrants of patches, as a train step has it.
PATCHES, KERNEL, GRADIENT = (128, 13, 13, 64), (3, 3, 64, 128), (128, 11, 11, 128)


@pytest.mark.slow
@pytest.mark.usefixtures('optimised')
@pytest.mark.parametrize(
  ('shapes', 'layout', 'members'),
  [
    ((PATCHES, KERNEL), convolution.IMAGES, False),
    ((PATCHES, GRADIENT), convolution.CHANNELS, False),
    (((4, *PATCHES), (4, *KERNEL)), convolution.IMAGES, True),
  ],
  ids=['images', 'gradient by the kernel', 'members of a population'],
)
def test_plain_convolution_is_slower(shapes, layout, members):
  over_members = jax.vmap if members else lambda function: function
  plain, cpu = (
    jax.jit(over_members(functools.partial(convolve, layout=layout)))
    for convolve in (convolution.convolve, convolution_cpu.convolve)
  )
  operands = arrays(*shapes)
  np.testing.assert_allclose(plain(*operands), cpu(*operands), rtol=1e-4, atol=1e-2)
  plain_seconds, cpu_seconds = best_seconds((plain, cpu), operands)
  assert plain_seconds > WORTH_IT * cpu_seconds, (
    f'plain XLA takes {plain_seconds / cpu_seconds:.2f} times as long as the form for the CPU: '
    'compute this one plainly, and remove from models/convolution_cpu.py what it no longer needs'
  )
