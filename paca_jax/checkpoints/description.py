"""What a file of weights says about its model, so that a converted model answers the same: in its header, or beside it."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from paca_jax.errors import UserError
from paca_jax.files import parse_json

Recipe = dict[str, Any]
ClassNames = tuple[str, ...]

SIDECAR_SUFFIX = ".json"  # after the whole name of a PyTorch file, which is a plain state dict for the official code

_RECIPE = "paca_jax"
_CLASS_NAMES = "paca_jax.class_names"
_CHECKSUM = "sha256"
# The normalization of every model of this library, as the configs of others write it.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Description(NamedTuple):
    """A description of a model.

    Attributes:
        recipe: the keyword arguments of `create_model`, or a part of them without the name; None if they are not known.
        class_names: the names of its outputs, or None.
    """

    recipe: Recipe | None = None
    class_names: ClassNames | None = None


def to_header(description: Description) -> dict[str, str]:
    """Returns the texts of a safetensors header that hold a description."""
    return {key: json.dumps(value) for key, value in _entries(description).items()}


def from_header(place: str, metadata: Mapping[str, str]) -> Description:
    """Returns the description in a safetensors header.

    Raises:
        UserError: if it is damaged.
    """
    kinds: dict[str, type] = {_RECIPE: dict, _CLASS_NAMES: list}
    found = {key: parse_json(metadata[key], f"{key!r} of {place}", kind) for key, kind in kinds.items() if key in metadata}
    return checked_description(place, found.get(_RECIPE), found.get(_CLASS_NAMES))


def to_sidecar(description: Description, data: bytes) -> bytes:
    """Returns the content of the file beside a PyTorch file of this content."""
    entries = {**_entries(description), _CHECKSUM: hashlib.sha256(data).hexdigest()}
    return (json.dumps(entries, indent=2, ensure_ascii=False) + "\n").encode()


def from_sidecar(place: str, text: bytes, data: bytes) -> Description | None:
    """Returns the description beside a PyTorch file of this content, or None if it belongs to another content.

    Raises:
        UserError: if it is damaged.
    """
    entries = parse_json(text, place)
    checksum = entries.get(_CHECKSUM)
    if not isinstance(checksum, str):
        raise _damaged(place)
    if checksum != hashlib.sha256(data).hexdigest():
        return None
    return checked_description(place, entries.get(_RECIPE), entries.get(_CLASS_NAMES))


def from_hugging_face(place: str, text: bytes) -> tuple[Description, list[str]]:
    """Returns what the `config.json` of a Hugging Face folder says, and sentences on what this library does differently.

    Reads the names of classes (`id2label`, `label_names`) and the side of an image (`image_size`, `pretrained_cfg`).

    Raises:
        UserError: if it is no JSON object, or says something else.
    """
    config = parse_json(text, place)
    try:
        inner = config.get("pretrained_cfg") or {}
        by_index = {int(index): name for index, name in (config.get("id2label") or {}).items()}
        labels = config.get("label_names") or [by_index[index] for index in range(len(by_index))]
        size = config.get("image_size") or inner.get("input_size", [None])[-1]
        means = {key: tuple(inner.get(key, value)) for key, value in (("mean", _MEAN), ("std", _STD))}
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        raise _damaged(place) from error
    if size is not None and type(size) is not int:
        raise _damaged(place)
    notes = [
        f"{place} normalizes images with {key} {found}, `preprocess` with {known}: normalize them in your own code."
        for (key, found), known in zip(means.items(), (_MEAN, _STD), strict=True)
        if found != known
    ]
    names = checked_description(place, None, labels or None).class_names
    return Description({"image_size": size} if size else None, names), notes


def checked_description(place: str, recipe: object, class_names: object) -> Description:
    """Returns a description that was read back.

    Args:
        place: where it stands, for messages.
        recipe: the keyword arguments of `create_model`, which checks their values; or None.
        class_names: the names of classes, or None.

    Raises:
        UserError: if it is not one that this library writes.
    """
    if recipe is not None and not (isinstance(recipe, dict) and isinstance(recipe.get("name"), str)):
        raise _damaged(place)
    if recipe is not None and "implementation" in recipe:  # which is never recorded
        raise _damaged(place)
    if class_names is None:
        return Description(recipe)
    if not (isinstance(class_names, list) and all(isinstance(name, str) for name in class_names)):
        raise _damaged(place)
    return Description(recipe, tuple(class_names))


def _entries(description: Description) -> dict[str, Any]:
    entries = {_RECIPE: description.recipe, _CLASS_NAMES: description.class_names}
    return {key: value for key, value in entries.items() if value is not None}


def _damaged(place: str) -> UserError:
    return UserError(f"Expected the description of a model in {place}, got something else. Fetch or write it again.")
