"""`paca_jax.load`: a model and its variables from wherever the weights are."""

import dataclasses
import os
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax.traverse_util import flatten_dict

from paca_jax.checkpoints.files import SUFFIXES, read_recipe, read_state_dict
from paca_jax.checkpoints.pretrained import fetch_pretrained, is_official_name
from paca_jax.convert.names import BACKBONE, group_of_path, match
from paca_jax.convert.state_dict import fill_from_torch
from paca_jax.errors import UserError
from paca_jax.models import backbone_name, create_model, list_models, name_within
from paca_jax.models.variables import Filled, Place, Variables, abstract_variables, check_fit, fill

# Parts of a classifier's recipe that its backbone in a segmentor or detector does not take over.
_OF_CLASSIFIERS = ("num_classes", "image_size", "crop")

Recipe = dict[str, Any]
ClassNames = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Loaded(Filled):
    """A model filled from a source.

    Attributes:
        model: the model.
        recipe: the keyword arguments of `create_model` that make the model on any machine.
        class_names: the names of its outputs, if the source has them.
    """

    model: nn.Module
    recipe: Recipe
    class_names: ClassNames | None


def load(
    source: str | os.PathLike[str],
    model: str | None = None,
    *,
    pretrained: bool = False,
    allow_new: Collection[str] = (),
    implementation: str | None = None,
    **overrides: Any,
) -> tuple[nn.Module, Variables]:
    """Returns a model and its variables, ready for `model.apply(variables, images)`.

    Args:
        source: a workdir of a run (the newest checkpoint's averaged variables, if it has them), a `.safetensors`, `.pth` or
            `.pt` file with the official code's names, or, with `pretrained=True`, an official model's name.
        model: the model's name, for a file that does not say it (ours do; so does a file name that contains a model's name); or
            a segmentor or detector, to start it from the weights of its backbone: then `allow_new` has at least "head".
        pretrained: fetch the official ImageNet-1k weights of the model named by `source`.
        allow_new: "head" and/or "clustering": layers that may start fresh if they do not fit; a warning names them.
        implementation: how the model computes its operations, as in `create_model`.
        **overrides: options of `create_model`: `num_classes`, `clusters`, `dtype`, ...

    Raises:
        UserError: if there is nothing at `source`, it is damaged, or it does not fit the model.
    """
    loaded = read_model(source, model, pretrained=pretrained, allow_new=allow_new, implementation=implementation, **overrides)
    loaded.log_departures()
    return loaded.model, loaded.variables


def read_model(
    source: str | os.PathLike[str],
    model: str | None = None,
    *,
    pretrained: bool | None = None,
    allow_new: Collection[str] = (),
    implementation: str | None = None,
    **overrides: Any,
) -> Loaded:
    """Loads a model as `load` does. Returns its recipe, its classes and what starts fresh too, and logs nothing.

    The arguments and errors are those of `load`. If `pretrained` is None, an official model's name is accepted without it.
    """
    fill_model, recipe, class_names = open_source(source, model, pretrained=pretrained)
    recipe |= overrides
    built = create_model(**recipe, implementation=implementation)
    filled = fill_model(built, allow_new=allow_new)
    if class_names and len(class_names) != built.config.num_classes:
        class_names = None
    return Loaded(**vars(filled), model=built, recipe=recipe, class_names=class_names)


def open_source(
    source: str | os.PathLike[str], model: str | None = None, *, pretrained: bool | None = None
) -> tuple[Callable[..., Filled], Recipe, ClassNames | None]:
    """Reads the weights at `source`. The arguments and errors are those of `read_model`.

    Returns:
        The function that fills a model with the weights (its arguments are the model and `allow_new`), a recipe of the model
        they belong to, and the names of its classes, if the source has them.
    """
    place = os.fspath(source)
    if pretrained is None:
        pretrained = is_official_name(place)
    if pretrained:
        name = model or place
        if place not in (name, backbone_name(name)):
            raise UserError(f"With pretrained=True the source is the model's name: got {place!r}, and {model!r} beside it.")
        return partial(fill_from_torch, read_state_dict(fetch_pretrained(place))), {"name": name}, None
    if epath.Path(place).is_dir():
        return _open_workdir(place, model)
    if place.endswith(SUFFIXES):
        state = read_state_dict(place)
        return partial(fill_from_torch, state), _recipe_of_file(place, state, model), None
    raise UserError(_nothing_at(place))


