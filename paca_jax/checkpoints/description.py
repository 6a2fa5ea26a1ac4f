"""What a file of weights says about its model, so that a converted model answers the same: in its header, or beside it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from paca_jax.errors import UserError

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
    return _parse(place, {key: metadata[key] for key in (_RECIPE, _CLASS_NAMES) if key in metadata})


def to_sidecar(description: Description, data: bytes) -> bytes:
    """Returns the content of the file beside a PyTorch file of this content."""
    entries = {**_entries(description), _CHECKSUM: hashlib.sha256(data).hexdigest()}
    return (json.dumps(entries, indent=2, ensure_ascii=False) + "\n").encode()


def from_sidecar(place: str, text: bytes, data: bytes) -> Description | None:
    """Returns the description beside a PyTorch file of this content, or None if it belongs to another content.

    Raises:
        UserError: if it is damaged.
    """
    try:
        entries = json.loads(text)
        checksum = entries.pop(_CHECKSUM)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise _damaged(place) from error
    if checksum != hashlib.sha256(data).hexdigest():
        return None
    return _parse(place, {key: json.dumps(entries[key]) for key in (_RECIPE, _CLASS_NAMES) if key in entries})


def from_hugging_face(place: str, text: bytes) -> tuple[Description, list[str]]:
    """Returns what the `config.json` of a Hugging Face folder says, and sentences on what this library does differently.

    Reads the names of classes (`id2label`, `label_names`) and the side of an image (`image_size`, `pretrained_cfg`).

    Raises:
        UserError: if it is no JSON object.
    """
    try:
        config = json.loads(text)
        inner = config.get("pretrained_cfg") or {}
        labels = config.get("label_names") or [name for _, name in sorted(config.get("id2label", {}).items(), key=_as_index)]
        size = config.get("image_size") or inner.get("input_size", [None])[-1]
        means = {key: tuple(inner.get(key, value)) for key, value in (("mean", _MEAN), ("std", _STD))}
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        raise _damaged(place) from error
    notes = [
        f"{place} normalizes images with {key} {found}, `preprocess` with {known}: normalize them in your own code."
        for (key, found), known in zip(means.items(), (_MEAN, _STD), strict=True)
        if found != known
    ]
    return Description({"image_size": size} if size else None, tuple(labels) or None), notes


def _as_index(item: tuple[str, str]) -> int:
    return int(item[0])


def _entries(description: Description) -> dict[str, Any]:
    entries = {_RECIPE: description.recipe, _CLASS_NAMES: description.class_names}
    return {key: value for key, value in entries.items() if value is not None}


def _parse(place: str, texts: Mapping[str, str]) -> Description:
    try:
        recipe, names = (json.loads(texts.get(key, "null")) for key in (_RECIPE, _CLASS_NAMES))
        if recipe is not None and not isinstance(recipe["name"], str):
            raise TypeError("the name of a model")
        if names is not None and not (isinstance(names, Sequence) and all(isinstance(name, str) for name in names)):
            raise TypeError("the names of classes")
    except (ValueError, LookupError, TypeError) as error:
        raise _damaged(place) from error
    return Description(recipe, None if names is None else tuple(names))


def _damaged(place: str) -> UserError:
    return UserError(f"Expected the description of a model in {place}, got something else. Fetch or write it again.")
