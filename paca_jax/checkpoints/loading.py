"""`paca_jax.load`: a model and its variables from wherever weights lie."""

import os
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np
from absl import logging
from etils import epath

from paca_jax.checkpoints.files import SUFFIXES, read_recipe, read_state_dict
from paca_jax.checkpoints.pretrained import fetch_pretrained
from paca_jax.convert.names import BACKBONE, match
from paca_jax.convert.torch_format import Variables, convert_state_dict, departures, to_torch
from paca_jax.errors import UserError
from paca_jax.models import backbone_name, create_model, list_models, name_within

# What a classifier's recipe tells and its backbone in a segmentor does not take over.
_OF_CLASSIFIERS = ("num_classes", "image_size", "crop")


class Source(NamedTuple):
    """What lies somewhere.

    Attributes:
        state: the weights, by the official code's names.
        recipe: the keyword arguments of `create_model` that make their model.
        class_names: what the model's outputs mean, where the source tells it.
    """

    state: dict[str, np.ndarray]
    recipe: dict[str, Any]
    class_names: tuple[str, ...] | None = None


class Loaded(NamedTuple):
    """What `load_reported` found.

    Attributes:
        model: the model.
        variables: its variables.
        recipe: the keyword arguments of `create_model` that make the model.
        class_names: what its outputs mean, where the source tells it.
        fresh: paths of the arrays that start fresh.
        unused: names of the arrays in the source that were left aside.
    """

    model: nn.Module
    variables: Variables
    recipe: dict[str, Any]
    class_names: tuple[str, ...] | None
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
        model: the model's name, for a file that does not tell it (ours do; so does a file name that holds a model's name); or
            a segmentor, to start it from the weights of its backbone: then `allow_new` has at least "head".
        pretrained: fetch the official ImageNet-1k weights of the model named by `source`.
        allow_new: "head" and/or "clustering": layers that may start fresh where they do not fit; a warning names them.
        **overrides: options of `create_model`: `num_classes`, `clusters`, `dtype`, ...

    Raises:
        UserError: if there is no such thing, it is damaged, or it does not fit the model.
    """
    loaded = load_reported(source, model, pretrained=pretrained, allow_new=allow_new, **overrides)
    for sentence in departures(loaded.fresh, loaded.unused):
        logging.warning("%s", sentence)
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
    found = read_source(source, model, pretrained=pretrained)
    recipe = found.recipe | overrides
    built = create_model(**recipe)
    conversion = convert_state_dict(found.state, built, allow_new=allow_new)
    names = found.class_names if found.class_names and len(found.class_names) == built.config.num_classes else None
    return Loaded(built, recipe=recipe, class_names=names, **conversion._asdict())


def read_source(source: str | os.PathLike[str], model: str | None = None, *, pretrained: bool = False) -> Source:
    """Returns what lies at `source`; arguments and errors are those of `load`."""
    place = os.fspath(source)
    if pretrained:
        name = model or place
        if place not in (name, backbone_name(name)):
            raise UserError(f"With pretrained=True the source is the model's name: got {place!r}, and {model!r} beside it.")
        return Source(read_state_dict(fetch_pretrained(place)), {"name": name})
    if epath.Path(place).is_dir():
        return _read_workdir(place, model)
    if place.endswith(SUFFIXES):
        state = read_state_dict(place)
        return Source(state, _recipe_of_file(place, state, model))
    raise UserError(_nothing_at(place))


def _recipe_of_file(place: str, state: Mapping[str, np.ndarray], model: str | None) -> dict[str, Any]:
    recorded = read_recipe(place)
    if recorded is not None:
        return _recipe_for(place, recorded, model)
    name = model or name_within(epath.Path(place).name)
    if name is None:
        raise UserError(f"{place} does not tell which model it holds; give its name, model=... (--model), one of {_known()}.")
    recipe: dict[str, Any] = {"name": name}
    head, classifier, stem = (match(f"params/{path}/kernel").key for path in ("head", "head/classifier/project", "stem/conv1"))
    if classifier in state:
        recipe["num_classes"] = state[classifier].shape[0]
    elif backbone_name(name) == name:
        recipe["num_classes"] = state[head].shape[0] if head in state else 0
    for key in (stem, f"{BACKBONE}.{stem}"):
        if key in state and state[key].ndim == 4:
            recipe["image_channels"] = state[key].shape[1]
    return recipe


def _read_workdir(place: str, model: str | None) -> Source:
    from paca_jax.checkpoints.workdir import read_variables  # Orbax takes seconds to import, and only workdirs need it

    variables, metadata = read_variables(place)
    state = to_torch(variables, create_model(**metadata["model"]))
    recipe, names = _recipe_for(place, metadata["model"], model), metadata.get("class_names")
    same_model = recipe["name"] == metadata["model"]["name"]
    return Source(state, recipe, tuple(names) if names and same_model else None)


def _recipe_for(place: str, recorded: dict[str, Any], asked: str | None) -> dict[str, Any]:
    """Returns the recorded recipe, or that of the model that was asked for where the recorded one is its backbone."""
    if asked in (None, recorded["name"]):
        return recorded
    if recorded["name"] != backbone_name(asked):
        raise UserError(f"{place} holds a {recorded['name']!r}, but a {asked!r} was asked for; leave the name out.")
    return {key: value for key, value in recorded.items() if key not in _OF_CLASSIFIERS} | {"name": asked}


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
