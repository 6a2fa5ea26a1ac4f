"""Tells what a config's train step needs and takes on a TPU, without one: memory, time, collectives, hours.

    python -m paca_jax.plan --config=configs/paca_base.py --topology=v5e:16x16 [--config.key=value ...] [--json=FILE]

The real step is compiled ahead of time with libtpu (pip install "paca-jax[tpu]"), which takes minutes and needs neither a TPU
nor the data of ImageNet. Topologies are v4:WxHxD, v5e:WxH, v5p:WxHxD and v6e:WxH, in chips. Where the step does not fit, the
page says by how much and what to try; --suggest compiles alternatives until one fits. Also try --config.remat=True,
--config.mesh.fsdp=16, --config.accumulate_steps=4. The exit status is 0 where the step fits, 1 where it does not, 2 where the
question is wrong.
"""

import json
from typing import Any

import jax
from absl import app, flags
from absl import logging as absl_logging
from etils import epath
from ml_collections import ConfigDict, config_flags

from paca_jax.cli import config_flags as command_line
from paca_jax.errors import told_on_the_command_line
from paca_jax.planning.alternatives import alternatives, try_alternatives
from paca_jax.planning.estimate import estimate
from paca_jax.planning.memory import DoesNotFitError, state_bytes
from paca_jax.planning.report import describe, describe_shortage, describe_tried, describe_untried
from paca_jax.planning.topology import Topology, compile_only_devices, parse_topology, prepare_environment
from paca_jax.train.setup import prepare

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "A file of configs/, with :VARIANT where it knows any.", lock_config=True
)
_TOPOLOGY = flags.DEFINE_string(
    "topology", None, "The slice: v4:WxHxD, v5e:WxH, v5p:WxHxD or v6e:WxH, in chips.", required=True
)
_JSON = flags.DEFINE_string("json", None, "File to write the same numbers to, in bytes, seconds and operations.")
_SUGGEST = flags.DEFINE_bool("suggest", False, "Where the step does not fit, compile alternatives until one does.")
flags.mark_flag_as_required("config")


def main(_: list[str]) -> int:
    """Prints the estimate and returns the exit status: 0 if the step fits, 1 if not."""
    absl_logging.set_verbosity(absl_logging.WARNING)
    prepare_environment()
    topology = parse_topology(_TOPOLOGY.value)
    devices = compile_only_devices(topology)
    try:
        found = estimate(_CONFIG.value, topology, devices)
    except DoesNotFitError as shortage:
        _write(_explain(_CONFIG.value, topology, devices, shortage))
        return 1
    print(describe(found))
    _write(found.as_json())
    return 0


def _explain(config: ConfigDict, topology: Topology, devices: list[jax.Device], shortage: DoesNotFitError) -> dict[str, Any]:
    """Prints by how much a step does not fit and what would, and returns the same as an object."""
    state = state_bytes(prepare(config, devices, without_data=True))
    print(describe_shortage(str(shortage), topology.name, state))
    changes = alternatives(config, shortage, sum(state.values()) - state["batch"], topology.num_chips)
    tried = []
    if _SUGGEST.value:
        for trial in try_alternatives(config, topology, devices, changes):
            print(describe_tried(trial, shortage.usable), flush=True)
            result = trial.estimate.as_json() if trial.estimate else {"fits": False, "needed": trial.needed}
            tried.append({"changes": trial.changes, **result})
    else:
        print(describe_untried(changes))
    return {
        "fits": False,
        "topology": topology.name,
        "needed": shortage.needed,
        "usable_hbm_bytes": shortage.usable,
        "state": state,
        "alternatives": changes,
        "tried": tried,
    }


def _write(numbers: dict[str, Any]) -> None:
    if _JSON.value is not None:
        epath.Path(_JSON.value).write_text(json.dumps(numbers, indent=2) + "\n")


if __name__ == "__main__":
    with told_on_the_command_line():
        app.run(main, flags_parser=command_line.parse_flags)
