"""Measures what the clusters of a classifier do for its answers to pictures.

    paca explain --checkpoint PLACE IMAGE... --out DIR

PLACE is what `paca predict` takes. For each cluster of each assignment the model answers once without it. DIR gets
`effects.json`, with the drop of the predicted class's log-probability and the logits that change most, and `effects.md`, tables
of the same for people. Both have deletion and insertion curves over the clusters in the order of their effects, beside those
of random orders.
"""

import argparse
import json
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from paca_jax import data, explain
from paca_jax.cache import keep_compiled_programs
from paca_jax.cli.sources import add_picture_arguments, read_source
from paca_jax.command_line import Parser, command_line
from paca_jax.errors import UserError, one_line
from paca_jax.files import write_file
from paca_jax.memory import keep_freed_memory
from paca_jax.paths import user_path

EFFECTS_FILE, TABLES_FILE = "effects.json", "effects.md"


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line; `argv` is by default that of the process."""
    with command_line():
        arguments = _parser().parse_args(argv)
        keep_compiled_programs()
        keep_freed_memory()
        _explain(arguments)


def _explain(arguments: argparse.Namespace) -> None:
    folder, pictures = user_path(arguments.out), list(dict.fromkeys(map(user_path, arguments.images)))
    existing = [folder / name for name in (EFFECTS_FILE, TABLES_FILE) if (folder / name).exists()]
    if existing and not arguments.overwrite:
        raise UserError(f"Expected no effects in {folder} yet, got {existing[0]}. Choose another --out, or give --overwrite.")
    loaded = read_source(arguments.checkpoint, arguments)
    loaded.log_departures()
    network: Any = loaded.model
    read = [data.preprocess(data.read_picture(path, network.config.image_channels), network) for path in pictures]
    blocks = explain.block_effects(network, loaded.variables, jnp.asarray(np.stack(read)), by_mean=arguments.by_mean)
    known = loaded.class_names or data.assumed_names(network.config.num_classes)
    report = explain.effect_report(blocks, [str(path) for path in pictures], known)
    text = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_file(folder / EFFECTS_FILE, text.encode(errors="backslashreplace"))
    write_file(folder / TABLES_FILE, explain.effect_tables(report).encode(errors="backslashreplace"))
    for block, found in report["blocks"].items():
        areas = ", ".join(f"{name.replace('_', ' ')} {area:.3f}" for name, area in found["areas"].items())
        print(f"{block}, {found['clusters']} clusters: {areas}")
    print(one_line(f"Written to {folder}."))


def _parser() -> Parser:
    parser = Parser("paca explain", __doc__)
    add_picture_arguments(parser)
    parser.add_argument("--out", metavar="DIR", required=True, help="the folder to write to")
    parser.add_argument("--by-mean", action="store_true", help="replace a cluster by the mean of the others, do not mask it")
    parser.add_argument("--overwrite", action="store_true", help="replace the effects that DIR already has")
    return parser
