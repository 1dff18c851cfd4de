"""Reads what Linux says of the processor; elsewhere nothing is known of it."""

import pathlib
import re

CPUINFO = pathlib.Path('/proc/cpuinfo')


def first_lines() -> list[str]:
  """Returns what is said of the first one, line by line as `name : value`."""
  try:
    return CPUINFO.read_text(encoding='utf-8').partition('\n\n')[0].splitlines()
  except OSError:
    return []


def value_of(name: str) -> str:
  """Returns the value of a name, such as 'flags' or 'model name'; '' where it is not said."""
  found = (re.fullmatch(rf'{name}\s*: (.+)', line) for line in first_lines())
  return next((each[1] for each in found if each), '')
