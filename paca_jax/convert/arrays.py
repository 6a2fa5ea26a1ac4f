"""Arrays of NumPy, JAX and PyTorch in one form."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from paca_jax.errors import UserError


def is_array(value: object) -> bool:
    """Returns whether a value is an array or a tensor of numbers, of whatever library and layout."""
    if not hasattr(type(value), "shape"):  # of the class, for a nested tensor has no shape to give
        return False
    dtype = getattr(value, "dtype", None)
    return not isinstance(dtype, np.dtype) or any(jnp.issubdtype(dtype, kind) for kind in (jnp.number, jnp.bool_))


def check_dense(name: str, value: Any) -> None:
    """Raises a `UserError` if a PyTorch tensor is not one of plain values; messages name it."""
    if not hasattr(value, "detach"):
        return
    layout = str(value.layout).removeprefix("torch.")
    kinds = {"nested": value.is_nested, "quantized": value.is_quantized, "meta": value.is_meta, layout: layout != "strided"}
    kind = next((kind for kind, holds in kinds.items() if holds), None)
    if kind is not None:
        raise UserError(f"Expected a dense tensor for {name}, got a {kind} one. Save dense floats.")


def to_numpy(value: Any) -> np.ndarray:
    """Returns an array, or a tensor that is dense, as NumPy's. Floats of PyTorch become float32, for NumPy has no bfloat16."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = (value.float() if value.is_floating_point() else value).numpy()
    return np.asarray(value)


def nonfinite(arrays: Mapping[str, Any]) -> list[str]:
    """Returns the names of the arrays that hold NaN or infinity."""
    floats = {name: array for name, array in arrays.items() if jnp.issubdtype(array.dtype, jnp.floating)}
    return [name for name, array in floats.items() if not np.isfinite(array).all()]
