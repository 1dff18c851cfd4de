"""Measures a detector on labelled test images; `patch-svdd eval` is the same."""

from patch_svdd_jax.program import main

if __name__ == '__main__':
  main('eval')
