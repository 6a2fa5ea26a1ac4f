"""Measures what the clusters of a classifier do for its answers to pictures.

    paca explain --checkpoint PLACE IMAGE... --out DIR

PLACE is what `paca predict` takes. For each cluster of each assignment the model answers once without it. DIR gets
`effects.json`, with the drop of the predicted class's log-probability and the logits that change most, and `effects.md`, tables
of the same for people. Both have deletion and insertion curves over the clusters in the order of their effects, beside those
of random orders.
"""

import json
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from paca_jax import data, explain
from paca_jax.cache import keep_compiled_programs
from paca_jax.checkpoints.loading import read_model
from paca_jax.cli.sources import read_class_names
from paca_jax.command_line import Parser, command_line
from paca_jax.convert.checkpoint import WEIGHTS
from paca_jax.errors import UserError, one_line
from paca_jax.files import write_file
from paca_jax.memory import keep_freed_memory
from paca_jax.paths import user_path

EFFECTS_FILE, TABLES_FILE = "effects.json", "effects.md"


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line; `argv` is by default that of the process."""
    with command_line():
        options = _parser().parse_args(argv)
        keep_compiled_programs()
        keep_freed_memory()
        explain_clusters(
            options.images,
            options.checkpoint,
            options.out,
            options.model,
            weights=options.weights,
            image_size=options.image_size,
            class_names=options.class_names,
            allow_nonfinite=options.allow_nonfinite,
            by_mean=options.by_mean,
            overwrite=options.overwrite,
        )


def explain_clusters(
    images: Sequence[str],
    checkpoint: str,
    out: str,
    model: str | None = None,
    *,
    weights: str | None = None,
    image_size: int | None = None,
    class_names: str | None = None,
    allow_nonfinite: bool = False,
    by_mean: bool = False,
    overwrite: bool = False,
) -> None:
    """Writes what clusters do for the answers to pictures, and prints a line for each assignment.

    Args:
        images: image files.
        checkpoint: a source of weights as for `paca_jax.load`, or an official model's name.
        out: the folder to write to.
        model: the model's name, if the source does not record it.
        weights: "raw" or "ema", if the source has both.
        image_size: the side in pixels at which the classifier sees images; None for what the source records.
        class_names: a text file with the name of a class in each line, instead of the names that the source has.
        allow_nonfinite: accept weights that are NaN or infinite; a warning names them.
        by_mean: whether a cluster that is removed alone becomes the mean of the others instead of being masked.
        overwrite: replace the files of an earlier command.

    Raises:
        UserError: if the weights or a picture cannot be read, the model is no classifier with clusters, or a file would be
            replaced. Nothing is written then.
    """
    folder, pictures = user_path(out), list(dict.fromkeys(user_path(image) for image in images))
    existing = [folder / name for name in (EFFECTS_FILE, TABLES_FILE) if (folder / name).exists()]
    if existing and not overwrite:
        raise UserError(f"Expected no effects in {folder} yet, got {existing[0]}. Choose another --out, or give --overwrite.")
    names = read_class_names(class_names)
    size: dict[str, Any] = {} if image_size is None else {"image_size": image_size}
    loaded = read_model(checkpoint, model, weights=weights, allow_nonfinite=allow_nonfinite, class_names=names, **size)
    loaded.log_departures()
    network: Any = loaded.model
    read = [data.preprocess(data.read_picture(path, network.config.image_channels), network) for path in pictures]
    blocks = explain.block_effects(network, loaded.variables, jnp.asarray(np.stack(read)), by_mean=by_mean)
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
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="pictures: JPEG, PNG, ...")
    parser.add_argument("--checkpoint", metavar="PLACE", required=True, help="workdir, file of weights, or model's name")
    parser.add_argument("--model", metavar="NAME", help="the model's name, if the source does not record it")
    parser.add_argument("--out", metavar="DIR", required=True, help="the folder to write to")
    parser.add_argument("--weights", choices=WEIGHTS, help="the weights or their average, if PLACE has both")
    parser.add_argument("--image-size", metavar="N", type=int, help="the side of images in pixels")
    parser.add_argument("--class-names", metavar="FILE", help="a text file with the name of a class in each line")
    parser.add_argument("--allow-nonfinite", action="store_true", help="accept weights that are NaN or infinite")
    parser.add_argument("--by-mean", action="store_true", help="replace a cluster by the mean of the others, do not mask it")
    parser.add_argument("--overwrite", action="store_true", help="replace the effects that DIR already has")
    return parser
