"""`python -m paca_jax.export`: see `paca export --help`."""

from paca_jax.cli.export import main

if __name__ == "__main__":
    main()
