"""Finds classes, segments or objects in pictures.

    paca predict --checkpoint PLACE IMAGE... --out DIR

PLACE is a workdir, a safetensors or PyTorch file, its address, a folder of Hugging Face, hf://OWNER/NAME, or an official
model's name (its published weights are downloaded). DIR gets `predictions.json`. A segmentor adds NAME.mask.png for each
picture, whose indices are the classes, and NAME.overlay.png for people. A detector adds NAME.overlay.png with the objects whose
score is above --score, one half by default; `predictions.json` has those below it, too. A model with clusters adds
NAME.clusters.png: its answer, and the strongest clusters of each stage. Images in DIR that its `predictions.json` does not list
are replaced only with --overwrite.
"""

from collections.abc import Sequence
from typing import Any

from paca_jax import data
from paca_jax.cache import keep_compiled_programs
from paca_jax.checkpoints.loading import read_model
from paca_jax.cli.predictions import Predictions
from paca_jax.cli.sources import read_class_names
from paca_jax.command_line import Parser, command_line
from paca_jax.convert.checkpoint import WEIGHTS
from paca_jax.errors import UserError, one_line
from paca_jax.fields import check_value
from paca_jax.memory import keep_freed_memory
from paca_jax.paths import user_path
from paca_jax.tasks.prediction import Score, make_predictor


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line; `argv` is by default that of the process."""
    with command_line():
        options = _parser().parse_args(argv)
        keep_compiled_programs()
        keep_freed_memory()
        predict(
            options.images,
            options.checkpoint,
            options.out,
            options.model,
            weights=options.weights,
            image_size=options.image_size,
            class_names=options.class_names,
            score=options.score,
            allow_nonfinite=options.allow_nonfinite,
            overwrite=options.overwrite,
        )


def predict(
    images: Sequence[str],
    checkpoint: str,
    out: str,
    model: str | None = None,
    *,
    weights: str | None = None,
    image_size: int | None = None,
    class_names: str | None = None,
    score: float | None = None,
    allow_nonfinite: bool = False,
    overwrite: bool = False,
) -> None:
    """Writes and prints the predictions for pictures, one after the other.

    Args:
        images: image files.
        checkpoint: a source of weights as for `paca_jax.load`, or an official model's name.
        out: the folder to write to.
        model: the model's name, if the source does not record it.
        weights: "raw" or "ema", if the source has both.
        image_size: the side in pixels at which a classifier sees images, or the short side of a segmentor or detector; None for
            what the source records.
        class_names: a text file with the name of a class in each line, instead of the names that the source has.
        score: the score above which objects of a detector are drawn and printed, from 0 to 1; None for one half.
        allow_nonfinite: accept weights that are NaN or infinite; a warning names them.
        overwrite: replace files in the folder that its `predictions.json` does not list.

    Raises:
        UserError: if the weights or a picture cannot be read, a file would be replaced that is not listed, or `score` is out of
            range or given for another model than a detector. The predictions for the pictures before it are written, and
            earlier ones for those after it stay.
    """
    check_value("score", score, Score | None)
    folder, pictures = user_path(out), [user_path(image) for image in images]
    names = read_class_names(class_names)
    size: dict[str, Any] = {} if image_size is None else {"image_size": image_size}
    loaded = read_model(checkpoint, model, weights=weights, allow_nonfinite=allow_nonfinite, class_names=names, **size)
    loaded.log_departures()
    predictor = make_predictor(loaded, score)
    predictions = Predictions(folder, pictures, predictor.kinds, overwrite)
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
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="pictures: JPEG, PNG, ...")
    parser.add_argument("--checkpoint", metavar="PLACE", required=True, help="workdir, file of weights, or model's name")
    parser.add_argument("--model", metavar="NAME", help="the model's name, if the source does not record it")
    parser.add_argument("--out", metavar="DIR", required=True, help="the folder to write to")
    parser.add_argument("--weights", choices=WEIGHTS, help="the weights or their average, if PLACE has both")
    parser.add_argument("--image-size", metavar="N", type=int, help="the side of images in pixels, or their short side")
    parser.add_argument("--class-names", metavar="FILE", help="a text file with the name of a class in each line")
    parser.add_argument(
        "--score", metavar="X", type=float, help="the score above which objects are drawn and printed, 0 to 1 (default: 0.5)"
    )
    parser.add_argument("--allow-nonfinite", action="store_true", help="accept weights that are NaN or infinite")
    parser.add_argument("--overwrite", action="store_true", help="replace files in DIR that its predictions.json does not list")
    return parser
