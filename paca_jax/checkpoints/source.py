"""A source of weights, opened: a workdir, a file, a folder, an address or a name; and what it says about its model."""

import dataclasses
import os
from collections.abc import Callable, Collection, Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from paca_jax.checkpoints.description import ClassNames, Recipe
from paca_jax.checkpoints.files import SUFFIXES, read_weights, weights_in_folder
from paca_jax.checkpoints.hub.fetch import fetch_hub, is_hub_address
from paca_jax.checkpoints.pretrained import fetch_pretrained, fetch_url, is_official_name, is_url, pretrained_address
from paca_jax.convert.architecture import find_recipe, find_sizes
from paca_jax.convert.arrays import nonfinite
from paca_jax.convert.checkpoint import check_weights
from paca_jax.convert.names import BACKBONE, group_of_path, match
from paca_jax.convert.state_dict import fill_from_torch
from paca_jax.data.class_names import IMAGENET_CLASSES
from paca_jax.errors import UserError, nearest
from paca_jax.files import reason
from paca_jax.models import backbone_name, list_models, name_within
from paca_jax.models.variables import Filled, Place, Variables, abstract_variables, check_fit, fill
from paca_jax.paths import user_path

# Parts of a classifier's recipe that its backbone in a segmentor or detector does not take over.
_OF_CLASSIFIERS = ("num_classes", "image_size", "crop")
# The kernel of the stem and its axis of input channels, in a state dict and in variables.
_STEM = match("params/stem/conv1/kernel").key
_TORCH_STEMS = {_STEM: 1, f"{BACKBONE}.{_STEM}": 1}
_OUR_STEMS = {"params/stem/conv1/kernel": 2, f"params/{BACKBONE}/stem/conv1/kernel": 2}

_LISTED = 20


@dataclasses.dataclass(frozen=True)
class Source:
    """Weights, and what is known about their model.

    Attributes:
        place: where they come from, for messages.
        arrays: {name: array} of a state dict, or {path: array} of variables.
        is_torch: whether it is a state dict.
        recipe: the keyword arguments of `create_model` for their model, or for the one asked for, whose backbone it is.
        class_names: the names of the model's outputs, if they are known.
        knows_size: whether the recipe has the size of the images that the model is for.
        notes: sentences on how the source was read, for people.
    """

    place: str
    arrays: Mapping[str, Any]
    is_torch: bool
    recipe: Recipe
    class_names: ClassNames | None
    knows_size: bool
    notes: list[str]

    def fill(
        self,
        model: nn.Module,
        allow_new: Collection[str] = (),
        rgb_to_gray: bool = False,
        allow_nonfinite: bool = False,
    ) -> Filled:
        """Returns a model filled with the weights. The arguments and errors are those of `paca_jax.load`."""
        arrays = self._for_channels(model.config.image_channels, rgb_to_gray)
        fill_model: Callable[..., Filled] = fill_from_torch if self.is_torch else fill_from_variables
        try:
            filled = fill_model(arrays, model, allow_new=allow_new)
        except UserError as error:
            raise UserError(f"{self.place}: {error}") from error
        notes = self.notes + filled.notes + self._check_finite(filled, allow_nonfinite)
        return dataclasses.replace(filled, notes=notes)

    def _check_finite(self, filled: Filled, allowed: bool) -> list[str]:
        """Returns a sentence on the arrays of a filled model that hold NaN or infinity; without permission, raises it."""
        flat = flatten_dict(filled.variables, sep="/")
        names = [match(path).key if self.is_torch else path for path in nonfinite(flat)]
        if not names:
            return []
        more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
        found = f"NaN or infinity in {len(names)} arrays: {', '.join(names[:_LISTED])}{more}"
        if not allowed:
            raise UserError(
                f"Expected finite weights in {self.place}, got {found}. Use other weights; load, convert and predict accept "
                "these with allow_nonfinite=True (--allow-nonfinite)."
            )
        return [f"{self.place} has {found}."]

    def _for_channels(self, channels: int, rgb_to_gray: bool) -> Mapping[str, Any]:
        """Returns the arrays; if asked, with the stem's kernel summed over RGB, whose channels are alike in gray images."""
        stems = _TORCH_STEMS if self.is_torch else _OUR_STEMS
        name = next((name for name in stems if name in self.arrays), None)
        found = np.shape(self.arrays[name])[stems[name]] if name else None
        if rgb_to_gray and (found, channels) != (3, 1):
            raise UserError(
                f"Expected weights for 3 channels and a model for 1 with rgb_to_gray, got {found} and {channels}. Leave it out."
            )
        if not rgb_to_gray or name is None:
            if (found, channels) == (3, 1):
                raise UserError(
                    "Expected weights for images of 1 channel, got some for 3. rgb_to_gray=True (--rgb-to-gray, "
                    "--config.init_rgb_to_gray=True) sums the first kernel over them."
                )
            return self.arrays
        return {**self.arrays, name: np.sum(self.arrays[name], axis=stems[name], keepdims=True)}


