"""Measures a detector on labelled test images; `patch-svdd eval` is the same."""

import sys

from patch_svdd_jax.commands import main

if __name__ == '__main__':
  sys.exit(main(['eval', *sys.argv[1:]]))
