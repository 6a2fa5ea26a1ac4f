"""`paca_jax.load`: a model and its variables from wherever the weights are."""

import dataclasses
import os
from collections.abc import Collection, Sequence
from typing import Any

import flax.linen as nn

from paca_jax.checkpoints.description import ClassNames, Recipe
from paca_jax.checkpoints.source import open_source, recorded_names
from paca_jax.errors import UserError
from paca_jax.fields import check_value
from paca_jax.models import PaCaConfig, create_model, model_config
from paca_jax.models.variables import Filled, Variables


@dataclasses.dataclass(frozen=True)
class Loaded(Filled):
    """A model filled from a source.

    Attributes:
        model: the model.
        recipe: the keyword arguments of `create_model` that make the model on any machine.
        class_names: the names of its outputs, if they are known.
    """

    model: nn.Module = dataclasses.field(kw_only=True)
    recipe: Recipe = dataclasses.field(kw_only=True)
    class_names: ClassNames | None = dataclasses.field(kw_only=True)


def load(
    source: str | os.PathLike[str],
    model: str | None = None,
    *,
    pretrained: bool = False,
    weights: str | None = None,
    allow_new: Collection[str] = (),
    rgb_to_gray: bool = False,
    allow_nonfinite: bool = False,
    implementation: str | None = None,
    **overrides: Any,
) -> tuple[nn.Module, Variables]:
    """Returns a model and its variables, ready for `model.apply(variables, images)`.

    Args:
        source: a workdir of a run; a safetensors or PyTorch file, whatever its name (`.pth`, `.pth.tar`, `.ckpt`, `.bin`), with
            the official code's names; the index of a split one; a folder of Hugging Face; an http(s) address of a file, or a
            repository of the Hugging Face Hub, `hf://OWNER/NAME` or `hf://OWNER/NAME@REVISION`, which are downloaded once; or,
            with `pretrained=True`, an official model's name.
        model: the model's name, for a file whose tensors are those of several models or of none; or a segmentor or detector, to
            start it from the weights of its backbone: then `allow_new` has at least "head".
        pretrained: fetch the official ImageNet-1k weights of the model named by `source`.
        weights: "raw" or "ema", where the source holds the weights and their average. Default: the newest checkpoint's averaged
            variables of a workdir, the raw weights of a file, if it has them; a warning names what was taken.
        allow_new: "head" and/or "clustering": layers that may start fresh if they do not fit; a warning names them.
        rgb_to_gray: sum the first kernel of weights for RGB images over the three channels, for a model of gray images.
        allow_nonfinite: accept weights that are NaN or infinite; a warning names them.
        implementation: how the model computes its operations, as in `create_model`.
        **overrides: options of `create_model`: `num_classes`, `clusters`, `dtype`, ... With `image_size`, the images of a
            segmentor or detector have this short side, and the long side in proportion.

    Raises:
        UserError: if there is nothing at `source`, it is damaged or not finite, or it does not fit the model.
    """
    loaded = read_model(
        source,
        model,
        pretrained=pretrained,
        weights=weights,
        allow_new=allow_new,
        rgb_to_gray=rgb_to_gray,
        allow_nonfinite=allow_nonfinite,
        implementation=implementation,
        **overrides,
    )
    loaded.log_departures()
    return loaded.model, loaded.variables


def class_names(source: str | os.PathLike[str]) -> ClassNames | None:
    """Returns the names of the classes that the model at `source` tells apart, in the order of its outputs.

    Args:
        source: as for `load`; an official model's name is accepted as it is. The weights of a workdir are not read, and those
            of an official model not downloaded.

    Returns:
        The names that are recorded with the weights, those of ImageNet for an official model, or None if there are none.

    Raises:
        UserError: if there is nothing at `source`, or it is damaged.
    """
    return recorded_names(source)


def read_model(
    source: str | os.PathLike[str],
    model: str | None = None,
    *,
    pretrained: bool | None = None,
    weights: str | None = None,
    allow_new: Collection[str] = (),
    rgb_to_gray: bool = False,
    allow_nonfinite: bool = False,
    class_names: Sequence[str] | None = None,
    implementation: str | None = None,
    **overrides: Any,
) -> Loaded:
    """Loads a model as `load` does. Returns its recipe, its classes and what there is to say about it too, and logs nothing.

    The arguments and errors are those of `load`. If `pretrained` is None, an official model's name is accepted without it.
    `class_names` are the names of the model's outputs, instead of those that the source has.
    """
    for option, value in (("rgb_to_gray", rgb_to_gray), ("allow_nonfinite", allow_nonfinite)):
        check_value(option, value, bool)
    opened = open_source(source, model, pretrained=pretrained, weights=weights)
    gray = {"image_channels": 1} if rgb_to_gray else {}
    recipe = _resized(opened.recipe | gray | overrides)
    built = create_model(**recipe, implementation=implementation)
    filled = opened.fill(built, allow_new, rgb_to_gray, allow_nonfinite)
    notes = list(filled.notes)
    sizes = ("image_size", "short_side")
    if not opened.knows_size and not any(size in overrides for size in sizes):
        side = next(getattr(built.config, size) for size in sizes if hasattr(built.config, size))
        notes.append(
            f"{os.fspath(source)} does not say the size of its images: takes {side} pixels, as usual for {recipe['name']}. "
            "image_size=N (--image-size) changes it."
        )
    names = opened.class_names if class_names is None else tuple(class_names)
    if class_names is not None and "" in class_names:
        raise UserError(
            f"Expected the names of classes, got an empty one (number {list(class_names).index('') + 1}). Correct it."
        )
    count = built.config.num_classes
    if names is not None and len(names) != count:
        if class_names is not None:
            raise UserError(f"Expected the names of {count} classes, got {len(names)}. Give one for each.")
        notes.append(f"The names of {len(names)} classes are left out, for the model has {count}.")
        names = None
    filled = dataclasses.replace(filled, notes=notes)
    return Loaded(**vars(filled), model=built, recipe=recipe, class_names=names)


def _resized(recipe: Recipe) -> Recipe:
    """Returns the recipe of a segmentor or detector with its sides for `image_size`; that of a classifier as it is."""
    config = model_config(recipe["name"])
    if isinstance(config, PaCaConfig) or "image_size" not in recipe:
        return recipe
    size = recipe["image_size"]
    check_value("image_size", size, int)
    config = model_config(recipe["name"], **{side: recipe[side] for side in ("short_side", "long_side") if side in recipe})
    assert not isinstance(config, PaCaConfig)
    rest = {key: value for key, value in recipe.items() if key != "image_size"}
    return rest | {"short_side": size, "long_side": round(size * config.long_side / config.short_side)}
