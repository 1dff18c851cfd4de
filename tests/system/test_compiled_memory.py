"""What a compiled program holds, and the most work that fits, by few compilations."""

import pytest

from patch_svdd_jax.system.compiled_memory import largest

# Bytes of a device.
MEMORY = 1000


@pytest.mark.parametrize('refuses', [False, True], ids=['is compiled', 'is refused'])
@pytest.mark.parametrize(
  ('held', 'found'),
  [
    (lambda n: 20 + 10 * n, (98, None)),  # in proportion: known after two
    (lambda n: 20 + 200 * n, (4, 8)),  # 8 was tried, and 5 is not, which cannot fit
    (lambda n: 990 + 20 * n, (0, 1)),
  ],
)
def test_the_largest_work_is_found_in_few_compilations(held, found, refuses):
  """Whether or not the compiler compiles what does not fit."""
  compiled = []

  def bytes_at(number):
    compiled.append(number)
    return None if refuses and held(number) > MEMORY else held(number)

  unit_bytes = bytes_at(1)
  assert largest(bytes_at, 1, unit_bytes, MEMORY, 5) == found
  assert len(compiled) <= 6


def test_what_grows_faster_than_in_proportion_is_narrowed_down():
  most, too_many = largest(lambda n: n * n, 1, 1, MEMORY, 6)
  assert 20 <= most <= 31 < too_many <= 60


def test_work_is_a_multiple_of_the_unit():
  compiled = []

  def bytes_at(number):
    compiled.append(number)
    return number

  most, _ = largest(bytes_at, 64, 64, MEMORY, 5)
  assert most == 960
  assert all(number % 64 == 0 for number in compiled)
