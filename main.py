"""Trains or evaluates a config: `python main.py --config=configs/paca_base.py --workdir=DIR [--mode=train|eval]`.

On several hosts run the same command on each. Cloud TPU, Slurm and Kubernetes tell the processes of each other; elsewhere add
`--coordinator_address=HOST:PORT --num_processes=N --process_id=I`.
"""

from absl import app, flags
from ml_collections import config_flags

from paca_jax.cli import config_flags as command_line
from paca_jax.errors import told_on_the_command_line

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "A file of configs/, with :VARIANT where it knows any.", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of checkpoints, metrics and pictures; local or gs://.")
_MODE = flags.DEFINE_enum("mode", "train", ["train", "eval"], "Train to the end, or evaluate what is there.")
_COORDINATOR = flags.DEFINE_string("coordinator_address", None, "HOST:PORT of process 0, where no cluster tells it.")
_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes there are, where no cluster tells it.")
_PROCESS = flags.DEFINE_integer("process_id", None, "This process's number, from 0, where no cluster tells it.")
_HEARTBEAT = flags.DEFINE_integer("heartbeat_timeout", 100, "Seconds until a silent process counts as lost.", lower_bound=1)
flags.mark_flag_as_required("config")


def main(_: list[str]) -> None:
    """Hands the config over."""
    from paca_jax.cache import keep_compiled_programs  # here, for worker processes import this file and need none
    from paca_jax.memory import keep_freed_memory
    from paca_jax.sharding import start_processes
    from paca_jax.train import run as loop

    process = start_processes(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value, _HEARTBEAT.value)
    command_line.set_up_logging(process)
    keep_compiled_programs()
    keep_freed_memory()
    run = loop.train if _MODE.value == "train" else loop.evaluate_only
    run(_CONFIG.value, _WORKDIR.value)


if __name__ == "__main__":
    with told_on_the_command_line():
        app.run(main, flags_parser=command_line.parse_flags)
