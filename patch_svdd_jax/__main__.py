"""`python -m patch_svdd_jax COMMAND` is `patch-svdd COMMAND`."""

import sys

from patch_svdd_jax.commands import main

sys.exit(main())
