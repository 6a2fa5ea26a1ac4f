"""Writes a page in which a person explores what the clusters of a model do with pictures.

    paca explore --checkpoint PLACE IMAGE... --out FILE.html

PLACE is a workdir, a safetensors or PyTorch file, its address, a folder of Hugging Face, hf://OWNER/NAME, or an official
model's name (its published weights are downloaded). The page is one HTML file that needs neither a server nor a network. It
shows, for each stage and block, which clusters a patch reads and what these gather, and the answer without each cluster. That
answer takes one forward pass per cluster and picture; --no-effects leaves it out.
"""

import argparse
import os
from collections.abc import Sequence
from typing import Any

from paca_jax import explain
from paca_jax.cli.sources import add_picture_arguments, read_source, run_command
from paca_jax.command_line import Parser
from paca_jax.errors import check, one_line
from paca_jax.paths import user_path


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line; `argv` is by default that of the process."""
    run_command(_parser(), _explore, argv)


def _explore(arguments: argparse.Namespace) -> None:
    page, pictures = user_path(arguments.out), [user_path(image) for image in arguments.images]
    check(page.suffix == ".html", f"Expected --out to end in .html, got {page}. Name such a file.")
    exists = not arguments.overwrite and page.exists()
    check(not exists, f"Expected no file at {page}, got one. Choose another --out, or replace it with --overwrite.")
    loaded = read_source(arguments.checkpoint, arguments)
    loaded.log_departures()
    built: Any = loaded.model
    explorer = explain.explorer(built, loaded.variables, pictures, loaded.class_names, effects=arguments.effects)
    explorer.write(page)
    print(one_line(f"Written to {os.fspath(page)} ({len(explorer.html.encode()) / 2**20:.1f} MiB)."))


def _parser() -> Parser:
    parser = Parser("paca explore", __doc__)
    add_picture_arguments(parser)
    parser.add_argument("--out", metavar="FILE", required=True, help="the page to write, FILE.html")
    parser.add_argument("--no-effects", dest="effects", action="store_false", help="leave out the answers without each cluster")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE if it is there")
    return parser