def open_source(
    source: str | os.PathLike[str], model: str | None = None, *, pretrained: bool | None = None, weights: str | None = None
) -> Source:
    """Reads the weights at `source`.

    Args:
        source: as for `paca_jax.load`; an official model's name is accepted without `pretrained` if that is None.
        model: the name of the model to fill, if the source does not say it, or has only its backbone.
        pretrained: whether `source` is the name of a model, whose official weights are meant.
        weights: "raw" or "ema"; None for the averaged variables of a workdir and the raw weights of a file, if it has them.

    Raises:
        UserError: if there is nothing at `source`, or it is damaged, of another model, or has no such weights.
    """
    check_weights(weights)
    place = _checked_place(source)
    if pretrained is None:
        pretrained = is_official_name(place)
    if pretrained:
        return _open_official(place, model, weights)
    if is_url(place):
        return _open_file(str(fetch_url(place)), model, weights)
    if is_hub_address(place):
        return _open_file(str(fetch_hub(place)), model, weights)
    if is_workdir(place):
        return _open_workdir(place, model, weights)
    path = user_path(place)
    if path.exists() or path.suffix:
        return _open_file(place, model, weights)
    raise UserError(_nothing_at(place))


def recorded_names(source: str | os.PathLike[str]) -> ClassNames | None:
    """Returns the names of the outputs of the model at `source`, as for `open_source`, or None if they are not recorded there.

    A workdir's weights are not read, and an official model's not downloaded.

    Raises:
        UserError: as for `open_source`.
    """
    place = _checked_place(source)
    if is_official_name(place):
        pretrained_address(place)  # refuses a model whose weights are not published
        return IMAGENET_CLASSES
    if not is_url(place) and not is_hub_address(place) and is_workdir(place):
        from paca_jax.checkpoints.workdir import latest_checkpoint  # for the reason in _open_workdir

        found = latest_checkpoint(place)
        if found is not None:
            return tuple(found.metadata.get("class_names") or ()) or None
    return open_source(place).class_names


def _checked_place(source: str | os.PathLike[str]) -> str:
    if not isinstance(source, str | os.PathLike):
        raise UserError(f"Expected a path or a name to load from, got {type(source).__name__}. Pass a str or a Path.")
    return os.fspath(source)


def is_workdir(place: str) -> bool:
    """Returns whether a path is a folder without a file of weights."""
    path = user_path(place)
    try:
        return path.is_dir() and not weights_in_folder(path)
    except OSError as error:  # of a name that is too long, or a folder that may not be read
        raise UserError(f"Expected a file or folder at {place}, got: {reason(error)}. Check the path.") from error


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


def _open_official(place: str, model: str | None, weights: str | None) -> Source:
    name = model or place
    if place not in (name, backbone_name(name)):
        raise UserError(f"With pretrained=True the source is the model's name: got {place!r}, and {model!r} beside it.")
    file = read_weights(fetch_pretrained(place), weights)
    names = IMAGENET_CLASSES if name == place else None
    return Source(place, file.state, True, {"name": name}, names, True, file.notes)


def _open_workdir(place: str, model: str | None, weights: str | None) -> Source:
    from paca_jax.checkpoints.workdir import read_variables  # Orbax takes seconds to import, and only workdirs need it

    variables, metadata = read_variables(place, weights)
    recipe, names = _recipe_for(place, metadata["model"], model), metadata.get("class_names")
    same_model = recipe["name"] == metadata["model"]["name"]
    flat = flatten_dict(variables, sep="/")
    return Source(place, flat, False, recipe, tuple(names) if names and same_model else None, True, [])


def _open_file(place: str, model: str | None, weights: str | None) -> Source:
    file = read_weights(place, weights)
    recorded, names = file.description
    if recorded and "name" in recorded:
        recipe = _recipe_for(place, recorded, model)
        return Source(place, file.state, True, recipe, names if recipe["name"] == recorded["name"] else None, True, file.notes)
    recipe, notes = _recipe_of_tensors(place, file.path.name, file.state, model)
    size = {} if recorded is None or "image_size" in recipe else recorded
    knows_size = bool(size) or not recipe.keys().isdisjoint(("image_size", "position_embedding"))
    return Source(place, file.state, True, recipe | size, names, knows_size, file.notes + notes)


def _recipe_of_tensors(place: str, file: str, state: Mapping[str, np.ndarray], model: str | None) -> tuple[Recipe, list[str]]:
    """Returns the recipe of the model that the tensors belong to, or of the one asked for, and sentences on it."""
    hint = name_within(file)
    found = find_recipe(state, model or hint)
    if model is None and found is None and hint is None:
        raise UserError(
            f"{place} does not tell which model it holds: no known one has such tensors ({', '.join(list(state)[:3])}, ...). "
            f"Give its name, model=... (--model); paca_jax.list_models() lists all."
        )
    if found is not None and model in (None, found["name"]):
        disagrees = hint not in (None, found["name"], backbone_name(found["name"]))
        return found, [f"The name of {file} says {hint}, its tensors are those of {found['name']}."] if disagrees else []
    name = model or hint
    assert name is not None
    return {"name": name, **find_sizes(state, name)}, []


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
    names = nearest(place, list_models(), "paca_jax.list_models()")
    return (
        f"There is nothing to load at {place!r}. Expected a workdir, a file of weights ({', '.join(SUFFIXES)}, ...), its "
        f"folder or address, hf://OWNER/NAME, or, with pretrained=True, a model's name; {names}."
    )
