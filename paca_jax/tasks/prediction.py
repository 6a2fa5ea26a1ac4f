"""Predictions for a picture as they are published: entries for JSON, a line of text, and images."""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from PIL import Image

from paca_jax import data, explain
from paca_jax.checkpoints.loading import Loaded
from paca_jax.errors import UserError
from paca_jax.models import Detector, Segmentor
from paca_jax.tasks.classification.prediction import classify_image
from paca_jax.tasks.detection.prediction import DRAWN_SCORE, detect_in_picture, to_draw
from paca_jax.tasks.segmentation.prediction import segment_picture
from paca_jax.tasks.segmentation.views import Viewing

logger = logging.getLogger(__name__)

# The published data set of each task, and the names of its classes.
_PUBLISHED = {Segmentor: ("ADE20K", data.ADE20K_CLASSES), Detector: ("COCO", data.COCO_CLASSES)}

# The number of classes in a line, and in the entries of a classifier.
TOP = 5


class Prediction(NamedTuple):
    """The prediction for a picture.

    Attributes:
        entries: classes with their `name` and `share`, or objects with their `name`, `score` and `box`; the largest first.
        line: the same in short, for people.
        images: {kind: content of a PNG file}.
    """

    entries: list[dict[str, Any]]
    line: str
    images: dict[str, bytes]


class Predictor(NamedTuple):
    """The predictor of a model.

    Attributes:
        kinds: the kinds of images that each prediction has: "mask", "overlay", "clusters".
        predict: returns the prediction for a picture.
    """

    kinds: tuple[str, ...]
    predict: Callable[[Image.Image], Prediction]


def make_predictor(loaded: Loaded) -> Predictor:
    """Returns the predictor of a model of any task."""
    kinds: dict[type, Callable[[Loaded], Predictor]] = {Segmentor: _segmentation, Detector: _detection}
    return kinds.get(type(loaded.model), _classification)(loaded)


def _classification(loaded: Loaded) -> Predictor:
    """Returns the predictor of the most likely classes. A `share` is a probability."""
    variables, classes = loaded.variables, _class_names(loaded)
    model: Any = loaded.model
    kinds = ("clusters",) if any(model.config.clusters) else ()

    def classify(picture: Image.Image) -> Prediction:
        image = data.preprocess(picture, model)
        images = {}
        if kinds:
            sheet = explain.cluster_sheet(model, variables, [picture], jnp.asarray(image)[None], classes)
            images["clusters"] = explain.to_png(sheet)
        return _ranked(classify_image(model, variables, image), classes, TOP, images)

    return Predictor(kinds, classify)


def _segmentation(loaded: Loaded) -> Predictor:
    """Returns the predictor of the classes of pixels. A `share` is a fraction of the pixels."""
    variables, classes = loaded.variables, _class_names(loaded)
    model: Any = loaded.model
    config = model.config
    transform = data.eval_transform(config)

    def segment(picture: Image.Image) -> Prediction:
        shown = data.convert_image(picture, config.image_channels)
        labels = segment_picture(model, variables, shown, transform, Viewing())
        overlay = explain.to_png(explain.segment_overlay(picture, labels, classes))
        images = {"mask": explain.mask_png(labels, config.num_classes), "overlay": overlay}
        fractions = np.bincount(labels.ravel(), minlength=config.num_classes) / labels.size
        return _ranked(fractions, classes, int(np.count_nonzero(fractions)), images)

    return Predictor(("mask", "overlay"), segment)


def _detection(loaded: Loaded) -> Predictor:
    """Returns the predictor of objects, with boxes in pixels."""
    variables, classes = loaded.variables, _class_names(loaded)
    model: Any = loaded.model
    config = model.config
    transform = data.eval_transform(config)

    def detect(picture: Image.Image) -> Prediction:
        found = detect_in_picture(model, variables, data.convert_image(picture, config.image_channels), transform)
        overlay = explain.to_png(explain.detection_sheet([to_draw(picture, found)], classes))
        entries = [
            {"name": classes[label], "score": score, "box": box}
            for label, score, box in zip(found.labels.tolist(), found.scores.tolist(), found.boxes.tolist(), strict=True)
        ]
        counts = Counter(entry["name"] for entry in entries if entry["score"] > DRAWN_SCORE)
        line = ", ".join(f"{count} x {name}" for name, count in counts.most_common(TOP))
        return Prediction(entries, line or f"no object with a score above {DRAWN_SCORE}", {"overlay": overlay})

    return Predictor(("overlay",), detect)


def _ranked(values: np.ndarray, classes: Sequence[str], count: int, images: dict[str, bytes]) -> Prediction:
    """Returns the classes with the largest values."""
    if not np.isfinite(values).all():
        raise UserError("Expected finite outputs of the model, got NaN or infinity. Take other weights.")
    entries = [{"name": classes[k], "share": float(values[k])} for k in np.argsort(-values, kind="stable")[:count]]
    return Prediction(entries, ", ".join(f"{entry['name']} {entry['share']:.1%}" for entry in entries[:TOP]), images)


def _class_names(loaded: Loaded) -> tuple[str, ...]:
    """Returns the names that the source has, those of the task's published data set if it has as many classes, or numbers."""
    if loaded.class_names is not None:
        return loaded.class_names
    count = loaded.model.config.num_classes
    data_set, published = _PUBLISHED.get(type(loaded.model), ("ImageNet-1k", data.IMAGENET_CLASSES))
    if len(published) == count:
        logger.warning("The weights do not name their %d classes: takes the names of %s.", count, data_set)
        return published
    return tuple(f"class {index}" for index in range(count))
