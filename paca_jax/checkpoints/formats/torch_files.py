"""PyTorch's files, zip and legacy: tensors are read, and nothing that a file says is executed.

Zip files, `torch_zip`, need no PyTorch; those of the legacy format do, and so does writing.
"""

import _compat_pickle
import io
import math
import os
import pickle
import pickletools
import re
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from types import ModuleType
from typing import IO, Any

import numpy as np

from paca_jax.checkpoints.formats.torch_archive import no_state_dict
from paca_jax.checkpoints.formats.torch_zip import parse_zip
from paca_jax.errors import UserError

ZIP_START = b"PK\x03\x04"
PICKLE_START = b"\x80"  # of protocol 2 and later, which the legacy format begins with

# The exceptions of `parse_torch` on damaged files (seen on tens of thousands of them, truncated and altered at random).
ON_DAMAGE = (
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)

# Elements of tensors beyond four for each stored byte, as views that repeat few values have.
_MOST_REPEATED = 2**24


def parse_torch(path: str | os.PathLike[str], data: bytes) -> Mapping[Any, Any]:
    """Returns the mapping in a file of `torch.save`, its tensors on the CPU; those of a zip file as arrays.

    No name in it is bound to the real class or function: other objects than tensors are inert.

    Raises:
        UserError: if the file holds other objects in the way or no mapping, or is of the legacy format (before PyTorch 1.6) and
            PyTorch is not installed.
        One of `ON_DAMAGE`: if it is damaged.
    """
    return parse_zip(path, data) if data.startswith(ZIP_START) else _parse_legacy(path, data)


def _parse_legacy(path: str | os.PathLike[str], data: bytes) -> Mapping[Any, Any]:
    """Reads with `weights_only=True`; names that PyTorch does not know as safe are bound to inert stand-ins of those names."""
    torch = _import_torch(path)
    allowed = torch.serialization.get_safe_globals()
    try:
        stand_ins = _stand_ins(_main_pickle(data))
        torch.serialization.clear_safe_globals()  # what this process allowed elsewhere is real
        with torch.serialization.safe_globals(stand_ins):
            checkpoint = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} is no PyTorch file of plain tensors: it is damaged, or holds other Python objects, which are not opened "
            f"for safety ({_reason(error)}). Fetch it again, or save only the model's state_dict() with torch.save."
        ) from error
    finally:
        torch.serialization.add_safe_globals(allowed)
    if not isinstance(checkpoint, Mapping):
        raise no_state_dict(path, type(checkpoint).__name__)
    return checkpoint


def check_extent(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Raises a `UserError` if tensors are views that would take far more memory than the values that are stored."""
    sizes = {key: math.prod(value.shape) for key, value in state.items()}
    stored = dict(map(_storage, state.values()))
    if sum(sizes.values()) > 4 * sum(stored.values()) + _MOST_REPEATED:
        largest = max(sizes, key=lambda key: sizes[key])
        raise UserError(
            f"Expected tensors in {path} whose values are stored, got views that repeat them, such as {largest} of shape "
            f"{tuple(state[largest].shape)}. Save the model's state_dict()."
        )


def _storage(value: Any) -> tuple[int, int]:
    """Returns what identifies the memory that a tensor or an array is a view of, and its bytes."""
    if hasattr(value, "untyped_storage"):
        return value.untyped_storage().data_ptr(), value.untyped_storage().nbytes()
    owner = value if value.base is None else value.base
    return id(owner), owner.nbytes if isinstance(owner, np.ndarray) else len(owner)


def torch_bytes(path: str | os.PathLike[str], state: Mapping[str, np.ndarray]) -> bytes:
    """Returns the content of a file that holds a plain state dict of tensors.

    Raises:
        UserError: if PyTorch is not installed.
    """
    torch = _import_torch(path)
    buffer = io.BytesIO()
    torch.save({key: torch.from_numpy(np.array(value)) for key, value in state.items()}, buffer)
    return buffer.getvalue()


def _import_torch(path: str | os.PathLike[str]) -> ModuleType:
    try:
        import torch
    except ModuleNotFoundError as error:
        raise UserError(
            f"Reading or writing {os.fspath(path)!r} needs PyTorch, which is not installed. "
            "Run pip install paca-jax[torch], or use a .safetensors file."
        ) from error
    return torch


def _main_pickle(data: bytes) -> IO[bytes]:
    """Returns the stream of the pickle of the saved object, which three short ones precede."""
    stream = io.BytesIO(data)
    for _ in range(3):
        for _ in pickletools.genops(stream):
            pass
    return stream


class _Inert:
    """The base of stand-ins: takes any arguments and any state, and does nothing with them."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _InertDict(_Inert):
    """The base of stand-ins that the pickle fills with keys and values: plain dictionaries."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return OrderedDict()


class _InertList(_Inert):
    """The base of stand-ins that the pickle fills with elements: plain lists."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return []


_FILLING = {"SETITEM": _InertDict, "SETITEMS": _InertDict, "APPEND": _InertList, "APPENDS": _InertList}


def _stand_ins(stream: IO[bytes]) -> list[type]:
    """Returns a stand-in for each name in a pickle. PyTorch prefers its own entry for the names that it knows as safe.

    Follows the pickle's stack without making any object: an entry is the name of the global that it is or comes from, or None.
    """
    bases: dict[str, type] = {}
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    marks: list[int] = []
    mark = pickletools.markobject
    for opcode, operand, _ in pickletools.genops(stream):
        argument: Any = operand
        kinds = opcode.stack_before
        if mark in kinds:
            while marks[-1] >= len(stack) or stack[marks[-1]] is not mark:
                marks.pop()
            del stack[marks.pop() :]
            kinds = kinds[: kinds.index(mark)]
        taken = [stack.pop() for _ in kinds]
        lowest: Any = taken[-1] if taken else None
        if opcode.name == "GLOBAL":
            lowest = _python3_name(argument)
            bases.setdefault(lowest, _Inert)
        elif opcode.name in ("BINGET", "LONG_BINGET"):
            lowest = memo.get(argument)
        elif opcode.name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif opcode.name in _FILLING and lowest is not None:
            bases[lowest] = _FILLING[opcode.name]
        elif opcode.name == "MARK":
            lowest = mark
            marks.append(len(stack))
        elif opcode.name not in ("REDUCE", "NEWOBJ", "BUILD", *_FILLING):
            lowest = None
        stack.extend([lowest] * len(opcode.stack_after))
    return [_stand_in(name, base) for name, base in bases.items()]


def _stand_in(name: str, base: type) -> type:
    module, _, attribute = name.partition(" ")
    return type(attribute, (base,), {"__module__": module})


def _python3_name(argument: str) -> str:
    """Returns "module name" as Python 3 has it: a pickle of protocol 2 has the names of Python 2."""
    module, _, name = argument.partition(" ")
    module, name = _compat_pickle.NAME_MAPPING.get((module, name), (_compat_pickle.IMPORT_MAPPING.get(module, module), name))
    return f"{module} {name}"


def _reason(error: Exception) -> str:
    """Returns the sentence of PyTorch's message, among its advice, that names the object."""
    text = " ".join(str(error).split())
    telling = re.split(r"WeightsUnpickler error: |from a trusted source\. ", text)[-1]
    return re.split(r"\. | Check the documentation", telling)[0][:200]
