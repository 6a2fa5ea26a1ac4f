"""Trains or evaluates a config: `python main.py --config=configs/paca_base.py --workdir=DIR [--mode=train|eval]`.

It is the same as `paca train`; `python main.py --help` lists the flags.
"""

from paca_jax.cli.train import main

if __name__ == "__main__":
    main()
