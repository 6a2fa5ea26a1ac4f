"""Shapes and types are checked while the tests run: every call in these rooms is compared with its annotations."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jaxtyping
from beartype import BeartypeConf, beartype

CHECKED = ("paca_jax.ops", "paca_jax.models", "paca_jax.convert", "paca_jax.data.transforms")

# An int is a float, as in the numeric tower of PEP 484.
_beartype = beartype(conf=BeartypeConf(is_pep484_tower=True))


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function with its arguments and results checked.

    Constructors are generated (no class of these rooms writes its own) and left out: Flax's hold no arrays, and those of
    configurations answer a wrong value with a sentence of their own.
    """
    return function if function.__name__ == "__init__" else _beartype(function)


def check_shapes() -> None:
    """Checks the modules of these rooms that are imported from now on."""
    jaxtyping.install_import_hook(CHECKED, "tests.shapes.check")


@contextmanager
def unchecked() -> Iterator[None]:
    """A context without checks, in which the library itself must refuse wrong input, as it does for a user."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
