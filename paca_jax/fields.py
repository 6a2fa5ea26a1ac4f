"""The types and ranges of options, written as annotations: one schema for the config of a run and for models.

`Annotated[int, Range(1, 8)]` is a whole number from 1 to 8, `Annotated[str, OneOf("a", "b")]` one of two strings, and
`Annotated[tuple[float, float], ASCENDING]` two numbers in order. A number with a `Range` is finite.
"""

import dataclasses
import itertools
import numbers
import types
import typing
from typing import Any, TypeAlias

from paca_jax.errors import UserError, shorten

Hint: TypeAlias = Any  # a class, a union, a tuple of hints, or `Annotated` with restrictions

_KINDS: dict[Any, str] = {int: "a whole number", float: "a number", str: "a string", bool: "True or False", type(None): "None"}
_NUMBERS: dict[Any, Any] = {int: numbers.Integral, float: numbers.Real}


@dataclasses.dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`; a round bracket in `ends` leaves that end out."""

    low: float
    high: float
    ends: str = "[]"

    def __contains__(self, value: float) -> bool:
        """Returns whether a number is in the range; NaN never is."""
        above = self.low < value if self.ends[0] == "(" else self.low <= value
        return above and (value < self.high if self.ends[1] == ")" else value <= self.high)

    def __str__(self) -> str:
        """Returns the range in words."""
        if self.ends == "[]":
            return f" from {self.low} to {self.high}"
        low, high = "above" if self.ends[0] == "(" else "at least", "below" if self.ends[1] == ")" else "at most"
        return f" {low} {self.low} and {high} {self.high}"


class OneOf:
    """A few allowed values."""

    def __init__(self, *values: Any) -> None:
        self._values = values

    def __contains__(self, value: Any) -> bool:
        """Returns whether a value is allowed."""
        return value in self._values

    def __str__(self) -> str:
        """Returns the values in words."""
        return f"one of {', '.join(map(str, self._values))}"


@dataclasses.dataclass(frozen=True)
class Length:
    """The numbers of values that a tuple may have."""

    low: int
    high: int

    def __contains__(self, value: tuple[Any, ...]) -> bool:
        """Returns whether a tuple has such a length."""
        return self.low <= len(value) <= self.high

    def __str__(self) -> str:
        """Returns the lengths in words."""
        return f"{self.low} to {self.high}"


class _Ascending:
    def __contains__(self, value: tuple[Any, ...]) -> bool:
        return all(first <= second for first, second in itertools.pairwise(value))

    def __str__(self) -> str:
        return ", in ascending order"


ASCENDING = _Ascending()


def check_types(config: Any) -> None:
    """Turns lists in the fields of a frozen dataclass into tuples, and checks each field against its annotation.

    Raises:
        UserError: if a field has another type, or is out of range.
    """
    for name, hint in typing.get_type_hints(type(config), include_extras=True).items():
        value = getattr(config, name)
        if isinstance(value, list):
            value = tuple(value)
            object.__setattr__(config, name, value)
        check_value(name, value, hint)


def check_value(name: str, value: Any, hint: Hint) -> None:
    """Checks the value of an option against its annotation.

    Raises:
        UserError: if it has another type, or is out of range.
    """
    if not _fits(value, hint):
        raise UserError(f"Expected {name} to be {describe(hint)}, got {_show(value)}. Correct it.")


def plain_type(hint: Hint) -> type:
    """Returns the class of an annotation, without None and restrictions."""
    if typing.get_origin(hint) is typing.Annotated:
        return plain_type(typing.get_args(hint)[0])
    if _is_union(hint):
        return plain_type(next(part for part in typing.get_args(hint) if part is not types.NoneType))
    origin: Any = typing.get_origin(hint)
    return hint if origin is None else origin


def describe(hint: Hint) -> str:
    """Returns the type and the range of an annotation in words, such as "a whole number from 1 to 8 or None"."""
    if _is_union(hint):
        return " or ".join(map(describe, typing.get_args(hint)))
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        if isinstance(parts[1], OneOf):
            return str(parts[1])
        if isinstance(parts[1], Length):
            return f"a tuple of {parts[1]} values, each {describe(typing.get_args(parts[0])[0])}" + "".join(map(str, parts[2:]))
        return describe(parts[0]) + "".join(map(str, parts[1:]))
    if origin is tuple and parts[-1:] == (...,):
        return f"a tuple of values, each {describe(parts[0])}"
    if origin is tuple:
        return f"a tuple of {' and '.join(map(describe, parts))}" if parts else "an empty tuple"
    return _KINDS.get(hint, f"a {hint.__name__}")


def _fits(value: Any, hint: Hint) -> bool:
    if _is_union(hint):
        return any(_fits(value, part) for part in typing.get_args(hint))
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _fits(value, parts[0]) and all(value in allowed for allowed in parts[1:])
    if origin is tuple:
        if parts[-1:] == (...,):
            return isinstance(value, tuple) and all(_fits(part, parts[0]) for part in value)
        return isinstance(value, tuple) and len(value) == len(parts) and all(map(_fits, value, parts))
    kind: Any = _NUMBERS.get(hint, hint)
    return isinstance(value, kind) and (hint is bool or not isinstance(value, bool))


def _is_union(hint: Hint) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _show(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # a number of thousands of digits
        return f"a huge {type(value).__name__}"
    return shorten(text)
