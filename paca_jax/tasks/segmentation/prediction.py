"""From pictures to the classes of their pixels."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree
from PIL import Image

from paca_jax import data, ops
from paca_jax.models import Segmentor
from paca_jax.models.model import check_finite
from paca_jax.tasks.segmentation.views import Viewing, predict_labels


def segment(
    model: Segmentor,
    variables: dict[str, PyTree],
    views: dict[str, Array],
    original_sizes: Int[Array, "B 2"],
    canvas: tuple[int, int],
    viewing: Viewing,
) -> Int[Array, "B H W"]:
    """Returns the class of every pixel of a batch of pictures at their original sizes (traced under jit); see `predict_labels`.

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


def segment_views(
    model: Segmentor,
    variables: dict[str, PyTree],
    views: dict[str, np.ndarray],
    original_sizes: Int[np.ndarray, "B 2"],
    transform: data.SegmentationEvalTransform,
    viewing: Viewing,
) -> list[Int[np.ndarray, "_H _W"]]:
    """Returns the class of every pixel of each picture of a batch; compiles once for each shape.

    Args:
        model: the segmentor.
        variables: the model's variables.
        views: `image_0` (B, H0, W0, C) uint8, `size_0` (B, 2), ...: the views by `transform`, stacked.
        original_sizes: the height and width of each original picture, all of one `transform.group`.
        transform: the evaluation transform.
        viewing: flipping and windows.

    Raises:
        UserError: if a logit is not finite.
    """
    sizes = [(height, width) for height, width in original_sizes.tolist()]
    canvas = transform.label_shape(transform.group(sizes[0]))
    found = np.asarray(_jitted(model, variables, views, original_sizes, canvas=canvas, viewing=viewing))
    check_finite((found != data.IGNORED).all())
    return [labels[:height, :width] for labels, (height, width) in zip(found, sizes, strict=True)]


def segment_picture(
    model: Segmentor,
    variables: dict[str, PyTree],
    picture: Image.Image,
    transform: data.SegmentationEvalTransform,
    viewing: Viewing,
) -> Int[np.ndarray, "H W"]:
    """Returns the class of every pixel of one picture; see `segment_views`.

    Args:
        model: the segmentor.
        variables: the model's variables.
        picture: an upright picture of mode "RGB" or, for a model with one channel, "L".
        transform: the evaluation transform.
        viewing: flipping and windows.
    """
    views = {name: view[None] for name, view in transform.view(picture).items()}
    size = np.array([(picture.height, picture.width)], np.int32)
    return segment_views(model, variables, views, size, transform, viewing)[0]
