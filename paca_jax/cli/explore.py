"""Writes a page in which a person explores what the clusters of a model do with pictures.

    paca explore --checkpoint PLACE IMAGE... --out FILE.html

PLACE is a workdir, a safetensors or PyTorch file, its address, a folder of Hugging Face, hf://OWNER/NAME, or an official
model's name (its published weights are downloaded). The page is one HTML file that needs neither a server nor a network. It
shows, for each stage and block, which clusters a patch reads and what these gather, and the answer without each cluster. That
answer takes one forward pass per cluster and picture; --no-effects leaves it out.
"""

import os
from collections.abc import Sequence
from typing import Any

from paca_jax import explain
from paca_jax.cache import keep_compiled_programs
from paca_jax.checkpoints.loading import read_model
from paca_jax.cli.sources import read_class_names
from paca_jax.command_line import Parser, command_line
from paca_jax.convert.checkpoint import WEIGHTS
from paca_jax.errors import check, one_line
from paca_jax.memory import keep_freed_memory
from paca_jax.paths import user_path


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line; `argv` is by default that of the process."""
    with command_line():
        options = _parser().parse_args(argv)
        keep_compiled_programs()
        keep_freed_memory()
        explore(
            options.images,
            options.checkpoint,
            options.out,
            options.model,
            weights=options.weights,
            image_size=options.image_size,
            class_names=options.class_names,
            effects=options.effects,
            allow_nonfinite=options.allow_nonfinite,
            overwrite=options.overwrite,
        )


def explore(
    images: Sequence[str],
    checkpoint: str,
    out: str,
    model: str | None = None,
    *,
    weights: str | None = None,
    image_size: int | None = None,
    class_names: str | None = None,
    effects: bool = True,
    allow_nonfinite: bool = False,
    overwrite: bool = False,
) -> None:
    """Writes the page of `paca_jax.explain.explorer` for pictures.

    Args:
        images: image files.
        checkpoint: a source of weights as for `paca_jax.load`, or an official model's name.
        out: the file to write, which ends in .html.
        model: the model's name, if the source does not record it.
        weights: "raw" or "ema", if the source has both.
        image_size: the side in pixels at which a classifier sees images, or the short side of a segmentor or detector; None for
            what the source records.
        class_names: a text file with the name of a class in each line, instead of the names that the source has.
        effects: whether to compute the answers without each cluster.
        allow_nonfinite: accept weights that are NaN or infinite; a warning names them.
        overwrite: replace the file if there is one.

    Raises:
        UserError: if the weights or a picture cannot be read, the model has no clusters, or the file is there or is no page.
    """
    page, pictures = user_path(out), [user_path(image) for image in images]
    check(page.suffix == ".html", f"Expected --out to end in .html, got {page}. Name such a file.")
    exists = not overwrite and page.exists()
    check(not exists, f"Expected no file at {page}, got one. Choose another --out, or replace it with --overwrite.")
    names = read_class_names(class_names)
    size: dict[str, Any] = {} if image_size is None else {"image_size": image_size}
    loaded = read_model(checkpoint, model, weights=weights, allow_nonfinite=allow_nonfinite, class_names=names, **size)
    loaded.log_departures()
    built: Any = loaded.model
    explorer = explain.explorer(built, loaded.variables, pictures, loaded.class_names, effects=effects)
    explorer.write(page)
    print(one_line(f"Written to {os.fspath(page)} ({len(explorer.html.encode()) / 2**20:.1f} MiB)."))


def _parser() -> Parser:
    parser = Parser("paca explore", __doc__)
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="pictures: JPEG, PNG, ...")
    parser.add_argument("--checkpoint", metavar="PLACE", required=True, help="workdir, file of weights, or model's name")
    parser.add_argument("--model", metavar="NAME", help="the model's name, if the source does not record it")
    parser.add_argument("--out", metavar="FILE", required=True, help="the page to write, FILE.html")
    parser.add_argument("--weights", choices=WEIGHTS, help="the weights or their average, if PLACE has both")
    parser.add_argument("--image-size", metavar="N", type=int, help="the side of images in pixels, or their short side")
    parser.add_argument("--class-names", metavar="FILE", help="a text file with the name of a class in each line")
    parser.add_argument("--no-effects", dest="effects", action="store_false", help="leave out the answers without each cluster")
    parser.add_argument("--allow-nonfinite", action="store_true", help="accept weights that are NaN or infinite")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE if it is there")
    return parser
