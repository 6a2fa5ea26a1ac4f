"""Predictions for a picture as they are published: entries for JSON, a line of text, and images."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from PIL import Image

from paca_jax import data, explain
from paca_jax.checkpoints.loading import Loaded
from paca_jax.errors import UserError
from paca_jax.fields import Range
from paca_jax.models import Detector, Segmentor
from paca_jax.tasks.classification.prediction import classify_image
from paca_jax.tasks.detection.prediction import DRAWN_SCORE, detect_in_picture, to_draw
from paca_jax.tasks.segmentation.prediction import segment_picture
from paca_jax.tasks.segmentation.views import Viewing

Score = Annotated[float, Range(0, 1)]
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
        predict: returns the prediction for a picture; raises a `UserError` if the model's output for it is not finite.
    """

    kinds: tuple[str, ...]
    predict: Callable[[Image.Image], Prediction]


def make_predictor(loaded: Loaded, score: float | None = None) -> Predictor:
    """Returns the predictor of a model of any task.

    Args:
        loaded: the model.
        score: for a detector, the score above which objects are drawn and counted in a line; None for the usual one.

    Raises:
        UserError: if `score` is given for another model.
    """
    if isinstance(loaded.model, Detector):
        return _detection(loaded, DRAWN_SCORE if score is None else score)
    if score is not None:
        raise UserError(f"Expected a detector with a score, got {loaded.recipe['name']}, which finds no objects. Leave it out.")
    return _segmentation(loaded) if isinstance(loaded.model, Segmentor) else _classification(loaded)


def _classification(loaded: Loaded) -> Predictor:
    """Returns the predictor of the most likely classes. A `share` is a probability."""
    variables, classes = loaded.variables, known_class_names(loaded)
    model: Any = loaded.model
    kinds = ("clusters",) if any(model.config.clusters) else ()

    def classify(picture: Image.Image) -> Prediction:
        images = {"clusters": _clusters(loaded, picture, classes)} if kinds else {}
        return _ranked(class_entries(classify_image(model, variables, data.preprocess(picture, model)), classes), images)

    return Predictor(kinds, classify)


def _segmentation(loaded: Loaded) -> Predictor:
    """Returns the predictor of the classes of pixels. A `share` is a fraction of the pixels."""
    variables, classes = loaded.variables, known_class_names(loaded)
    model: Any = loaded.model
    config = model.config
    transform = data.eval_transform(config)
    has_clusters = config.head == "paca" or any(config.backbone.clusters)
    kinds = ("mask", "overlay", "clusters") if has_clusters else ("mask", "overlay")

    def segment(picture: Image.Image) -> Prediction:
        shown = data.convert_image(picture, config.image_channels)
        labels = segment_picture(model, variables, shown, transform, Viewing())
        overlay = explain.to_png(explain.segment_overlay(picture, labels, classes))
        images = {"mask": explain.mask_png(labels, config.num_classes), "overlay": overlay}
        if "clusters" in kinds:
            images["clusters"] = _clusters(loaded, picture, classes)
        return _ranked(area_entries(labels, classes), images)

    return Predictor(kinds, segment)


def _detection(loaded: Loaded, score: float) -> Predictor:
    """Returns the predictor of objects, with boxes in pixels; those with a score above the given one are drawn."""
    variables, classes = loaded.variables, known_class_names(loaded)
    model: Any = loaded.model
    config = model.config
    transform = data.eval_transform(config)
    kinds = ("overlay", "clusters") if any(config.backbone.clusters) else ("overlay",)

    def detect(picture: Image.Image) -> Prediction:
        found = detect_in_picture(model, variables, data.convert_image(picture, config.image_channels), transform)
        overlay = explain.to_png(explain.detection_sheet([to_draw(picture, found, score=score)], classes))
        images = {"overlay": overlay}
        if "clusters" in kinds:
            images["clusters"] = _clusters(loaded, picture, classes, score)
        entries = object_entries(found.boxes, found.scores, found.labels, classes)
        counts = Counter(entry["name"] for entry in entries if entry["score"] > score)
        line = ", ".join(f"{count} x {name}" for name, count in counts.most_common(TOP))
        return Prediction(entries, line or f"no object with a score above {score:g}", images)

    return Predictor(kinds, detect)


def class_entries(probabilities: Float[np.ndarray, "K"], classes: Sequence[str]) -> list[dict[str, Any]]:
    """Returns the entries of the most likely classes."""
    return _entries(probabilities, classes, TOP)


def area_entries(labels: Int[np.ndarray, "H W"], classes: Sequence[str]) -> list[dict[str, Any]]:
    """Returns the entries of all classes that pixels have, with their fractions of the pixels."""
    fractions = np.bincount(labels.ravel(), minlength=len(classes)) / labels.size
    return _entries(fractions, classes, int(np.count_nonzero(fractions)))


def object_entries(
    boxes: Float[np.ndarray, "N 4"], scores: Float[np.ndarray, "N"], labels: Int[np.ndarray, "N"], classes: Sequence[str]
) -> list[dict[str, Any]]:
    """Returns the entries of objects, with boxes in pixels."""
    found = zip(labels.tolist(), scores.tolist(), boxes.tolist(), strict=True)
    return [{"name": classes[label], "score": score, "box": box} for label, score, box in found]


def known_class_names(loaded: Loaded) -> tuple[str, ...]:
    """Returns the names that the source has, those of the task's published data set if it has as many classes, or numbers."""
    if loaded.class_names is not None:
        return loaded.class_names
    data_sets: dict[type, str] = {Segmentor: "ADE20K", Detector: "COCO"}
    return data.assumed_names(loaded.model.config.num_classes, data_sets.get(type(loaded.model), "ImageNet-1k"))


def _entries(values: Float[np.ndarray, "K"], classes: Sequence[str], count: int) -> list[dict[str, Any]]:
    """Returns the entries of the classes with the largest values."""
    return [{"name": classes[k], "share": float(values[k])} for k in np.argsort(-values, kind="stable")[:count]]


def _ranked(entries: list[dict[str, Any]], images: dict[str, bytes]) -> Prediction:
    return Prediction(entries, ", ".join(f"{entry['name']} {entry['share']:.1%}" for entry in entries[:TOP]), images)


def _clusters(loaded: Loaded, picture: Image.Image, classes: Sequence[str], score: float | None = None) -> bytes:
    """Returns a sheet of the sharpest clusters; those by effect would take an answer without each cluster."""
    model: Any = loaded.model
    return explain.to_png(explain.sheet(model, loaded.variables, picture, classes, score=score, order="sharpness"))
