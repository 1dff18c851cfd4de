"""Trains an encoder on normal images and fits the detector; `patch-svdd train` is the same."""

from patch_svdd_jax.program import main

if __name__ == '__main__':
  main('train')
