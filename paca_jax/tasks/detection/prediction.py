"""From pictures to the objects in them."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree, UInt8
from PIL import Image

from paca_jax import data, explain, ops
from paca_jax.data.sources.objects import Segments
from paca_jax.data.transforms.object_masks import bitmap
from paca_jax.data.transforms.placement import Placement
from paca_jax.models import Detector
from paca_jax.tasks.detection.masks import paste_mask
from paca_jax.tasks.detection.metrics import Detections

# Objects of a higher score are drawn.
DRAWN_SCORE = 0.5


def detect(
    model: Detector,
    variables: dict[str, PyTree],
    images: UInt8[Array, "B H W C"],
    sizes: Int[Array, "B 2"],
    original_sizes: Int[Array, "B 2"],
) -> dict[str, Array]:
    """Returns what the model finds in a batch of views, its boxes in pixels of the original pictures (traced under jit).

    Args:
        model: the detector.
        variables: the model's.
        images: padded, as `DetectionEvalTransform` makes them.
        sizes: height and width of each picture inside.
        original_sizes: those of the picture itself.

    Returns:
        What the model returns, and `size` (B, 2), the original ones.
    """
    found: Any = model.apply(variables, ops.normalize_inside(images, sizes), sizes)
    scale = original_sizes / jnp.maximum(sizes, 1)
    return found | {"boxes": found["boxes"] * scale[:, None, jnp.array([1, 0, 1, 0])], "size": original_sizes}


_jitted = jax.jit(detect, static_argnames="model")


def detect_in_picture(
    model: Detector, variables: dict[str, PyTree], picture: Image.Image, transform: data.DetectionEvalTransform
) -> Detections:
    """Returns the objects in one picture by falling score, compiled once for each shape that `transform` pads to.

    Args:
        model: the detector.
        variables: the model's.
        picture: upright, of mode "RGB" or "L" as the model's channels ask.
        transform: makes the view.
    """
    view = {name: array[None] for name, array in transform.view(picture).items()}
    found = _jitted(model, variables, view["image"], view["size"], view["original_size"])
    return in_picture({name: np.asarray(array)[0] for name, array in found.items()})


def in_picture(found: dict[str, np.ndarray]) -> Detections:
    """Returns the valid ones of a picture's objects, their masks pasted and encoded.

    Args:
        found: one row of what `detect` returns.
    """
    valid, size = found["valid"], tuple(found["size"].tolist())
    boxes, masks = found["boxes"][valid], found["masks"][valid]
    encoded = [data.encode_bitmap(paste_mask(mask, box, size)) for mask, box in zip(masks, boxes, strict=True)]
    return Detections(boxes, found["scores"][valid], found["labels"][valid], encoded)


def to_draw(picture: Image.Image, found: Detections, truth: data.Objects | None = None) -> explain.Found:
    """Returns the objects of a picture for `explain.detection_sheet`, leaving out low scores and, of the true ones, crowds.

    Args:
        picture: any mode.
        found: the objects found in it.
        truth: its true objects, where they are known.
    """
    shown = picture.copy()
    shown.thumbnail((explain.LARGEST, explain.LARGEST), Image.Resampling.LANCZOS)
    placement = Placement.of_whole((picture.height, picture.width), (shown.height, shown.width))
    drawn = found.scores > DRAWN_SCORE
    objects = _marked(found.boxes, found.labels, found.masks, drawn, placement)._replace(scores=found.scores[drawn])
    if truth is None:
        return explain.Found(shown, objects)
    true_objects = _marked(truth["boxes"], truth["labels"], truth["segments"], ~truth["crowd"], placement)
    return explain.Found(shown, objects, true_objects)


def _marked(
    boxes: np.ndarray, labels: np.ndarray, segments: Sequence[Segments], kept: np.ndarray, placement: Placement
) -> explain.Marked:
    """Returns some of the objects of a placed picture."""
    masks = np.zeros((np.count_nonzero(kept), *placement.final), bool)
    for mask, k in zip(masks, np.flatnonzero(kept).tolist(), strict=True):
        if segments[k]:
            mask[:] = bitmap(segments[k], placement)
    return explain.Marked(placement.boxes(boxes[kept]), labels[kept], masks=masks)


def example_to_draw(
    model: Detector, variables: dict[str, PyTree], example: dict[str, Any], transform: data.DetectionEvalTransform
) -> explain.Found | None:
    """Returns an example, what is found in it and its true objects for `explain.detection_sheet`.

    Args:
        model: the detector.
        variables: the model's.
        example: of an `ObjectDataset`.
        transform: makes the view.

    Returns:
        None where the picture cannot be decoded, which an evaluation may have left out.
    """
    try:
        picture = data.decode_image(example["image"], transform.channels)
    except data.ImageError:
        return None
    return to_draw(picture, detect_in_picture(model, variables, picture, transform), example["objects"])
