"""Checks what is said of the machine."""

import os

from patch_svdd_jax.benchmarking import machine


def test_the_machine_has_a_name():
  assert 1 <= machine.cores() <= os.cpu_count()
  assert machine.device_name().endswith(f', {machine.cores()} cores')
  assert machine.processor_name()
