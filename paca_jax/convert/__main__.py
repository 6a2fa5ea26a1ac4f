"""`python -m paca_jax.convert`: see `paca convert --help`."""

from paca_jax.cli.convert import main

if __name__ == "__main__":
    main()
