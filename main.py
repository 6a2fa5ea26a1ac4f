"""Trains or evaluates a config: `python main.py --config=configs/paca_base.py --workdir=DIR [--mode=train|eval]`."""

import logging
import sys

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

from paca_jax.errors import UserError
from paca_jax.train import command_line

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "A file of configs/, with :VARIANT where it knows any.", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of checkpoints, metrics and pictures; local or gs://.")
_MODE = flags.DEFINE_enum("mode", "train", ["train", "eval"], "Train to the end, or evaluate what is there.")
flags.mark_flags_as_required(["config", "workdir"])


def main(argv: list[str]) -> None:
    """Hands the config over."""
    if len(argv) > 1:
        raise UserError(f"Everything is a --flag, but got {' '.join(argv[1:])!r}.")
    logging.basicConfig(format="%(message)s", level=logging.WARNING, force=True)
    logging.getLogger("paca_jax").setLevel(logging.INFO)
    absl_logging.set_verbosity(absl_logging.WARNING)
    from paca_jax.train import loop  # here, for worker processes import this file and need no TensorFlow

    run = loop.train if _MODE.value == "train" else loop.evaluate_only
    run(_CONFIG.value, _WORKDIR.value)


if __name__ == "__main__":
    try:
        app.run(main, flags_parser=command_line.parse_flags)
    except UserError as error:
        sys.exit(f"error: {error}")
