"""`python -m paca_jax.predict`: see `paca predict --help`."""

from paca_jax.cli.pictures.predict import main

if __name__ == "__main__":
    main()
