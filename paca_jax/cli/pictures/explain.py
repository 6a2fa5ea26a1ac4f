"""Measures what the clusters of a model do for its answers to pictures.

    paca explain --checkpoint PLACE IMAGE... --out DIR

PLACE is what `paca predict` takes. For each cluster of each assignment of the backbone the model answers once without it.
`effects.json` has how much less sure the model is of its answer, and which logits of a classifier, areas of a segmentor or
scores of a detector change most; `effects.md` has tables for people. Both have the effect of a random cluster beside that of
the strongest one, and deletion and insertion curves over the clusters, the largest effect first, beside those of random orders.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any

from paca_jax import data, explain
from paca_jax.cli.sources import add_picture_arguments, read_source, run_command
from paca_jax.command_line import Parser
from paca_jax.errors import UserError, one_line
from paca_jax.explain.checks import names_of_classes
from paca_jax.files import write_file
from paca_jax.paths import user_path

EFFECTS_FILE, TABLES_FILE = "effects.json", "effects.md"


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line; `argv` is by default that of the process."""
    run_command(_parser(), _explain, argv)


def _explain(arguments: argparse.Namespace) -> None:
    folder, pictures = user_path(arguments.out), list(dict.fromkeys(map(user_path, arguments.images)))
    existing = [folder / name for name in (EFFECTS_FILE, TABLES_FILE) if (folder / name).exists()]
    if existing and not arguments.overwrite:
        raise UserError(f"Expected no effects in {folder} yet, got {existing[0]}. Choose another --out, or give --overwrite.")
    loaded = read_source(arguments.checkpoint, arguments)
    loaded.log_departures()
    network: Any = loaded.model
    read = [data.preprocess(data.read_picture(path, network.config.image_channels), network) for path in pictures]
    blocks = explain.block_effects(network, loaded.variables, read, by_mean=arguments.by_mean)
    names = names_of_classes(network, loaded.class_names)
    report = explain.effect_report(blocks, [str(path) for path in pictures], names)
    text = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_file(folder / EFFECTS_FILE, text.encode(errors="backslashreplace"))
    write_file(folder / TABLES_FILE, explain.effect_tables(report).encode(errors="backslashreplace"))
    for block, found in report["blocks"].items():
        areas = ", ".join(f"{name.replace('_', ' ')} {area:.3f}" for name, area in found["areas"].items())
        print(f"{block}, {found['clusters']} clusters: {areas}; drop {_drops(found['drops'])}")
    print(one_line(f"Written to {folder}."))


def _drops(drops: Mapping[str, float | None]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {drop:+.4f}" for name, drop in drops.items() if drop is not None)


def _parser() -> Parser:
    parser = Parser("paca explain", __doc__)
    add_picture_arguments(parser)
    parser.add_argument("--out", metavar="DIR", required=True, help="the folder to write to")
    parser.add_argument("--by-mean", action="store_true", help="replace a cluster by the mean of the others, do not mask it")
    parser.add_argument("--overwrite", action="store_true", help="replace the effects that DIR already has")
    return parser
