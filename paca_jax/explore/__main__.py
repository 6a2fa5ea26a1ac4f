"""`python -m paca_jax.explore`: see `paca explore --help`."""

from paca_jax.cli.pictures.explore import main

if __name__ == "__main__":
    main()
