"""Names the machine: its processor and its devices."""

import os
import platform

import jax

from patch_svdd_jax.system import processor


def cores() -> int:
  """Returns how many processors this process may use."""
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def device_name() -> str:
  """Returns the devices that JAX computes on, in words."""
  devices = jax.local_devices()
  if devices[0].platform == 'cpu':
    return f'{processor_name()}, {cores()} cores'
  return f'{len(devices)} x {devices[0].device_kind}'


def processor_name() -> str:
  """Returns the processor's model, or its architecture where the system does not tell."""
  return processor.value_of('model name') or platform.processor() or platform.machine()
