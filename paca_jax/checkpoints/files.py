"""Files of weights of any kind, known by their content: `.safetensors`, whole or in parts, and those of PyTorch."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors
from etils import epath

from paca_jax.checkpoints.description import (
    SIDECAR_SUFFIX,
    Description,
    from_header,
    from_hugging_face,
    from_sidecar,
    to_header,
    to_sidecar,
)
from paca_jax.checkpoints.formats.safetensors_files import (
    LONGEST_HEADER,
    header_metadata,
    parse_safetensors,
    read_shards,
    safetensors_bytes,
)
from paca_jax.checkpoints.formats.torch_files import ON_DAMAGE, PICKLE_START, ZIP_START, check_extent, parse_torch, torch_bytes
from paca_jax.convert.arrays import check_dense, to_numpy
from paca_jax.convert.checkpoint import check_state_dict, find_state_dict
from paca_jax.errors import UserError, summary
from paca_jax.fields import check_value
from paca_jax.files import read_file, write_file
from paca_jax.paths import is_remote, user_path

SAFETENSORS_SUFFIX = ".safetensors"
TORCH_SUFFIXES = (".pth", ".pt")
SUFFIXES = (SAFETENSORS_SUFFIX, *TORCH_SUFFIXES)  # of files that are written
# The weights in a folder of Hugging Face, the preferred one first, and what describes them.
IN_FOLDERS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
CONFIG = "config.json"


@dataclasses.dataclass(frozen=True)
class WeightsFile:
    """The content of a file of weights.

    Attributes:
        path: the file.
        state: {name: array}, floats widened to float32; the names are the official code's, without a prefix.
        description: what is known about the model.
        notes: sentences on how it was read, for people.
    """

    path: epath.Path
    state: dict[str, np.ndarray]
    description: Description
    notes: list[str]


def read_state_dict(path: str | os.PathLike[str], weights: str | None = None) -> dict[str, np.ndarray]:
    """Returns the state dict in a file, floats widened to float32.

    Wrappers ("state_dict", "model", "state_dict_ema", ...) and a prefix before the official code's names are removed. Nothing
    in a file is executed.

    Args:
        path: a safetensors or PyTorch file of any name, local or on a bucket; the index of a split one; or a folder of Hugging
            Face with such a file.
        weights: "raw" or "ema", if the file holds both; None for the raw ones, or those that it has.

    Raises:
        UserError: if the file is missing, of another kind, damaged, or holds no such state dict; or if it needs PyTorch, as one
            from before PyTorch 1.6 does, which is not installed.
    """
    return read_weights(path, weights).state


def read_weights(path: str | os.PathLike[str], weights: str | None = None) -> WeightsFile:
    """Reads a file of weights, and what describes it. The arguments and errors are those of `read_state_dict`."""
    place = user_path(path)
    folder = place if place.is_dir() else None
    if folder:
        place = folder / (weights_in_folder(folder) or IN_FOLDERS[0])
    content, description, notes = _read(place)
    try:
        state, more = find_state_dict(content, weights)
    except UserError as error:
        raise UserError(f"{place} holds no state dict to take: {error}") from error
    notes = notes + more
    for key, value in state.items():
        check_dense(f"{key} in {place}", value)
    check_extent(place, state)
    if folder and (folder / CONFIG).exists() and description == Description():
        description, differences = from_hugging_face(str(folder / CONFIG), read_file(folder / CONFIG))
        notes += differences
    return WeightsFile(place, {key: _widen(value) for key, value in state.items()}, description, notes)


def weights_in_folder(folder: epath.Path) -> str | None:
    """Returns the name of the file of weights in a folder of Hugging Face, or None if the folder is none."""
    return next((name for name in IN_FOLDERS if (folder / name).is_file()), None)


def write_state_dict(
    path: str | os.PathLike[str],
    state: Mapping[str, np.ndarray],
    recipe: Mapping[str, Any] | None = None,
    class_names: list[str] | tuple[str, ...] | None = None,
) -> None:
    """Writes a state dict to a file, completely or not at all.

    Args:
        path: a `.safetensors`, `.pth` or `.pt` file on this machine; replaced if it exists.
        state: {name: array}, as `to_torch` returns.
        recipe: keyword arguments of `create_model`, so that `paca_jax.load` needs nothing else.
        class_names: the names of the model's outputs. Both are stored in the header of a `.safetensors` file. A `.pth` is a
            plain state dict for the official code, so they go to a file beside it, `x.pth.json`.

    Raises:
        UserError: if the path has another suffix or is on a bucket, the state is no mapping of names to arrays of numbers, the
            file cannot be written, or it needs PyTorch, which is not installed.
    """
    place = _place_to_write(path)
    check_state_dict(state)
    names = tuple(class_names) if isinstance(class_names, list) else class_names
    check_value("class_names", names, tuple[str, ...] | None)
    description = Description(dict(recipe) if recipe else None, names or None)
    if place.suffix == SAFETENSORS_SUFFIX:
        data = safetensors_bytes(state, to_header(description))
    else:
        data = torch_bytes(place, state)
        if description != Description():
            write_file(sidecar(place), to_sidecar(description, data))
    write_file(place, data)


def sidecar(path: epath.Path) -> epath.Path:
    """Returns the path of the description beside a PyTorch file."""
    return path.with_name(path.name + SIDECAR_SUFFIX)


def _place_to_write(path: str | os.PathLike[str]) -> epath.Path:
    place = user_path(path)
    if is_remote(place):
        raise UserError(f"Expected a path on this machine for a file of weights, got {place}. Write it here and copy it.")
    if place.suffix not in SUFFIXES:
        raise UserError(f"Expected a file of weights that ends in {', '.join(SUFFIXES)}, got {place}. Choose another name.")
    return place


def _read(place: epath.Path) -> tuple[Mapping[str, Any], Description, list[str]]:
    """Returns what a file holds, what describes it, and what there is to say."""
    path, data = str(place), read_file(place)
    if not _is_safetensors(data) and data[:100].lstrip().startswith(b"{"):
        parts = read_shards(path, data, lambda name: _parse(str(place.parent / name), read_file(place.parent / name)))
        return parts, Description(), []
    content = _parse(path, data)
    if _is_safetensors(data):
        return content, from_header(path, header_metadata(data)), []
    beside = sidecar(place)
    if not beside.exists():
        return content, Description(), []
    description = from_sidecar(str(beside), read_file(beside), data)
    if description is None:
        return content, Description(), [f"{beside} describes another content of {place.name} (by its SHA-256) and is not used."]
    return content, description, []


def _parse(path: str, data: bytes) -> Mapping[str, Any]:
    kind: str
    parse: Callable[[str, bytes], Mapping[str, Any]]
    on_damage: tuple[type[Exception], ...]
    if _is_safetensors(data):
        kind, parse, on_damage = "safetensors", parse_safetensors, (safetensors.SafetensorError, ValueError)
    elif data.startswith((ZIP_START, PICKLE_START)):
        kind, parse, on_damage = "PyTorch", parse_torch, ON_DAMAGE
    else:
        raise UserError(
            f"{path} is no safetensors or PyTorch file, or a damaged one (it begins with {data[:24]!r}). Fetch it again."
        )
    try:
        return parse(path, data)
    except UserError:
        raise
    except on_damage as error:
        raise UserError(f"{path} is no {kind} file, or a damaged one ({summary(error)}). Fetch or write it again.") from error


def _is_safetensors(data: bytes) -> bool:
    return data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= LONGEST_HEADER


def _widen(value: Any) -> np.ndarray:
    """Returns floats as float32; of a wider type, those that float32 cannot hold become infinite, which is checked later."""
    array = to_numpy(value)
    with np.errstate(over="ignore"):
        return array.astype(np.float32) if jnp.issubdtype(array.dtype, jnp.floating) else array
