"""Estimates how many images a TPU chip can train on at once, with and without rematerialization of blocks.

    python -m benchmarks.tpu_memory [--model NAME ...] [--batch 32 ...] [--image-size 224 384 ...] [--dtype bfloat16]
        [--topology v5e:1x1] [--json FILE]

Programs are compiled ahead of time with libtpu (pip install "paca-jax[tpu]"), which takes minutes each; nothing is run. The
step is the gradient and AdamW. The compiler reports the memory of --batch images besides parameters and optimizer state; the
number that fits is extrapolated to the rest of the chip's memory. FLOPs are those of matrix products and convolutions,
including recomputed ones. Set ALLOW_MULTIPLE_LIBTPU_LOAD=1 if another process holds libtpu and no TPU is attached.
"""

import dataclasses
from typing import Any

import jax

from benchmarks.kernels import add_topology, compile_only_chip
from benchmarks.measure import MIB, add_json, gib, publish, table
from benchmarks.programs import TRAINING, Case, cases, programs
from paca_jax.command_line import Parser, command_line
from paca_jax.planning.flops import matrix_flops
from paca_jax.planning.topology import Chip


def estimate(case: Case, device: jax.Device) -> dict[str, Any]:
    """Returns the FLOPs and the memory of the training step of a case.

    Args:
        case: the model and its input.
        device: a compile-only device.
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
    """Returns the number of images that fit into a chip's memory if each needs as much as one of the compiled step."""
    per_image = (row["total_bytes"] - row["state_bytes"]) / row["batch"]
    return int((chip.usable_hbm_bytes - row["state_bytes"]) / per_image)


def markdown(rows: list[dict[str, Any]], chip: Chip) -> str:
    """Returns the rows as a table."""
    return table(
        ("model", "blocks"),
        (
            "pixels",
            "GFLOP per image",
            "batch",
            "temporaries, GiB",
            "MiB per image",
            f"images in {gib(chip.usable_hbm_bytes)} GiB",
        ),
        (
            (
                f"`{row['model']}`",
                "recomputed" if row["remat"] else "kept",
                f"{row['image_size']}",
                f"{row['matrix_flops'] / row['batch'] / 1e9:.1f}",
                f"{row['batch']}",
                gib(row["temporary_bytes"]),
                f"{(row['total_bytes'] - row['state_bytes']) / row['batch'] / MIB:.1f}",
                f"{images(row, chip):,}",
            )
            for row in rows
        ),
    )


def main() -> None:
    """Prints the table and writes the JSON file."""
    parser = Parser(description=__doc__)
    add_topology(parser, batch=32)
    add_json(parser)
    args = parser.parse_args()
    device, chip = compile_only_chip(args.topology)
    found = (dataclasses.replace(case, remat=remat) for case in cases(args) for remat in (False, True))
    rows = [estimate(case, device) for case in found]
    publish(markdown(rows, chip), rows, args.json, f"estimate for {args.topology}")


if __name__ == "__main__":
    with command_line():
        main()
