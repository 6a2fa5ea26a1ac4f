"""`python -m paca_jax.plan`: see `paca plan --help`."""

import sys

from paca_jax.cli.plan import main

if __name__ == "__main__":
    sys.exit(main())
