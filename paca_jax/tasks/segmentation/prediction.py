"""From pictures to the classes of their pixels."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree
from PIL import Image

from paca_jax import data, ops
from paca_jax.models import Segmentor
from paca_jax.tasks.segmentation.views import Viewing, predict_labels


def predict(
    model: Segmentor,
    variables: dict[str, PyTree],
    views: dict[str, Array],
    original_sizes: Int[Array, "B 2"],
    canvas: tuple[int, int],
    viewing: Viewing,
) -> Int[Array, "B H W"]:
    """Returns the class of every pixel of a batch of pictures, in their own sizes (traced under jit).

    Args:
        model: the segmentor.
        variables: the model's.
        views: `image_0` (B, H0, W0, C) uint8, `size_0` (B, 2), ... as `SegmentationEvalTransform` makes them.
        original_sizes: height and width of each picture.
        canvas: height and width of the result, which holds all of them.
        viewing: how to show the pictures.
    """
    scales = range(sum(name.startswith("image_") for name in views))
    sizes = [views[f"size_{scale}"] for scale in scales]
    images = [ops.normalize_inside(views[f"image_{scale}"], size) for scale, size in zip(scales, sizes, strict=True)]

    def logits(image: Array) -> Array:
        return jnp.asarray(model.apply(variables, image))

    return predict_labels(logits, images, sizes, original_sizes, canvas, viewing)


_jitted = jax.jit(predict, static_argnames=("model", "canvas", "viewing"))


def predict_picture(
    model: Segmentor,
    variables: dict[str, PyTree],
    picture: Image.Image,
    transform: data.SegmentationEvalTransform,
    viewing: Viewing,
) -> Int[np.ndarray, "H W"]:
    """Returns the class of every pixel of one picture, compiled once for each shape that `transform` pads to.

    Args:
        model: the segmentor.
        variables: the model's.
        picture: upright, of mode "RGB" or "L" as the model's channels ask.
        transform: makes the views.
        viewing: how to show them.
    """
    size = (picture.height, picture.width)
    views = {name: view[None] for name, view in transform.view(picture).items()}
    canvas = transform.label_shape(transform.group(size))
    found = _jitted(model, variables, views, np.array([size], np.int32), canvas=canvas, viewing=viewing)
    return np.asarray(found)[0, : size[0], : size[1]]
