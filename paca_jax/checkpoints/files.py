"""State dicts in files: `.safetensors`, read and written everywhere, and `.pth` or `.pt`, which need PyTorch."""

import argparse
import io
import json
import os
import pickle
import struct
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from etils import epath

from paca_jax.convert.state_dict import strip_prefixes, unwrap
from paca_jax.errors import UserError

SAFETENSORS_SUFFIX = ".safetensors"
TORCH_SUFFIXES = (".pth", ".pt")
SUFFIXES = (SAFETENSORS_SUFFIX, *TORCH_SUFFIXES)

_RECIPE = "paca_jax"
_LONGEST_HEADER = 100_000_000  # the format's own limit, in bytes
# The exceptions of torch.load on damaged files (seen on tens of thousands of them, truncated and altered at random).
_ON_DAMAGE = (
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OverflowError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)
_DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": jnp.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
}


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Returns the state dict in a file, floats widened to float32.

    Wrappers ("state_dict", "model", "state_dict_ema", looked for in this order) are removed, and so are the prefixes "module."
    and "backbone." if all names have them. A `.pth` is opened with `weights_only=True`: nothing in it is executed.

    Args:
        path: a `.safetensors`, `.pth` or `.pt` file, local or on a bucket.

    Raises:
        UserError: if the file is missing, of another kind, damaged, or holds no state dict; or if it needs PyTorch, which is
            not installed.
    """
    parse = _parse_safetensors if _suffix(path) == SAFETENSORS_SUFFIX else _parse_torch
    state = parse(path, _existing(path).read_bytes())
    try:
        state = strip_prefixes(unwrap(state))
    except UserError as error:
        raise UserError(f"{path} holds no state dict: {error}") from error
    return {key: _widen(value) for key, value in state.items()}


def read_recipe(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Returns the keyword arguments of `create_model` that `write_state_dict` left in a `.safetensors` file, or None.

    Raises:
        UserError: if the file is missing, of another kind, or damaged.
    """
    if _suffix(path) != SAFETENSORS_SUFFIX:
        return None
    try:
        with _existing(path).open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(length, _LONGEST_HEADER)))
        text = header.get("__metadata__", {}).get(_RECIPE)
        recipe = None if text is None else json.loads(text)
        if recipe is not None and "name" not in recipe:
            raise ValueError("the recipe in its header names no model")
    except (struct.error, ValueError, AttributeError, TypeError) as error:  # not JSON, or not of this form
        raise _damaged(path, "safetensors", error) from error
    return recipe


def write_state_dict(
    path: str | os.PathLike[str], state: Mapping[str, np.ndarray], recipe: Mapping[str, Any] | None = None
) -> None:
    """Writes a state dict to a file, completely or not at all.

    Args:
        path: a `.safetensors`, `.pth` or `.pt` file on this machine; replaced if it exists.
        state: {name: array}, as `to_torch` returns.
        recipe: keyword arguments of `create_model`, stored in a `.safetensors` file's header so that `paca_jax.load` needs
            nothing else. A `.pth` is a plain state dict for the official code and cannot hold it.

    Raises:
        UserError: if the path has another suffix or is on a bucket, or the file needs PyTorch, which is not installed.
    """
    if "://" in os.fspath(path):
        raise UserError(
            f"Expected a path on this machine for a file of weights, got {os.fspath(path)!r}. Write it here and copy it."
        )
    if _suffix(path) == SAFETENSORS_SUFFIX:
        metadata = {"format": "pt"} | ({_RECIPE: json.dumps(recipe)} if recipe is not None else {})
        data = safetensors.numpy.save(dict(state), metadata)
    else:
        torch = _import_torch(path)
        buffer = io.BytesIO()
        torch.save({key: torch.from_numpy(np.array(value)) for key, value in state.items()}, buffer)
        data = buffer.getvalue()
    _write_bytes(Path(path), data)


def _suffix(path: str | os.PathLike[str]) -> str:
    suffix = epath.Path(path).suffix
    if suffix not in SUFFIXES:
        raise UserError(f"Expected a file of weights that ends in {', '.join(SUFFIXES)}, got {os.fspath(path)!r}.")
    return suffix


def _existing(path: str | os.PathLike[str]) -> epath.Path:
    place = epath.Path(path)
    if not place.is_file():
        raise UserError(f"There is no file {os.fspath(path)!r}. Give the path of a {' or '.join(SUFFIXES)} file.")
    return place


def _write_bytes(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise


def _parse_safetensors(path: str | os.PathLike[str], data: bytes) -> dict[str, np.ndarray]:
    try:
        entries = safetensors.deserialize(data)
    except safetensors.SafetensorError as error:
        raise _damaged(path, "safetensors", error) from error
    state = {}
    for key, entry in entries:
        if entry["dtype"] not in _DTYPES:
            raise UserError(
                f"Expected {key} in {path} to be one of {', '.join(_DTYPES)}, got {entry['dtype']}. Save it as F32."
            )
        state[key] = np.frombuffer(entry["data"], _DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return state


def _parse_torch(path: str | os.PathLike[str], data: bytes) -> Mapping[str, Any]:
    torch = _import_torch(path)
    try:
        # Many checkpoints hold the training script's arguments beside the weights; a Namespace executes nothing.
        with torch.serialization.safe_globals([argparse.Namespace]):
            checkpoint = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} is no PyTorch file of plain tensors: it is damaged, or holds other Python objects, which are not opened "
            "for safety. Fetch it again, or save only the model's state_dict() with torch.save."
        ) from error
    except _ON_DAMAGE as error:
        raise _damaged(path, "PyTorch", error) from error
    if not isinstance(checkpoint, Mapping):
        raise UserError(f"{path} holds no state dict but a {type(checkpoint).__name__}. Save the model's state_dict().")
    return checkpoint


def _import_torch(path: str | os.PathLike[str]) -> ModuleType:
    try:
        import torch
    except ModuleNotFoundError as error:
        raise UserError(
            f"Reading or writing {os.fspath(path)!r} needs PyTorch, which is not installed. "
            "Run pip install paca-jax[torch], or use a .safetensors file."
        ) from error
    return torch


def _widen(value: Any) -> np.ndarray:
    if hasattr(value, "detach"):
        value = value.detach()
        value = (value.float() if value.is_floating_point() else value).numpy()
    array = np.asarray(value)
    return array.astype(np.float32) if jnp.issubdtype(array.dtype, jnp.floating) else array


def _damaged(path: str | os.PathLike[str], kind: str, why: object) -> UserError:
    first_line = str(why).strip().splitlines()[0] if str(why).strip() else type(why).__name__
    return UserError(f"{path} is no {kind} file, or a damaged one ({first_line}). Fetch or write it again.")
