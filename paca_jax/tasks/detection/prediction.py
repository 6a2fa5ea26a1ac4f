"""From pictures to the objects in them, and to the drawings of these."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree, UInt8
from PIL import Image

from paca_jax import data, explain, ops
from paca_jax.data.codecs.rle import run_lengths
from paca_jax.data.sources.objects import Segments
from paca_jax.data.transforms.object_masks import bitmap
from paca_jax.data.transforms.placement import Placement
from paca_jax.models import Detector
from paca_jax.models.model import check_finite
from paca_jax.tasks.detection.masks import paste_mask
from paca_jax.tasks.detection.metrics import Detections

# Objects with a score above this are usually drawn.
DRAWN_SCORE = 0.5


def detect(
    model: Detector,
    variables: dict[str, PyTree],
    images: UInt8[Array, "B H W C"],
    sizes: Int[Array, "B 2"],
    original_sizes: Int[Array, "B 2"],
) -> dict[str, Array]:
    """Returns the detections in a batch, with boxes in pixels of the original pictures (traced under jit).

    Args:
        model: the detector.
        variables: the model's variables.
        images: padded images, as `DetectionEvalTransform` makes them.
        sizes: the height and width of each image without its padding.
        original_sizes: the height and width of each original picture.

    Returns:
        The outputs of the model; `finite` (B,), whether they are; and `size` (B, 2), the original sizes.
    """
    found: Any = model.apply(variables, ops.normalize_inside(images, sizes), sizes)
    scale = original_sizes / jnp.maximum(sizes, 1)
    each = [jnp.isfinite(found[name].reshape(len(images), -1)).all(1) for name in ("boxes", "scores", "masks")]
    boxes = found["boxes"] * scale[:, None, jnp.array([1, 0, 1, 0])]
    return found | {"boxes": boxes, "finite": functools.reduce(jnp.logical_and, each), "size": original_sizes}


_jitted = jax.jit(detect, static_argnames="model")


def detect_in_views(model: Detector, variables: dict[str, PyTree], views: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """Returns the result of `detect` for each picture of a batch; compiles once for each shape.

    Args:
        model: the detector.
        variables: the model's variables.
        views: the views of the pictures by the evaluation transform, all of one shape, stacked.

    Raises:
        UserError: if an output is not finite.
    """
    found = _jitted(model, variables, views["image"], views["size"], views["original_size"])
    rows = {name: np.asarray(array) for name, array in found.items()}
    check_finite(rows["finite"].all())
    return [{name: array[row] for name, array in rows.items()} for row in range(len(views["image"]))]


def detect_in_picture(
    model: Detector, variables: dict[str, PyTree], picture: Image.Image, transform: data.DetectionEvalTransform
) -> Detections:
    """Returns the objects in one picture by descending score; see `detect_in_views`.

    Args:
        model: the detector.
        variables: the model's variables.
        picture: an upright picture of mode "RGB" or, for a model with one channel, "L".
        transform: the evaluation transform.
    """
    views = {name: array[None] for name, array in transform.view(picture).items()}
    return to_detections(detect_in_views(model, variables, views)[0], run_lengths)


def to_detections(
    found: dict[str, np.ndarray], encode: Callable[[np.ndarray], dict[str, Any]] = data.encode_bitmap
) -> Detections:
    """Returns the valid objects of one picture, with their masks pasted and encoded.

    Args:
        found: one row of the result of `detect`.
        encode: the encoding of a mask: in the compressed form, which needs COCO's code, or by `run_lengths`, which does not.
    """
    valid, size = found["valid"], tuple(found["size"].tolist())
    boxes, masks = found["boxes"][valid], found["masks"][valid]
    encoded = [encode(paste_mask(mask, box, size)) for mask, box in zip(masks, boxes, strict=True)]
    return Detections(boxes, found["scores"][valid], found["labels"][valid], encoded)


def to_draw(
    picture: Image.Image, found: Detections, truth: data.Objects | None = None, score: float = DRAWN_SCORE
) -> explain.Found:
    """Returns a row of `explain.detection_sheet`: a picture and its objects, without low scores and true crowds.

    Args:
        picture: a picture of any mode.
        found: the objects found in it.
        truth: its true objects, if they are known.
        score: the score above which found objects are drawn.
    """
    shown = picture.copy()
    shown.thumbnail((explain.LARGEST, explain.LARGEST), Image.Resampling.LANCZOS)
    placement = Placement.of_whole((picture.height, picture.width), (shown.height, shown.width))
    drawn = found.scores > score
    objects = _marked(found.boxes, found.labels, found.masks, drawn, placement)._replace(scores=found.scores[drawn])
    if truth is None:
        return explain.Found(shown, objects)
    true_objects = _marked(truth["boxes"], truth["labels"], truth["segments"], ~truth["crowd"], placement)
    return explain.Found(shown, objects, true_objects)


def _marked(
    boxes: np.ndarray, labels: np.ndarray, segments: Sequence[Segments], kept: np.ndarray, placement: Placement
) -> explain.Marked:
    """Returns the `kept` objects of a picture, resized to its placement."""
    masks = np.zeros((np.count_nonzero(kept), *placement.final), bool)
    for mask, k in zip(masks, np.flatnonzero(kept).tolist(), strict=True):
        if segments[k]:
            mask[:] = bitmap(segments[k], placement)
    return explain.Marked(placement.boxes(boxes[kept]), labels[kept], masks=masks)


def example_to_draw(
    model: Detector, variables: dict[str, PyTree], example: dict[str, Any], transform: data.DetectionEvalTransform
) -> explain.Found | None:
    """Returns a row of `explain.detection_sheet`: an example, the objects found in it, and its true objects.

    Args:
        model: the detector.
        variables: the model's variables.
        example: an example of an `ObjectDataset`.
        transform: the evaluation transform.

    Returns:
        The row, or None if the picture cannot be decoded, which `skip_corrupt` allows.
    """
    try:
        picture = data.decode_image(example["image"], transform.channels)
    except data.ImageError:
        return None
    return to_draw(picture, detect_in_picture(model, variables, picture, transform), example["objects"])
