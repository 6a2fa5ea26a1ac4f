"""Trains the model of a config, or evaluates it.

    paca train --config=configs/paca_base.py --workdir=DIR [--config.key=value ...]
    paca evaluate --workdir=DIR [--config.key=value ...]
    paca train --config=configs/paca_base.py --help-config

`python main.py` is the same as `paca train`, and `--mode=eval` makes it `paca evaluate`. Training resumes from the newest
checkpoint in the workdir. Evaluation takes that checkpoint, with the config that it records unless --config names another, or,
if there is none, the weights of --config.init_from. --help-config lists every key of a config that --config.key=value sets,
with its comment and its range.

SIGTERM and Ctrl-C end training after the current step, which is saved. A second Ctrl-C ends the program at once.

On several hosts, run the same command on each. Cloud TPU, Slurm and Kubernetes connect the processes; elsewhere add
--coordinator_address=HOST:PORT --num_processes=N --process_id=I.
"""

import argparse
import faulthandler
import logging
import re
import shlex
import sys
from collections.abc import Sequence

from absl import logging as absl_logging

from paca_jax.cli.config import flags
from paca_jax.command_line import Parser, command_line
from paca_jax.errors import UserError, one_line


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line; `argv` is by default that of the process."""
    with command_line(_how_to_resume()):
        options, overrides = flags.parse(_parser(), argv)
        if options.help_config:
            _print_config(options.config, overrides)
            return
        records_config = options.mode == "eval" and options.config is None
        config = None if records_config else flags.make_config(options.config, overrides)
        faulthandler.enable()

        # Imported here because the worker processes of the data loader import `main.py`, and need none of this.
        from paca_jax.cache import keep_compiled_programs
        from paca_jax.memory import keep_freed_memory
        from paca_jax.sharding import start_processes
        from paca_jax.train.evaluation import evaluate_only
        from paca_jax.train.preemption import Stopped
        from paca_jax.train.start import recorded_config
        from paca_jax.train.train_loop import train

        process = start_processes(
            options.coordinator_address, options.num_processes, options.process_id, options.heartbeat_timeout
        )
        _set_up_logging(process)
        keep_compiled_programs()
        keep_freed_memory()
        if config is None:  # read only now, since Orbax asks JAX for its devices
            config = flags.override(recorded_config(options.workdir), overrides)
        try:
            if options.mode == "eval":
                evaluate_only(config, options.workdir, weights=options.weights)
            elif options.weights is None:
                train(config, options.workdir)
            else:
                raise UserError("Expected --weights with --mode=eval, got it with training. Use --config.init_weights.")
        except Stopped as stopped:
            print(one_line(f"{stopped} {_how_to_resume()}"), file=sys.stderr)
            raise


def _print_config(file: str | None, overrides: flags.Overrides) -> None:
    """Prints every key of a config, by default of the default one."""
    from paca_jax.cli.config.help import describe_config
    from paca_jax.train.config import default_config

    config = flags.read_config(file) if file else default_config()
    print(describe_config(flags.override(config, overrides)))


def _how_to_resume() -> str:
    return f"To go on, run: {shlex.join(sys.orig_argv)}"


class _OneLine(logging.Formatter):
    """A format of the log in which a name cannot look like another line."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802, the name in `logging`
        """Returns a message in one line."""
        return one_line(super().formatMessage(record))


def _set_up_logging(process: int) -> None:
    """Sends the library's log to standard error: all of it from the first process, and warnings from the others."""
    prefix = f"[process {process}] " if process else ""
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine(f"{prefix}%(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("paca_jax").setLevel(logging.WARNING if process else logging.INFO)
    absl_logging.set_verbosity(absl_logging.WARNING)


def _parser() -> Parser:
    parser = Parser("paca train", __doc__)
    parser.add_argument("--workdir", metavar="DIR", help="the folder for checkpoints, metrics and pictures; local or gs://")
    parser.add_argument("--mode", choices=("train", "eval"), default="train", help="train (the default) or evaluate")
    parser.add_argument("--weights", choices=("raw", "ema"), help="evaluate the raw or the averaged weights, if there are both")
    parser.add_argument("--help-config", action="store_true", help="list the keys of the config, those of FILE with its values")
    parser.add_argument("--coordinator_address", metavar="HOST:PORT", help="the address of process 0")
    parser.add_argument("--num_processes", metavar="N", type=int, help="the number of processes")
    parser.add_argument("--process_id", metavar="I", type=int, help="the number of this process, from 0")
    parser.add_argument(
        "--heartbeat_timeout", metavar="S", type=_seconds, default=100, help="seconds until a silent process counts as lost"
    )
    return parser


def _seconds(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,5}", text):
        raise argparse.ArgumentTypeError(f"expected a number of seconds from 1 to 999999, got {text!r}")
    return int(text)
