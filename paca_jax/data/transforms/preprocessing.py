"""One picture, made ready for a model."""

import os
from typing import Any

import numpy as np
from etils import epath
from PIL import Image

from paca_jax.data.codecs.images import ImageError, convert_image, decode_image
from paca_jax.data.transforms.classification import EvalTransform
from paca_jax.data.transforms.detection import DetectionEvalTransform
from paca_jax.data.transforms.segmentation import SegmentationEvalTransform
from paca_jax.errors import UserError
from paca_jax.models import DetectorConfig, SegmentorConfig
from paca_jax.ops import normalize

Picture = str | os.PathLike[str] | bytes | Image.Image | np.ndarray


def preprocess(image: Picture, model: Any) -> np.ndarray:
    """Makes one picture ready for a model, with the view that the model is evaluated with.

    A classifier sees a centered square, others the whole picture at the size of their `short_side` and `long_side`.

    Args:
      image: a path, the bytes of an image file, a Pillow image, or a uint8 array of shape (H, W, C), where C is 1, 3 or 4.
      model: a model of `create_model` or `load`; its config tells the size, the crop and the channels.

    Returns:
      A normalized float32 array, of shape (image_size, image_size, image_channels) for a classifier and (height, width,
      image_channels) for others; add the batch axis with `[None]`.

    Raises:
      UserError: the file is missing, the bytes are no image, or the array has another type or shape.
    """
    config = model.config
    picture = _read(image, config.image_channels)
    channels = config.image_channels
    if isinstance(config, SegmentorConfig):
        views = SegmentationEvalTransform(config.num_classes, channels, config.short_side, config.long_side).view(picture)
        padded, (height, width) = views["image_0"], views["size_0"]
    elif isinstance(config, DetectorConfig):
        view = DetectionEvalTransform(config.short_side, config.long_side, channels).view(picture)
        padded, (height, width) = view["image"], view["size"]
    else:
        return normalize(EvalTransform(config.image_size, channels, config.crop).view(picture))
    return normalize(padded[:height, :width])


def _read(image: Picture, channels: int) -> Image.Image:
    """Returns a picture of any kind as a Pillow image of mode "RGB" or "L"."""
    if isinstance(image, np.ndarray):
        return convert_image(_from_array(image), channels)
    if isinstance(image, Image.Image):
        return convert_image(image, channels)
    if isinstance(image, bytes):
        return decode_image(image, channels)
    if not isinstance(image, (str, os.PathLike)):
        raise UserError(
            f"Expected a path, bytes, a Pillow image or a uint8 array of shape (H, W, C), got {type(image).__name__}; "
            "pass one picture as one of these."
        )
    try:
        data = epath.Path(image).read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(f"Expected an image file at {os.fspath(image)}, got: {reason}; check the path.") from error
    try:
        return decode_image(data, channels)
    except ImageError as error:
        raise ImageError(f"{os.fspath(image)}: {error}") from error


def _from_array(array: np.ndarray) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise UserError(
            f"Expected a uint8 array of shape (H, W, C) with C of 1, 3 or 4, got {array.dtype} of shape {array.shape}; "
            "convert it, for example with (255 * array).astype('uint8')."
        )
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
