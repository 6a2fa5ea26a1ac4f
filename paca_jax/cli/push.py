"""Uploads a model to the Hugging Face Hub, or writes the folder that it would upload.

    paca push SOURCE OWNER/NAME [--private] [--branch NAME] [--license ID]
    paca push SOURCE OWNER/NAME --to FOLDER

SOURCE is a workdir, a safetensors or PyTorch file, its address, a folder of Hugging Face, hf://OWNER/NAME, or an official
model's name. The repository gets `model.safetensors`, `config.json`, a model card and, of a finished run, the picture that it
has drawn, in one commit; it is made if it does not exist. It is public unless --private is given: look at the folder of --to
first. The token is that of `hf auth login`, or HF_TOKEN.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from paca_jax.checkpoints.hub.folder import write_hub_folder
from paca_jax.checkpoints.hub.upload import check_login, upload_hub_folder
from paca_jax.checkpoints.loading import Loaded
from paca_jax.cli.sources import print_departures, read_class_names
from paca_jax.command_line import Parser, command_line
from paca_jax.convert.checkpoint import WEIGHTS
from paca_jax.errors import UserError, one_line
from paca_jax.files import check_new_folder
from paca_jax.version import __version__


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line; `argv` is by default that of the process."""
    with command_line():
        _push(_parser().parse_args(argv))


def _push(arguments: argparse.Namespace) -> None:
    if arguments.to is not None:
        for flag in ("private", "branch", "message"):
            if getattr(arguments, flag):
                raise UserError(f"Expected --{flag} without --to, which uploads nothing, got both. Leave one of them out.")
        folder = check_new_folder(arguments.to)
        loaded = _write(arguments, str(folder))
        _report(f"Wrote {folder}", Path(folder), loaded)
        return
    check_login(arguments.repository)
    with tempfile.TemporaryDirectory(prefix="paca-push-") as temporary:
        loaded = _write(arguments, temporary)
        message = arguments.message or f"Upload {loaded.recipe['name']} with paca-jax {__version__}"
        address = upload_hub_folder(
            temporary, arguments.repository, message=message, private=arguments.private, branch=arguments.branch
        )
        _report(f"Pushed {address}", Path(temporary), loaded)


def _write(arguments: argparse.Namespace, folder: str) -> Loaded:
    return write_hub_folder(
        arguments.source,
        folder,
        arguments.repository,
        model=arguments.model,
        weights=arguments.weights,
        class_names=read_class_names(arguments.class_names),
        license=arguments.license,
        picture=not arguments.no_picture,
        allow_nonfinite=arguments.allow_nonfinite,
    )


def _report(done: str, folder: Path, loaded: Loaded) -> None:
    files = ", ".join(f"{path.name} ({path.stat().st_size:,} bytes)" for path in sorted(folder.iterdir()))
    print(one_line(f"{done}: {loaded.recipe['name']}; {files}."))
    print_departures(loaded)


def _parser() -> Parser:
    parser = Parser("paca push", __doc__)
    parser.add_argument("source", metavar="SOURCE", help="workdir, file of weights or its address, or an official model's name")
    parser.add_argument("repository", metavar="OWNER/NAME", help="the repository of the Hub")
    parser.add_argument("--to", metavar="FOLDER", help="write the folder here, new or empty, and upload nothing")
    parser.add_argument("--private", action="store_true", help="make a private repository; refuse one that is public")
    parser.add_argument("--branch", metavar="NAME", help="the branch to commit to, made if needed (default: main)")
    parser.add_argument("--message", metavar="TEXT", help="the message of the commit")
    parser.add_argument("--license", metavar="ID", help="the license of the weights in the Hub's words, e.g. mit")
    parser.add_argument("--model", metavar="NAME", help="the model's name, if the source does not say it")
    parser.add_argument("--weights", choices=WEIGHTS, help="the weights or their average, if the source has both")
    parser.add_argument("--class-names", metavar="FILE", help="a text file with the name of a class in each line")
    parser.add_argument("--no-picture", action="store_true", help="leave out the picture, which shows evaluation images")
    parser.add_argument("--allow-nonfinite", action="store_true", help="accept weights that are NaN or infinite")
    return parser
