"""`python -m paca_jax`: see `paca --help`."""

import sys

from paca_jax.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
