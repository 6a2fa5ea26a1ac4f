"""What every format exports: a function from the bytes of pictures to named outputs, with the weights inside."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from paca_jax import ops
from paca_jax.data.transforms.padding import round_up
from paca_jax.errors import UserError, check
from paca_jax.export.weights import WEIGHT_DTYPES, restored, rounded
from paca_jax.fields import OneOf, check_value
from paca_jax.models import Detector, Segmentor
from paca_jax.models.model import Model

Outputs = dict[str, jax.Array]
_MULTIPLE = 32  # pixels, the coarsest stride of the backbones


class Program(NamedTuple):
    """A model as a function of pixels.

    Attributes:
        model: the model, every operation of which is its plain formula.
        function: returns the outputs, {name: array}, of `images` (B, H, W, C) uint8 and, for a detector, of `sizes` (B, 2)
            int32, the height and width of each image without its padding.
        inputs: the names and shapes of the arguments, in order; dimensions are numbers or symbols.
        canvas: the height and width that a detector takes; None for a model that takes any.
        weights: the variables inside, some of them `Rounded` if `weight_dtype` is "int8".
        weight_dtype: the type of kernels in the file.
    """

    model: Any
    function: Callable[..., Outputs]
    inputs: dict[str, jax.ShapeDtypeStruct]
    canvas: tuple[int, int] | None
    weights: PyTree
    weight_dtype: str


def make_program(
    model: Any,
    variables: PyTree,
    size: tuple[int, int] | None,
    weight_dtype: str = "float32",
    detector_batch: int | None = None,
) -> Program:
    """Returns the program of a model; the arguments are those of `stablehlo`, and `Format.detector_batch`.

    Raises:
        UserError: if the model is none, `size` is given for another model than a detector or is none, or there is no such type
            of weights.
    """
    check(isinstance(model, Model), f"Expected a model of create_model or load, got {type(model).__name__}. Pass one.")
    check_value("weight_dtype", weight_dtype, Annotated[str, OneOf(*WEIGHT_DTYPES)])
    canvas = _canvas(model, size)
    plain = model.clone(implementation="xla")
    fetched = jax.device_get(variables)
    weights = jax.tree.map(jnp.asarray, rounded(fetched) if weight_dtype == "int8" else fetched)
    batch, height, width = jax.export.symbolic_shape("batch, height, width")
    if canvas and detector_batch:
        batch = detector_batch
    shape = (batch, *(canvas or (height, width)), model.config.image_channels)
    inputs = {"images": jax.ShapeDtypeStruct(shape, jnp.uint8)}
    if canvas:
        inputs["sizes"] = jax.ShapeDtypeStruct((batch, 2), jnp.int32)
    return Program(plain, partial(call_model, plain, weights), inputs, canvas, weights, weight_dtype)


def _canvas(model: Any, size: tuple[int, int] | None) -> tuple[int, int] | None:
    if not isinstance(model, Detector):
        kind = "segmentor" if isinstance(model, Segmentor) else "classifier"
        if size is not None:
            raise UserError(f"Expected a detector with a size, got a {kind}, which takes any. Leave the size out.")
        return None
    if size is None:
        side = round_up(model.config.long_side, _MULTIPLE)
        return side, side
    check_value("size", size, tuple[int, int])
    check(min(size) > 0, f"Expected a size of at least one pixel, got {size}. Correct it.")
    return size


def call_model(model: Any, weights: PyTree, images: jax.Array, sizes: jax.Array | None = None) -> Outputs:
    """Returns the outputs of a model for uint8 pixels; see `Program.function` and `Program.weights`."""
    variables = restored(weights)
    if sizes is None:
        name = "logits" if model.config.num_classes else "features"
        return {name: model.apply(variables, ops.normalize(images))}
    return model.apply(variables, ops.normalize_inside(images, sizes), sizes)
