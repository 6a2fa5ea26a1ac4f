"""The view of a picture that a model is evaluated with."""

import os
from typing import Any, overload

import numpy as np
from PIL import Image

from paca_jax.data.codecs.images import ImageError, ImageKindError, convert_image, decode_image
from paca_jax.data.transforms.classification import EvalTransform
from paca_jax.data.transforms.detection import DetectionEvalTransform
from paca_jax.data.transforms.segmentation import SegmentationEvalTransform
from paca_jax.errors import UserError
from paca_jax.files import read_file
from paca_jax.models import DetectorConfig, PaCaConfig, SegmentorConfig
from paca_jax.ops import normalize
from paca_jax.paths import user_path

Picture = str | os.PathLike[str] | bytes | Image.Image | np.ndarray


@overload
def eval_transform(config: PaCaConfig) -> EvalTransform: ...
@overload
def eval_transform(config: SegmentorConfig, **options: Any) -> SegmentationEvalTransform: ...
@overload
def eval_transform(config: DetectorConfig) -> DetectionEvalTransform: ...
def eval_transform(config: Any, **options: Any) -> Any:
    """Returns the evaluation transform of a model.

    Args:
        config: the model's config: a `PaCaConfig`, `SegmentorConfig` or `DetectorConfig`.
        **options: for a segmentor only: those fields of `SegmentationEvalTransform` that no config of a model has, `scales`,
            `size_multiple`, `ignore_zero` and `mask_feature`.

    Returns:
        The `EvalTransform`, `SegmentationEvalTransform` or `DetectionEvalTransform` of the config's sizes and channels.

    Raises:
        UserError: `config` is none of these.
    """
    if not isinstance(config, PaCaConfig | SegmentorConfig | DetectorConfig):
        raise UserError(f"Expected the config of a model, got a value of type {type(config).__name__}. Pass model.config.")
    channels = config.image_channels
    if isinstance(config, SegmentorConfig):
        return SegmentationEvalTransform(config.num_classes, channels, config.short_side, config.long_side, **options)
    if isinstance(config, DetectorConfig):
        return DetectionEvalTransform(config.short_side, config.long_side, channels, **options)
    return EvalTransform(config.image_size, channels, config.crop, **options)


def preprocess(image: Picture, model: Any) -> np.ndarray:
    """Prepares one picture for a model, with the view that the model is evaluated with.

    A classifier sees a center crop; segmentors and detectors see the whole picture, resized to their `short_side` and
    `long_side`.

    Args:
        image: a path, the bytes of an image file, a Pillow image, or a uint8 array of shape (H, W, C) with C = 1, 3 or 4.
        model: a model of `create_model` or `load`; its config has the size, the crop and the channels.

    Returns:
        A normalized float32 array, of shape (image_size, image_size, image_channels) for a classifier and (height, width,
        image_channels) for others; add the batch axis with `[None]`.

    Raises:
        UserError: the file is missing, the bytes are no image, or the array has another type or shape.
    """
    if not isinstance(getattr(model, "config", None), PaCaConfig | SegmentorConfig | DetectorConfig):
        raise UserError(
            f"Expected a model as the second argument, got {type(model).__name__}. Pass one of create_model or load."
        )
    picture = read_picture(image, model.config.image_channels)
    transform = eval_transform(model.config)
    view = transform.view(picture)
    if isinstance(transform, EvalTransform):
        return normalize(view)
    suffix = "_0" if isinstance(transform, SegmentationEvalTransform) else ""
    height, width = view[f"size{suffix}"]
    return normalize(view[f"image{suffix}"][:height, :width])


def read_picture(image: Picture, channels: int) -> Image.Image:
    """Returns a picture of any kind upright, as a Pillow image of mode "RGB" or "L".

    Args:
        image: a picture as for `preprocess`.
        channels: 3 for color, 1 for gray.

    Raises:
        UserError: as for `preprocess`.
    """
    if isinstance(image, np.ndarray):
        return convert_image(_from_array(image), channels)
    if isinstance(image, Image.Image):
        return convert_image(image, channels)
    if isinstance(image, bytes):
        return decode_image(image, channels)
    if not isinstance(image, (str, os.PathLike)):
        raise UserError(
            f"Expected a path, bytes, a Pillow image or a uint8 NumPy array of shape (H, W, C), got {type(image).__name__}. "
            "Pass one picture as one of these."
        )
    data = read_file(user_path(image))
    try:
        return decode_image(data, channels)
    except (ImageError, ImageKindError) as error:
        raise type(error)(f"{os.fspath(image)}: {error}") from error


def _from_array(array: np.ndarray) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise UserError(
            f"Expected a uint8 array of shape (H, W, C) with C = 1, 3 or 4, got {array.dtype} of shape {array.shape}. "
            "Convert it, for example with (255 * array).astype('uint8')."
        )
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
