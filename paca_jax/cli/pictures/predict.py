"""Finds classes, segments or objects in pictures.

    paca predict --checkpoint PLACE IMAGE... --out DIR

PLACE is a workdir, a safetensors or PyTorch file, its address, a folder of Hugging Face, hf://OWNER/NAME, or an official
model's name (its published weights are downloaded). DIR gets `predictions.json`. A segmentor adds NAME.mask.png for each
picture, whose indices are the classes, and NAME.overlay.png for people. A detector adds NAME.overlay.png with the objects whose
score is above --score, one half by default; `predictions.json` has those below it, too. A model with clusters adds
NAME.clusters.png: its answer, and the sharpest clusters of each stage. Images in DIR that its `predictions.json` does not list
are replaced only with --overwrite.
"""

import argparse
from collections.abc import Sequence

from paca_jax import data
from paca_jax.cli.pictures.predictions import Predictions
from paca_jax.cli.sources import add_picture_arguments, read_source, run_command
from paca_jax.command_line import Parser
from paca_jax.errors import UserError, one_line
from paca_jax.fields import check_value
from paca_jax.paths import user_path
from paca_jax.tasks.prediction import Score, make_predictor


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line; `argv` is by default that of the process."""
    run_command(_parser(), _predict, argv)


def _predict(arguments: argparse.Namespace) -> None:
    check_value("score", arguments.score, Score | None)
    folder, pictures = user_path(arguments.out), [user_path(image) for image in arguments.images]
    loaded = read_source(arguments.checkpoint, arguments)
    loaded.log_departures()
    predictor = make_predictor(loaded, arguments.score)
    predictions = Predictions(folder, pictures, predictor.kinds, arguments.overwrite)
    complete = False
    try:
        for path in dict.fromkeys(pictures):
            picture = data.read_picture(path, 3)
            try:
                found = predictor.predict(picture)
            except UserError as error:
                raise UserError(f"{path}: {error}") from error
            predictions.add(path, found.entries, found.images)
            print(one_line(f"{path}: {found.line}"))
        complete = True
    finally:
        predictions.write(complete)
    print(one_line(f"Written to {folder}."))


def _parser() -> Parser:
    parser = Parser("paca predict", __doc__)
    add_picture_arguments(parser)
    parser.add_argument("--out", metavar="DIR", required=True, help="the folder to write to")
    parser.add_argument(
        "--score", metavar="X", type=float, help="the score above which objects are drawn and printed, 0 to 1 (default: 0.5)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files in DIR that its predictions.json does not list")
    return parser
