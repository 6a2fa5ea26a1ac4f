"""Estimates what a training step of a config needs on a TPU or on GPUs, without one: memory, time, communication, hours.

    paca plan --config=configs/paca_base.py --topology=v5e:16x16 [--config.key=value ...] [--json=FILE]

The real step is compiled ahead of time with libtpu (pip install "paca-jax[tpu]"), or with JAX's CUDA compiler (the extra cuda12
or cuda13). That takes minutes, and needs neither the device nor the images of ImageNet. Topologies are v4:WxHxD, v5e:WxH,
v5p:WxHxD, v6e:WxH and tpu7x:WxHxD, in chips, and a100:N, h100:N, h200:N and b200:N, up to 8 GPUs of one host. If the step does
not fit, the command prints by how much and what to try; --suggest compiles alternatives until one fits. Things to try yourself
are --config.remat=True, --config.mesh.fsdp=16 and --config.accumulate_steps=4. The exit status is 0 if the step fits, 1 if it
does not, and 2 after an error.
"""

import json
from collections.abc import Sequence
from typing import Any

import jax
from absl import logging as absl_logging
from ml_collections import ConfigDict

from paca_jax.cli.config import flags
from paca_jax.command_line import Parser, command_line
from paca_jax.files import write_file
from paca_jax.paths import user_path
from paca_jax.planning.alternatives import alternatives, try_alternatives
from paca_jax.planning.estimate import estimate
from paca_jax.planning.memory import DoesNotFitError, state_bytes
from paca_jax.planning.report import describe, describe_shortage, describe_tried, describe_untried
from paca_jax.planning.topology import Topology, compile_only_devices, parse_topology, prepare_environment
from paca_jax.train.run import prepare


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the estimate and returns the exit status: 0 if the step fits, 1 if not."""
    with command_line():
        options, overrides = flags.parse(_parser(), argv)
        config = flags.make_config(options.config, overrides)
        numbers_file = None if options.json is None else user_path(options.json)
        absl_logging.set_verbosity(absl_logging.WARNING)
        prepare_environment()
        topology = parse_topology(options.topology)
        devices = compile_only_devices(topology)
        try:
            found = estimate(config, topology, devices)
        except DoesNotFitError as shortage:
            numbers, status = _explain(config, topology, devices, shortage, options.suggest), 1
        else:
            print(describe(found))
            numbers, status = found.as_json(), 0
        if numbers_file is not None:
            write_file(numbers_file, json.dumps(numbers, indent=2) + "\n")
    return status


def _explain(
    config: ConfigDict, topology: Topology, devices: list[jax.Device], shortage: DoesNotFitError, suggest: bool
) -> dict[str, Any]:
    """Prints by how much a step does not fit and which changes would help, and returns the same numbers."""
    state = state_bytes(prepare(config, devices, without_data=True))
    print(describe_shortage(str(shortage), topology.name, state))
    changes = alternatives(config, shortage, sum(state.values()) - state["batch"], topology.num_devices)
    tried = []
    if suggest:
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


def _parser() -> Parser:
    parser = Parser("paca plan", __doc__)
    parser.add_argument("--topology", metavar="SLICE", required=True, help="v5e:WxH, v4:WxHxD, ... in chips; h100:N, ...")
    parser.add_argument("--json", metavar="FILE", help="file for the same numbers, in bytes, seconds and operations")
    parser.add_argument("--suggest", action="store_true", help="if the step does not fit, compile alternatives until one does")
    return parser
