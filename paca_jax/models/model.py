"""The base class of backbones, segmentors and detectors."""

import inspect
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from paca_jax import ops
from paca_jax.errors import UserError, check, nearest

# Images as users give them: JAX arrays, or NumPy arrays as `preprocess` returns them.
Images = Float[Array | np.ndarray, "B H W C"]


def check_images(images: object, channels: int) -> None:
    """Checks that images are a batch of normalized ones.

    Args:
        images: what a user passed.
        channels: the channels of an image.

    Raises:
        UserError: if they are no array, have another shape or no pixels, or are whole numbers.
    """
    shape = f"(batch, height, width, {channels})"
    if not isinstance(images, jax.Array | np.ndarray):
        raise UserError(
            f"Expected images as an array of shape {shape}, got {type(images).__name__}. Pass "
            "paca_jax.preprocess(picture, model)[None]."
        )
    if images.ndim != 4 or images.shape[-1] != channels or 0 in images.shape:
        raise UserError(
            f"Expected images of shape {shape}, got {tuple(images.shape)}. Add a batch axis, put channels last, or set "
            "image_channels."
        )
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise UserError(
            f"Expected normalized images of a floating-point type, got {images.dtype}. Pass paca_jax.preprocess(picture, "
            "model)[None], or paca_jax.ops.normalize(images) for uint8 images of the right size."
        )


def check_finite(finite: bool | np.bool) -> None:
    """Raises a `UserError` unless the outputs of a model are finite; an answer made of others would look like any other."""
    check(bool(finite), "Expected finite outputs of the model, got NaN or infinity. Take other weights.")


class Model(nn.Module, kw_only=True):
    """A network whose operations all take the implementation that it was created with.

    Attributes:
        implementation: how operations are computed; None chooses for each one (see `paca_jax.ops.implementation`).
    """

    implementation: ops.Implementation | None = None

    @nn.nowrap
    def apply(self, variables: Any, *args: Any, method: Any = None, **kwargs: Any) -> Any:
        """Applies a method of the network to variables; see `flax.linen.Module.apply`.

        Raises:
            UserError: if the variables have no collection "params", or there is no such method.
        """
        if not isinstance(variables, Mapping) or "params" not in variables:
            found = ", ".join(map(repr, variables)) if isinstance(variables, Mapping) else type(variables).__name__
            raise UserError(
                f"Expected variables with the collection 'params', as from model.init or load, got {found}. Pass "
                "{'params': parameters}."
            )
        kind = type(self)
        if isinstance(method, str) and not _is_method(kind, method):
            known = [name for name in dir(kind) if _is_method(kind, name)]
            raise UserError(f"Expected a method of {kind.__name__}, got {method!r}; {nearest(method, known)}.")
        with ops.use_implementation(self.implementation):
            return super().apply(variables, *args, method=method, **kwargs)

    @nn.nowrap
    def init(self, *args: Any, **kwargs: Any) -> Any:
        """Draws the variables of the network; see `flax.linen.Module.init`."""
        with ops.use_implementation(self.implementation):
            return super().init(*args, **kwargs)


def _is_method(kind: type, name: str) -> bool:
    """Returns whether a kind of model has such a method for users."""
    is_ours = not (name.startswith("_") or name == "setup" or hasattr(Model, name))
    return inspect.isfunction(getattr(kind, name, None)) and (is_ours or name == "__call__")
