"""The types of the fields of configurations, checked by their annotations."""

import dataclasses
import numbers
import types
import typing
from typing import Any

from paca_jax.errors import UserError

_KINDS = {int: "a whole number", float: "a number", str: "a text", bool: "True or False", type(None): "None"}
_NUMBERS = {int: numbers.Integral, float: numbers.Real}


def check_types(config: Any) -> None:
    """Turns lists in the fields of a frozen dataclass into tuples, and checks that each field has the type of its annotation.

    Raises:
        UserError: if a field has another type.
    """
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, list):
            value = tuple(value)
            object.__setattr__(config, field.name, value)
        if not _fits(value, hints[field.name]):
            raise UserError(f"Expected {field.name} to be {_describe(hints[field.name])}, got {value!r}. Correct it.")


def _fits(value: Any, hint: Any) -> bool:
    if isinstance(hint, types.UnionType):
        return any(_fits(value, part) for part in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_fits(part, typing.get_args(hint)[0]) for part in value)
    return isinstance(value, _NUMBERS.get(hint, hint)) and (hint is bool or not isinstance(value, bool))


def _describe(hint: Any) -> str:
    if isinstance(hint, types.UnionType):
        return " or ".join(map(_describe, typing.get_args(hint)))
    if typing.get_origin(hint) is tuple:
        return f"a tuple with {_describe(typing.get_args(hint)[0])} for each stage"
    return _KINDS.get(hint, f"a {hint.__name__}")
