"""How many images a TPU chip can train on at once, with what a gradient needs kept, and with blocks computed anew.

    python -m benchmarks.tpu_memory [--model NAME ...] [--batch 32 ...] [--image-size 224 384 ...] [--dtype bfloat16]
        [--topology v5e:1x1] [--json FILE]

Compiled ahead of time with libtpu (pip install "paca-jax[tpu]"), which takes minutes a program; nothing is run. The step is the
gradient and AdamW. The compiler tells what --batch images need beside parameters and optimizer state; as many fit as fill the
rest of the chip's memory at that rate. FLOPs are those of matrix products and convolutions, the ones computed anew among them.
ALLOW_MULTIPLE_LIBTPU_LOAD=1 lets it run where another process holds libtpu and no TPU is attached.
"""

import argparse
import dataclasses
from typing import Any

import jax

from benchmarks.kernels import add_topology
from benchmarks.measure import add_json, gib, publish, table
from benchmarks.programs import TRAINING, Case, cases, programs
from paca_jax.errors import told_on_the_command_line
from paca_jax.planning.flops import matrix_flops
from paca_jax.planning.topology import Chip, compile_only_devices, parse_topology, prepare_environment

_MIB = 2**20


def estimate(case: Case, device: jax.Device) -> dict[str, Any]:
    """Returns the FLOPs of a case's training step, and the bytes that live during it.

    Args:
        case: the model and its input.
        device: a chip that need not be there.
    """
    program = programs(case)[TRAINING]
    compiled = program.compile(device)
    state = jax.tree.leaves(jax.eval_shape(program.start)[: program.states])
    return {
        **dataclasses.asdict(case),
        "matrix_flops": matrix_flops(compiled.traced.jaxpr.jaxpr),
        "state_bytes": sum(leaf.size * leaf.dtype.itemsize for leaf in state),
        **compiled.costs(),
    }


def images(row: dict[str, Any], chip: Chip) -> int:
    """Returns how many images fit into a chip's memory if each needs as much as those of the compiled step."""
    an_image = (row["total_bytes"] - row["state_bytes"]) / row["batch"]
    return int((chip.usable_hbm_bytes - row["state_bytes"]) / an_image)


def markdown(rows: list[dict[str, Any]], chip: Chip) -> str:
    """Returns the rows as a table."""
    return table(
        ("model", "blocks"),
        (
            "pixels",
            "GFLOP an image",
            "batch",
            "temporaries, GiB",
            "MiB an image",
            f"images in {gib(chip.usable_hbm_bytes)} GiB",
        ),
        (
            (
                f"`{row['model']}`",
                "computed anew" if row["remat"] else "kept",
                f"{row['image_size']}",
                f"{row['matrix_flops'] / row['batch'] / 1e9:.1f}",
                f"{row['batch']}",
                gib(row["temporary_bytes"]),
                f"{(row['total_bytes'] - row['state_bytes']) / row['batch'] / _MIB:.1f}",
                f"{images(row, chip):,}",
            )
            for row in rows
        ),
    )


def main() -> None:
    """Prints the table, and writes all numbers where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_topology(parser, batch=32)
    add_json(parser)
    asked = parser.parse_args()
    prepare_environment()
    jax.config.update("jax_enable_compilation_cache", False)
    topology = parse_topology(asked.topology)
    device = compile_only_devices(topology)[0]
    found = (dataclasses.replace(case, remat=remat) for case in cases(asked) for remat in (False, True))
    rows = [estimate(case, device) for case in found]
    publish(markdown(rows, topology.chip), rows, asked.json, f"estimate for {asked.topology}")


if __name__ == "__main__":
    with told_on_the_command_line():
        main()
