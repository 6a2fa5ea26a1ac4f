"""Finds classes, segments or objects in pictures.

    paca predict --checkpoint PLACE IMAGE... --out DIR

PLACE is a workdir, a `.safetensors` or `.pth` file, or an official model's name (its published weights are downloaded). DIR
gets `predictions.json`. A segmentor adds NAME.mask.png for each picture, whose indices are the classes, and NAME.overlay.png
for people. A detector adds NAME.overlay.png with the objects whose score is above one half. A classifier with clusters adds
NAME.clusters.png.
"""

import argparse
import itertools
import json
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from paca_jax import data
from paca_jax.cache import keep_compiled_programs
from paca_jax.checkpoints.loading import read_model
from paca_jax.errors import UserError, exit_on_user_error
from paca_jax.memory import keep_freed_memory
from paca_jax.tasks.prediction import make_predictor


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line; `argv` is by default that of the process."""
    options = _parser().parse_args(argv)
    keep_compiled_programs()
    keep_freed_memory()
    with exit_on_user_error():
        predict(options.images, options.checkpoint, options.out, options.model)


def predict(images: Sequence[Path], checkpoint: str, out: Path, model: str | None = None) -> None:
    """Writes and prints the predictions for pictures, one after the other.

    Args:
        images: image files.
        checkpoint: a source of weights as for `paca_jax.load`, or an official model's name.
        out: the folder to write to.
        model: the model's name, if the source does not record it.

    Raises:
        UserError: if the weights or a picture cannot be read. The predictions for the pictures before it are written.
    """
    predictor = make_predictor(read_model(checkpoint, model))
    out.mkdir(parents=True, exist_ok=True)
    entries = {}
    try:
        for path, name in _output_names(images).items():
            entries[str(path)], line = predictor(_read(path), out / name)
            print(f"{path}: {line}")
    finally:
        (out / "predictions.json").write_text(json.dumps(entries, indent=2, ensure_ascii=False) + "\n", "utf-8")
    print(f"Written to {out}.")


def _read(path: Path) -> Image.Image:
    try:
        return data.decode_image(path.read_bytes(), 3)
    except OSError as error:
        raise UserError(f"Expected an image file at {path}, got: {error.strerror}. Check the path.") from error
    except data.ImageError as error:
        raise UserError(f"{path}: {error}") from error


def _output_names(paths: Sequence[Path]) -> dict[Path, str]:
    """Returns a unique name for the files of each picture: its own, with a number if another picture has the same."""
    names, taken = {}, set()
    for path in dict.fromkeys(paths):
        numbered = (f"{path.stem}_{number}" for number in itertools.count(2))
        names[path] = next(name for name in itertools.chain([path.stem], numbered) if name not in taken)
        taken.add(names[path])
    return names


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="paca predict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", metavar="IMAGE", type=Path, nargs="+", help="pictures: JPEG, PNG, ...")
    parser.add_argument("--checkpoint", metavar="PLACE", required=True, help="workdir, file of weights, or a model's name")
    parser.add_argument("--model", metavar="NAME", help="the model's name, if the source does not record it")
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="the folder to write to")
    return parser
