"""`python -m patch_svdd_jax COMMAND` is `patch-svdd COMMAND`."""

from patch_svdd_jax.program import main

main()
