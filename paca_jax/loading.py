"""`paca_jax.load`: a model and its variables from wherever weights lie."""

import os
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np
from absl import logging
from etils import epath

from paca_jax.convert.files import SUFFIXES, read_recipe, read_state_dict
from paca_jax.convert.names import match
from paca_jax.convert.pretrained import fetch_pretrained
from paca_jax.convert.torch_format import Variables, convert_state_dict, to_torch
from paca_jax.errors import UserError
from paca_jax.models import create_model, list_models


class Loaded(NamedTuple):
    """What `load_reported` found.

    Attributes:
        model: the model.
        variables: its variables.
        recipe: the keyword arguments of `create_model` that make the model.
        fresh: paths of the arrays that start fresh.
        unused: names of the arrays in the source that were left aside.
    """

    model: nn.Module
    variables: Variables
    recipe: dict[str, Any]
    fresh: list[str]
    unused: list[str]


def load(
    source: str | os.PathLike[str],
    model: str | None = None,
    *,
    pretrained: bool = False,
    allow_new: Collection[str] = (),
    **overrides: Any,
) -> tuple[nn.Module, Variables]:
    """Returns a model and its variables, ready for `model.apply(variables, images)`.

    Args:
        source: a workdir of a run (the newest checkpoint's averaged variables, if it keeps any), a `.safetensors`, `.pth` or
            `.pt` file with the official code's names, or, with `pretrained=True`, an official model's name.
        model: the model's name, for a file that does not tell it (ours do; so does a file name that holds a model's name).
        pretrained: fetch the official ImageNet-1k weights of the model named by `source`.
        allow_new: "head" and/or "clustering": layers that may start fresh where they do not fit; a warning names them.
        **overrides: options of `create_model`: `num_classes`, `clusters`, `dtype`, ...

    Raises:
        UserError: if there is no such thing, it is damaged, or it does not fit the model.
    """
    loaded = load_reported(source, model, pretrained=pretrained, allow_new=allow_new, **overrides)
    if loaded.fresh:
        logging.warning("Starts fresh: %s.", ", ".join(loaded.fresh))
    if loaded.unused:
        logging.warning("Left aside: %s.", ", ".join(loaded.unused))
    return loaded.model, loaded.variables


def load_reported(
    source: str | os.PathLike[str],
    model: str | None = None,
    *,
    pretrained: bool = False,
    allow_new: Collection[str] = (),
    **overrides: Any,
) -> Loaded:
    """Does what `load` does, and returns what starts fresh or was left aside instead of logging it."""
    state, found = read_source(source, model, pretrained=pretrained)
    recipe = found | overrides
    built = create_model(**recipe)
    return Loaded(built, recipe=recipe, **convert_state_dict(state, built, allow_new=allow_new)._asdict())


def read_source(
    source: str | os.PathLike[str], model: str | None = None, *, pretrained: bool = False
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Returns the weights that lie at `source`, by the official code's names, and the keyword arguments of `create_model`.

    Arguments and errors are those of `load`.
    """
    place = os.fspath(source)
    if pretrained:
        if model not in (None, place):
            raise UserError(f"With pretrained=True the source is the model's name: got {place!r}, and {model!r} beside it.")
        path = fetch_pretrained(place)
        return read_state_dict(path), {"name": place}
    if epath.Path(place).is_dir():
        return _read_workdir(place, model)
    if place.endswith(SUFFIXES):
        state = read_state_dict(place)
        return state, _recipe_of_file(place, state, model)
    raise UserError(_nothing_at(place))


def _recipe_of_file(place: str, state: Mapping[str, np.ndarray], model: str | None) -> dict[str, Any]:
    recipe = read_recipe(place)
    if recipe is not None:
        _check_same_name(place, recipe["name"], model)
        return recipe
    name = model or _name_within(epath.Path(place).name)
    if name is None:
        raise UserError(f"{place} does not tell which model it holds; give its name, model=... (--model), one of {_known()}.")
    recipe = {"name": name}
    head, stem = match("params/head/kernel").key, match("params/stem/conv1/kernel").key
    recipe["num_classes"] = state[head].shape[0] if head in state else 0
    if stem in state and state[stem].ndim == 4:
        recipe["image_channels"] = state[stem].shape[1]
    return recipe


def _read_workdir(place: str, model: str | None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    from paca_jax.convert.workdir import read_variables  # Orbax takes seconds to import, and only workdirs need it

    variables, metadata = read_variables(place)
    recipe = metadata["model"]
    _check_same_name(place, recipe["name"], model)
    return to_torch(variables, create_model(**recipe)), recipe


def _check_same_name(place: str, recorded: str, asked: str | None) -> None:
    if asked not in (None, recorded):
        raise UserError(f"{place} holds a {recorded!r}, but a {asked!r} was asked for; leave the name out.")


def _name_within(text: str) -> str | None:
    """Returns the longest name of a model that the text holds."""
    return max((name for name in list_models() if name in text), key=len, default=None)


def _nothing_at(place: str) -> str:
    if place in list_models():
        return (
            f"{place!r} is a model's name, which alone tells no weights: ask for the official ones with "
            f"paca_jax.load({place!r}, pretrained=True), give a workdir or a file, or start fresh with create_model."
        )
    return (
        f"There is nothing to load at {place!r}: expected the workdir of a run, a file ending in {', '.join(SUFFIXES)}, or, "
        f"with pretrained=True, a model's name ({_known()})."
    )


def _known() -> str:
    return ", ".join(list_models())
