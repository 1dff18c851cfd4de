"""Trains an encoder on normal images and fits the detector; `patch-svdd train` is the same."""

import sys

from patch_svdd_jax.commands import main

if __name__ == '__main__':
  sys.exit(main(['train', *sys.argv[1:]]))
