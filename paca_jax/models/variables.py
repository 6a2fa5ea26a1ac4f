"""The variables of a model: which there are, and a strict way to fill them with arrays from elsewhere."""

import dataclasses
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from paca_jax.errors import UserError, check
from paca_jax.models.model import Model

Variables = dict[str, Any]

# The groups of arrays that may start fresh when a model with other classes or clusters is filled.
HEAD = "head"
CLUSTERING = "clustering"
GROUPS = (HEAD, CLUSTERING)

_INIT_SIDE = 32  # pixels
_LISTED = 20

logger = logging.getLogger(__name__)


class Place(NamedTuple):
    """The place of one array, in the words of the source that is to fill it.

    Attributes:
        name: the array's name in the source.
        shape: its shape there.
        group: its group in `GROUPS`, if it has one.
    """

    name: str
    shape: tuple[int, ...]
    group: str | None


@dataclasses.dataclass(frozen=True)
class Filled:
    """The variables of a model, filled from a source.

    Attributes:
        variables: {"params": ..., "batch_stats": ... if the model has any}, nested dicts of float32 arrays (counters int32).
        fresh: paths of the arrays that start fresh because the source has none that fits ("params/head/kernel").
        unused: names of the source's arrays that have no place in the model.
        notes: sentences on how the source was read, for people.
    """

    variables: Variables
    fresh: list[str]
    unused: list[str]
    notes: list[str] = dataclasses.field(default_factory=list)

    @property
    def departures(self) -> list[str]:
        """The notes, and sentences on what starts fresh and what is left aside, many names counted by their first two parts."""
        parts = {"Starts fresh": self.fresh, "Left aside": self.unused}
        return self.notes + [f"{words}: {_condense(names)}." for words, names in parts.items() if names]

    def log_departures(self) -> None:
        """Logs the departures as warnings."""
        for sentence in self.departures:
            logger.warning("%s", sentence)


@lru_cache(maxsize=32)
def abstract_variables(model: nn.Module) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns {path: shape and type} of every variable of a model ("params/stage1/block0/mlp/fc1/kernel").

    Raises:
        UserError: if it is no model.
    """
    check(isinstance(model, Model), f"Expected a model of create_model or load, got {type(model).__name__}. Pass one.")
    return flatten_dict(jax.eval_shape(lambda key: _initialize(model, key), jax.random.key(0)), sep="/")


def check_fit(
    places: Collection[Place],
    found: Mapping[str, Any],
    group_of: Callable[[str], str | None],
    allow_new: Collection[str] = (),
) -> tuple[set[str], list[str]]:
    """Checks that a source fills every place and that each of its arrays has one.

    Args:
        places: the places to fill.
        found: {name: array} of the source.
        group_of: returns the group of a name that has no place.
        allow_new: groups whose arrays may be missing, misshapen or without a place.

    Returns:
        The names of places that start fresh, and the names found that are left aside.

    Raises:
        UserError: listing every missing, unexpected and misshapen name.
    """
    if not isinstance(allow_new, tuple | list | set | frozenset) or any(group not in GROUPS for group in allow_new):
        raise UserError(f"Expected allow_new to be a tuple of some of {GROUPS}, got {allow_new!r}. Correct it.")
    missing, misshapen, fresh = [], [], set()
    wrong_groups = set()
    for name, shape, group in places:
        there = tuple(np.shape(found[name])) if name in found else None
        if there == shape:
            continue
        if group in allow_new:
            fresh.add(name)
            continue
        wrong_groups.add(group)
        if there is None:
            missing.append(name)
        else:
            misshapen.append(f"{name} (expected {shape}, found {there})")
    groups_left = {name: group_of(name) for name in sorted(found.keys() - {place.name for place in places})}
    unused = [name for name, group in groups_left.items() if group in allow_new]
    unexpected = [name for name, group in groups_left.items() if group not in allow_new]
    wrong_groups.update(groups_left[name] for name in unexpected)
    if missing or unexpected or misshapen:
        raise misfit(missing=missing, unexpected=unexpected, misshapen=misshapen, groups=wrong_groups)
    return fresh, unused


def misfit(
    *,
    missing: Sequence[str] = (),
    unexpected: Sequence[str] = (),
    misshapen: Sequence[str] = (),
    groups: Iterable[str | None] = (None,),
) -> UserError:
    """Returns the error that lists what does not fit; `groups` are those of the names listed."""
    lists = {"missing": missing, "unexpected": unexpected, "misshapen": misshapen}
    listed = "; ".join(f"{word} ({len(names)}): {_enumerate(names)}" for word, names in lists.items() if names)
    advice = "Check that this is the model (name, num_classes, clusters) that the weights were made for"
    if None not in groups:
        asked = tuple(group for group in GROUPS if group in groups)
        advice = (
            f"For another head, other classes or clusters, allow_new={asked} (--allow-new {','.join(asked)}) lets these layers "
            "start fresh"
        )
    return UserError(f"The weights do not fit the model. {listed}. {advice}.")


def fill(model: nn.Module, arrays: Mapping[str, jax.Array], unused: list[str], seed: int = 0) -> Filled:
    """Returns a model's variables from {path: array}; those that are not given are drawn as `model.init` draws them."""
    paths = abstract_variables(model)
    fresh = [path for path in paths if path not in arrays]
    flat = {**arrays, **_draw(model, fresh, seed)}
    return Filled(unflatten_dict({path: flat[path] for path in paths}, sep="/"), fresh, unused)


def _initialize(model: nn.Module, key: jax.Array) -> Variables:
    return dict(model.init(key, jnp.zeros((1, _INIT_SIDE, _INIT_SIDE, model.config.image_channels))))


def _draw(model: nn.Module, paths: Sequence[str], seed: int) -> dict[str, jax.Array]:
    """Draws some of the variables; the compiler drops the work that they do not need."""

    def draw(key: jax.Array) -> dict[str, jax.Array]:
        flat = flatten_dict(_initialize(model, key), sep="/")
        return {path: flat[path] for path in paths}

    return jax.jit(draw)(jax.random.key(seed)) if paths else {}


def _condense(names: Sequence[str]) -> str:
    if len(names) <= _LISTED:
        return ", ".join(names)
    separator = "/" if "/" in names[0] else "."
    counts = Counter(separator.join(name.split(separator)[:2]) for name in names)
    return ", ".join(f"{name} ({count} arrays)" for name, count in counts.items())


def _enumerate(names: Sequence[str]) -> str:
    rest = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {rest} more" if rest > 0 else "")
