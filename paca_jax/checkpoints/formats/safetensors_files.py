"""Safetensors files, their headers, and the index of a state dict that is split into several files."""

import json
import os
from collections.abc import Callable, Mapping

import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from paca_jax.errors import UserError
from paca_jax.files import parse_json

LONGEST_HEADER = 100_000_000  # the format's own limit, in bytes

_DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": jnp.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
}


def parse_safetensors(path: str | os.PathLike[str], data: bytes) -> dict[str, np.ndarray]:
    """Returns the arrays in a file.

    Raises:
        UserError: if an array is of a type that no weights have.
        SafetensorError, ValueError: if the file is damaged.
    """
    state = {}
    for key, entry in safetensors.deserialize(data):
        if entry["dtype"] not in _DTYPES:
            raise UserError(
                f"Expected {key} in {path} to be one of {', '.join(_DTYPES)}, got {entry['dtype']}. Save it as F32."
            )
        state[key] = np.frombuffer(entry["data"], _DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return state


def header_metadata(data: bytes) -> dict[str, str]:
    """Returns the free texts in the header of a valid file."""
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]).get("__metadata__", {})


def safetensors_bytes(state: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    """Returns the content of a file with these arrays, as PyTorch's tools read it, and these texts in its header."""
    return safetensors.numpy.save(dict(state), {"format": "pt", **metadata})


def read_shards(
    path: str | os.PathLike[str], data: bytes, read: Callable[[str], Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Returns the arrays that an index, {"weight_map": {name: file}}, finds in the files beside it.

    Args:
        path: the index, for messages.
        data: its content.
        read: reads the file of a name beside the index.

    Raises:
        UserError: if it is no such index, or a file has other arrays than it says.
    """
    places = parse_json(data, os.fspath(path)).get("weight_map")
    if not isinstance(places, dict):
        raise UserError(f'Expected an index of weights, {{"weight_map": {{name: file}}}}, in {path}. Fetch it again.')
    for file in places.values():
        if not isinstance(file, str) or file in ("", ".", "..") or not file.isprintable() or "/" in file or "\\" in file:
            raise UserError(f"Expected names of files beside {path} in it, got {file!r}. Fetch it again.")
    state: dict[str, np.ndarray] = {}
    for file in sorted(set(places.values())):
        part = read(file)
        expected = {key for key, place in places.items() if place == file}
        if wrong := sorted(expected ^ part.keys()):
            raise UserError(
                f"Expected {len(expected)} arrays in {file}, as {path} says, got {len(part)} (first difference: {wrong[0]}). "
                "Fetch all of the files again."
            )
        state |= part
    return state
