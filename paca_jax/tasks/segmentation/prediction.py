"""From pictures to the classes of their pixels."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree
from PIL import Image

from paca_jax import data, ops
from paca_jax.models import Segmentor
from paca_jax.tasks.segmentation.views import Viewing, predict_labels


def segment(
    model: Segmentor,
    variables: dict[str, PyTree],
    views: dict[str, Array],
    original_sizes: Int[Array, "B 2"],
    canvas: tuple[int, int],
    viewing: Viewing,
) -> Int[Array, "B H W"]:
    """Returns the class of every pixel of a batch of pictures, at their original sizes (traced under jit).

    Args:
        model: the segmentor.
        variables: the model's variables.
        views: `image_0` (B, H0, W0, C) uint8, `size_0` (B, 2), ... as `SegmentationEvalTransform` makes them.
        original_sizes: the height and width of each original picture.
        canvas: the height and width of the result, at least as large as every picture.
        viewing: flipping and windows.
    """
    scales = range(sum(name.startswith("image_") for name in views))
    sizes = [views[f"size_{scale}"] for scale in scales]
    images = [ops.normalize_inside(views[f"image_{scale}"], size) for scale, size in zip(scales, sizes, strict=True)]

    def logits(image: Array) -> Array:
        return jnp.asarray(model.apply(variables, image))

    return predict_labels(logits, images, sizes, original_sizes, canvas, viewing)


_jitted = jax.jit(segment, static_argnames=("model", "canvas", "viewing"))


def segment_picture(
    model: Segmentor,
    variables: dict[str, PyTree],
    picture: Image.Image,
    transform: data.SegmentationEvalTransform,
    viewing: Viewing,
) -> Int[np.ndarray, "H W"]:
    """Returns the class of every pixel of one picture; compiles once for each shape that `transform` pads to.

    Args:
        model: the segmentor.
        variables: the model's variables.
        picture: an upright picture of mode "RGB" or, for a model with one channel, "L".
        transform: the evaluation transform.
        viewing: flipping and windows.
    """
    size = (picture.height, picture.width)
    views = {name: view[None] for name, view in transform.view(picture).items()}
    canvas = transform.label_shape(transform.group(size))
    found = _jitted(model, variables, views, np.array([size], np.int32), canvas=canvas, viewing=viewing)
    return np.asarray(found)[0, : size[0], : size[1]]
