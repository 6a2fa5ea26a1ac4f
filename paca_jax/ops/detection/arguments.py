"""Checks of the arguments of the operations of detection."""

import math
from typing import Any

from paca_jax.errors import UserError


def check_shapes(arrays: dict[str, tuple[Any, str]]) -> None:
    """Checks that arguments are arrays of matching shapes.

    Args:
        arrays: each argument by its name, with its shape as annotations spell it, such as "N 4": a letter is any length, the
            same wherever it occurs.

    Raises:
        UserError: one of them is not.
    """
    lengths: dict[str, int] = {}
    for name, (array, spelled) in arrays.items():
        axes, shape = spelled.split(), getattr(array, "shape", None)
        fits = isinstance(shape, tuple) and len(shape) == len(axes)
        if not fits or any(
            length != (int(axis) if axis.isdecimal() else lengths.setdefault(axis, length))
            for axis, length in zip(axes, shape or (), strict=True)
        ):
            expected = ", ".join(axis if axis.isdecimal() else str(lengths.get(axis, axis)) for axis in axes)
            got = f"one of shape {shape}" if isinstance(shape, tuple) else f"a value of type {type(array).__name__}"
            raise UserError(f"Expected {name} to be an array of shape ({expected}), got {got}. Correct it.")


def check_number(name: str, value: Any, above: float = -math.inf) -> None:
    """Checks that an argument is a finite number above a limit, or an array of no axes.

    Raises:
        UserError: it is not.
    """
    is_number = isinstance(value, int | float) and above < value < math.inf
    if getattr(value, "shape", None) != () and not is_number:
        limit = "" if above == -math.inf else f" above {above}"
        raise UserError(f"Expected {name} to be a finite number{limit}, got {value!r}. Correct it.")