def fill_from_variables(variables: Variables, model: nn.Module, *, allow_new: Collection[str] = ()) -> Filled:
    """Returns a model filled with the variables of another one: the same model, or one with other classes or clusters.

    A classifier's variables fill the backbone of a segmentor or detector.

    Args:
        variables: nested dicts of arrays, as from `model.init`.
        model: the model to fill.
        allow_new: groups that may start fresh or be left aside, as in `load`.

    Raises:
        UserError: listing the path of every missing, unexpected and misshapen array.
    """
    expected = abstract_variables(model)
    found = _below_backbone(flatten_dict(variables, sep="/"), expected)
    places = [Place(path, leaf.shape, group_of_path(path)) for path, leaf in expected.items()]
    fresh, unused = check_fit(places, found, group_of_path, allow_new)
    arrays = {path: jnp.array(found[path], leaf.dtype) for path, leaf in expected.items() if path not in fresh}
    return fill(model, arrays, unused)


def _below_backbone(found: Mapping[str, Any], expected: Collection[str]) -> Mapping[str, Any]:
    """Returns the arrays of a classifier by the paths of a downstream model's backbone; others stay as they are."""

    def has_backbone(paths: Collection[str]) -> bool:
        return any(path.split("/")[1] == BACKBONE for path in paths)

    if has_backbone(expected) and not has_backbone(found):
        return {path.replace("/", f"/{BACKBONE}/", 1): array for path, array in found.items()}
    return found


def _open_workdir(place: str, model: str | None) -> tuple[Callable[..., Filled], Recipe, ClassNames | None]:
    from paca_jax.checkpoints.workdir import read_variables  # Orbax takes seconds to import, and only workdirs need it

    variables, metadata = read_variables(place)
    recipe, names = _recipe_for(place, metadata["model"], model), metadata.get("class_names")
    same_model = recipe["name"] == metadata["model"]["name"]
    return partial(fill_from_variables, variables), recipe, tuple(names) if names and same_model else None


def _recipe_of_file(place: str, state: Mapping[str, np.ndarray], model: str | None) -> Recipe:
    recorded = read_recipe(place)
    if recorded is not None:
        return _recipe_for(place, recorded, model)
    name = model or name_within(epath.Path(place).name)
    if name is None:
        raise UserError(f"{place} does not tell which model it holds. Give its name, model=... (--model), one of {_known()}.")
    recipe: Recipe = {"name": name}
    head, classifier, stem = (match(f"params/{path}/kernel").key for path in ("head", "head/classifier/project", "stem/conv1"))
    if classifier in state:
        recipe["num_classes"] = state[classifier].shape[0]
    elif backbone_name(name) == name:
        recipe["num_classes"] = state[head].shape[0] if head in state else 0
    for key in (stem, f"{BACKBONE}.{stem}"):
        if key in state and state[key].ndim == 4:
            recipe["image_channels"] = state[key].shape[1]
    return recipe


def _recipe_for(place: str, recorded: Recipe, asked: str | None) -> Recipe:
    """Returns a copy of the recorded recipe, or that of the model asked for, whose backbone the recorded model is."""
    if asked in (None, recorded["name"]):
        return dict(recorded)
    if recorded["name"] != backbone_name(asked):
        raise UserError(f"{place} holds a {recorded['name']!r}, but a {asked!r} was asked for. Leave the name out.")
    return {key: value for key, value in recorded.items() if key not in _OF_CLASSIFIERS} | {"name": asked}


def _nothing_at(place: str) -> str:
    if is_official_name(place):
        return (
            f"{place!r} is a model's name, which alone does not say which weights: ask for the official ones with "
            f"paca_jax.load({place!r}, pretrained=True), give a workdir or a file, or start fresh with create_model."
        )
    return (
        f"There is nothing to load at {place!r}. Expected the workdir of a run, a file ending in {', '.join(SUFFIXES)}, or, "
        f"with pretrained=True, a model's name ({_known()})."
    )


def _known() -> str:
    return ", ".join(list_models())
