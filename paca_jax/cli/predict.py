"""Says what a model sees in pictures: `python -m paca_jax.predict --checkpoint PLACE IMAGE... --out DIR`.

PLACE is a workdir, a `.safetensors` or `.pth` file, or an official model's name (its published weights are fetched). DIR gets
`predictions.json`. A segmentor adds for each picture NAME.mask.png, whose indices are the classes, and NAME.overlay.png for
people; a detector adds NAME.overlay.png, with the objects whose score is above one half; a classifier with clusters adds
NAME.clusters.png.
"""

import argparse
import itertools
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from paca_jax import data, explain
from paca_jax.cache import keep_compiled_programs
from paca_jax.checkpoints.loading import Loaded, load_reported
from paca_jax.errors import UserError, told_on_the_command_line
from paca_jax.memory import keep_freed_memory
from paca_jax.models import Detector, Segmentor, list_models
from paca_jax.tasks.detection.prediction import DRAWN_SCORE, detect_in_picture, to_draw
from paca_jax.tasks.segmentation.prediction import predict_picture
from paca_jax.tasks.segmentation.views import Viewing

TOP = 5


class Prediction(NamedTuple):
    """What a model sees in a picture.

    Attributes:
        entries: classes with their `name` and `share`, or objects with their `name`, `score` and `box`; the largest first.
        line: what there is to say of it.
    """

    entries: list[dict[str, Any]]
    line: str


# Writes files whose names begin with the path.
Predictor = Callable[[Image.Image, Path], Prediction]


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    arguments = _parser().parse_args(argv)
    keep_compiled_programs()
    keep_freed_memory()
    with told_on_the_command_line():
        predict(arguments.images, arguments.checkpoint, arguments.out, arguments.model)


def predict(images: Sequence[Path], checkpoint: str, out: Path, model: str | None = None) -> None:
    """Writes and prints what a model sees in pictures, one after the other.

    Args:
        images: files.
        checkpoint: as for `paca_jax.load`, or an official model's name.
        out: the folder to write to.
        model: the model's name, where a file does not tell it.

    Raises:
        UserError: if the weights or a picture cannot be read; what was said of the pictures before it is written.
    """
    pretrained = checkpoint in list_models() and not Path(checkpoint).exists()
    loaded = load_reported(checkpoint, model, pretrained=pretrained)
    kinds: dict[type, Callable[[Loaded], Predictor]] = {Segmentor: _segmentation, Detector: _detection}
    predictor = kinds.get(type(loaded.model), _classification)(loaded)
    out.mkdir(parents=True, exist_ok=True)
    report = {}
    try:
        for path, name in _output_names(images).items():
            report[str(path)], line = predictor(_read(path), out / name)
            print(f"{path}: {line}")
    finally:
        (out / "predictions.json").write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", "utf-8")
    print(f"Written to {out}.")


def _classification(loaded: Loaded) -> Predictor:
    """Returns the predictor of the likeliest classes and their probabilities."""
    model, variables, classes = loaded.model, loaded.variables, _class_names(loaded)
    apply = jax.jit(model.apply)

    def classify(picture: Image.Image, files: Path) -> Prediction:
        image = jnp.asarray(data.preprocess(picture, model))[None]
        if any(model.config.clusters):
            sheet = explain.cluster_sheet(model, variables, [picture], image, classes)
            files.with_name(f"{files.name}.clusters.png").write_bytes(explain.to_png(sheet))
        return _ranked(np.asarray(jax.nn.softmax(apply(variables, image)[0])), classes, TOP)

    return classify


def _segmentation(loaded: Loaded) -> Predictor:
    """Returns the predictor of the classes of pixels and their shares of the picture."""
    variables, classes = loaded.variables, _class_names(loaded)
    model: Any = loaded.model
    config = model.config
    transform = data.SegmentationEvalTransform(config.num_classes, config.image_channels, config.short_side, config.long_side)

    def segment(picture: Image.Image, files: Path) -> Prediction:
        shown = data.convert_image(picture, config.image_channels)
        labels = predict_picture(model, variables, shown, transform, Viewing())
        files.with_name(f"{files.name}.mask.png").write_bytes(explain.mask_png(labels, config.num_classes))
        overlay = explain.segment_overlay(picture, labels, classes)
        files.with_name(f"{files.name}.overlay.png").write_bytes(explain.to_png(overlay))
        shares = np.bincount(labels.ravel(), minlength=config.num_classes) / labels.size
        return _ranked(shares, classes, int(np.count_nonzero(shares)))

    return segment


def _detection(loaded: Loaded) -> Predictor:
    """Returns the predictor of objects, their scores and their boxes in pixels."""
    variables, classes = loaded.variables, _class_names(loaded)
    model: Any = loaded.model
    config = model.config
    transform = data.DetectionEvalTransform(config.short_side, config.long_side, config.image_channels)

    def find(picture: Image.Image, files: Path) -> Prediction:
        found = detect_in_picture(model, variables, data.convert_image(picture, config.image_channels), transform)
        overlay = explain.detection_sheet([to_draw(picture, found)], classes)
        files.with_name(f"{files.name}.overlay.png").write_bytes(explain.to_png(overlay))
        entries = [
            {"name": classes[label], "score": score, "box": box}
            for label, score, box in zip(found.labels.tolist(), found.scores.tolist(), found.boxes.tolist(), strict=True)
        ]
        counts = Counter(entry["name"] for entry in entries if entry["score"] > DRAWN_SCORE)
        line = ", ".join(f"{count} x {name}" for name, count in counts.most_common(TOP))
        return Prediction(entries, line or f"no object with a score above {DRAWN_SCORE}")

    return find


def _ranked(shares: np.ndarray, classes: Sequence[str], count: int) -> Prediction:
    """Returns the classes with the largest shares."""
    entries = [{"name": classes[k], "share": float(shares[k])} for k in np.argsort(-shares, kind="stable")[:count]]
    return Prediction(entries, ", ".join(f"{entry['name']} {entry['share']:.1%}" for entry in entries[:TOP]))


def _read(path: Path) -> Image.Image:
    try:
        return data.decode_image(path.read_bytes(), 3)
    except OSError as error:
        raise UserError(f"Expected an image file at {path}, got: {error.strerror}; check the path.") from error
    except data.ImageError as error:
        raise UserError(f"{path}: {error}") from error


def _output_names(paths: Sequence[Path]) -> dict[Path, str]:
    """Returns a name for each picture's files: its own, and a number where another one had it."""
    names, taken = {}, set()
    for path in dict.fromkeys(paths):
        numbered = (f"{path.stem}_{number}" for number in itertools.count(2))
        names[path] = next(name for name in itertools.chain([path.stem], numbered) if name not in taken)
        taken.add(names[path])
    return names


def _class_names(loaded: Loaded) -> tuple[str, ...]:
    """Returns the classes' names: those of the run, or of the data set that has as many, or numbers."""
    count = loaded.model.config.num_classes
    if loaded.class_names is not None:
        return loaded.class_names
    known = {len(names): names for names in (data.IMAGENET_CLASSES, data.ADE20K_CLASSES, data.COCO_CLASSES)}
    return known.get(count, tuple(f"class {index}" for index in range(count)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m paca_jax.predict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", metavar="IMAGE", type=Path, nargs="+", help="pictures: JPEG, PNG, ...")
    parser.add_argument("--checkpoint", metavar="PLACE", required=True, help="workdir, file of weights, or a model's name")
    parser.add_argument("--model", metavar="NAME", help="the model's name, where a file does not tell it")
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="the folder to write to")
    return parser


if __name__ == "__main__":
    main()
