"""Checks of what callers pass: pictures, arrays, sequences, models and variables. What does not fit raises a `UserError`."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from PIL import Image

from paca_jax import data
from paca_jax.errors import UserError, check, summary
from paca_jax.fields import Range, check_value
from paca_jax.models import Detector, PaCaViT, Segmentor
from paca_jax.models.model import check_images
from paca_jax.models.variables import Place, abstract_variables, check_fit

AnyModel = PaCaViT | Segmentor | Detector
# The number of random repetitions of a control, and the seed of random draws.
Controls = Annotated[int, Range(1, 1000)]
Seed = Annotated[int, Range(0, 2**32 - 1)]

# Kinds of numbers in words, each with NumPy's and JAX's types of them.
WHOLE, REAL, BOOL = "whole numbers", "real numbers", "booleans"
_KINDS: Mapping[str, tuple[Any, ...]] = MappingProxyType(
    {WHOLE: (jnp.integer,), REAL: (jnp.integer, jnp.floating, jnp.bool_), BOOL: (jnp.bool_,)}
)


def check_picture(picture: object) -> None:
    """Checks that a picture has pixels, and decodes it if that was not done yet.

    Raises:
        UserError: if it is no Pillow image, has no pixels, or is damaged.
    """
    if not isinstance(picture, Image.Image):
        raise UserError(f"Expected a picture as a Pillow image, got {type(picture).__name__}. Open it with PIL.Image.open.")
    if 0 in picture.size:
        raise UserError(f"Expected a picture with pixels, got one of {picture.width}x{picture.height}. Leave it out.")
    try:
        picture.load()
    except MemoryError:
        raise
    except Exception as error:  # Pillow's parsers raise whatever a damaged file leads them to
        raise UserError(f"Expected an intact picture, Pillow cannot decode it ({summary(error)}). Replace its file.") from error


def rgb(picture: Image.Image) -> Image.Image:
    """Returns a picture of any mode as RGB.

    Raises:
        UserError: as for `check_picture`, or if Pillow has no such conversion.
    """
    check_picture(picture)
    try:
        return picture.convert("RGB")
    except ValueError as error:
        raise UserError(f"Expected a picture of gray or color, got Pillow's mode {picture.mode!r}. Convert it.") from error


def check_model(model: Any, variables: Any) -> None:
    """Checks that a model has an answer to images, and that variables are its own.

    Raises:
        UserError: if not.
    """
    if not isinstance(model, AnyModel):
        raise UserError(
            f"Expected a classifier, segmentor or detector, got {type(model).__name__}. Pass a model of create_model or load."
        )
    if model.config.num_classes == 0:
        raise UserError("Expected a model with a classifier, got one without (num_classes=0). Choose one with classes.")
    check_variables(model, variables)


def checked_images(images: object, channels: int) -> list[jax.Array | np.ndarray]:
    """Returns the images of a batch, or of a sequence of images of any shapes.

    Raises:
        UserError: if they are neither, or one is no normalized image.
    """
    if isinstance(images, jax.Array | np.ndarray):
        check_images(images, channels)
        return list(images)
    listed = checked_items("images", images)
    check(bool(listed), "Expected at least one image, got none. Pass one.")
    for image in listed:
        check_images(image[None] if isinstance(image, jax.Array | np.ndarray) else image, channels)
    return list(listed)


def check_variables(model: Any, variables: object) -> None:
    """Checks that variables are those of a model.

    Raises:
        UserError: if they are no dict, or some are missing or of another shape.
    """
    if not isinstance(variables, Mapping):
        raise UserError(f"Expected variables as a dict, got {type(variables).__name__}. Pass those of load.")
    wanted = abstract_variables(model)
    paths = {"/".join(map(str, path)): leaf for path, leaf in flatten_dict(dict(variables)).items()}
    found = {path: leaf for path, leaf in paths.items() if path in wanted}
    check_fit([Place(path, leaf.shape, None) for path, leaf in wanted.items()], found, lambda name: None)


def checked_array(name: str, values: object, kind: str, shape: tuple[int | str, ...], least: int = 1) -> Any:
    """Returns values as an array: JAX's own, traced ones too, as they are, all others as NumPy's.

    Args:
        name: what the values are, for messages.
        values: an array or nested sequences.
        kind: `WHOLE`, `REAL` or `BOOL`.
        shape: the length of each axis; a text is the name of an axis of any length.
        least: the smallest length of a named axis.

    Raises:
        UserError: if they are numbers of another kind, or have another shape.
    """
    try:
        array: Any = values if isinstance(values, jax.Array) else np.asarray(values)
    except (TypeError, ValueError):
        array = np.asarray(None)
    fits = len(array.shape) == len(shape) and all(
        length >= least if isinstance(wanted, str) else length == wanted
        for length, wanted in zip(array.shape, shape, strict=False)
    )
    if not fits or not any(jnp.issubdtype(array.dtype, type_) for type_ in _KINDS[kind]):
        found = type(values).__name__ if array.dtype.kind in "OUS" else f"{array.dtype} of shape {tuple(array.shape)}"
        text = f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"
        raise UserError(f"Expected {name} to be {kind} of shape {text}, got {found}. Convert them.")
    return array


def checked_items(name: str, values: object) -> tuple[Any, ...]:
    """Returns the values of a sequence.

    Raises:
        UserError: if it is none, or a single text.
    """
    if isinstance(values, np.ndarray):
        values = values.tolist()
    if not isinstance(values, Sequence) or isinstance(values, str | bytes):
        raise UserError(f"Expected {name} to be a list or a tuple, got {type(values).__name__}. Put it into a list.")
    return tuple(values)


def checked_rows(rows: object, kind: type[Any]) -> tuple[Any, ...]:
    """Returns the rows of a sheet.

    Raises:
        UserError: if they are no sequence, none, or not of their kind.
    """
    listed = checked_items("rows", rows)
    check(bool(listed), "Expected at least one picture to draw, got none. Pass one.")
    for row in listed:
        check_value("a row", row, kind)
    return listed


def checked_names(class_names: object) -> tuple[str, ...]:
    """Returns the names of classes.

    Raises:
        UserError: if they are a single text, or no texts.
    """
    names = checked_items("class_names", class_names)
    check_value("class_names", names, tuple[str, ...])
    return names


def names_of_classes(model: AnyModel, class_names: object) -> tuple[str, ...]:
    """Returns the names of a model's classes: those that are given, or for None those of the data set of its kind, or numbers.

    Raises:
        UserError: if they are a single text, no texts, or not as many as the classes.
    """
    count = model.config.num_classes
    if class_names is None:
        data_sets: dict[type, str] = {Segmentor: "ADE20K", Detector: "COCO"}
        return data.assumed_names(count, data_sets.get(type(model), "ImageNet-1k"))
    names = checked_names(class_names)
    check(len(names) == count, f"Expected the names of the model's {count} classes, got {len(names)}. Pass one for each.")
    return names
