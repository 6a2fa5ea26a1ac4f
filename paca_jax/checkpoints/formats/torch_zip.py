"""Zip files of `torch.save` (PyTorch 1.6 and later), read without PyTorch.

The opcodes of the pickle are followed here, one by one: they make plain values and arrays. No name in a file is ever looked up,
imported or called. Python's own unpickler is not used: a short pickle can have it take any amount of memory (by an index of its
memo), hash a nested key for years, or change attributes of the functions and classes that it is given.
"""

import dataclasses
import operator
import os
import pickletools
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from paca_jax.checkpoints.formats.torch_archive import Archive, no_state_dict
from paca_jax.errors import one_line, shorten

_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexDoubleStorage": "complex128",
    "ComplexFloatStorage": "complex64",
    "UntypedStorage": "uint8",
}
_FLOATS8 = ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu")
# By PyTorch's names. It has more (quantized numbers, pieces of bytes), which NumPy has not.
_DTYPES = {name: np.dtype(name) for name in (*_STORAGES.values(), "uint16", "uint32", "uint64") if name != "bfloat16"}
_DTYPES |= {name: jnp.dtype(getattr(jnp, name)) for name in ("bfloat16", *_FLOATS8)}
_LAYOUTS = ("sparse_coo", "sparse_csr", "sparse_csc", "sparse_bsr", "sparse_bsc")
_PLAIN_TENSORS = ("torch.Tensor", "torch._tensor.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer")


@dataclasses.dataclass(frozen=True)
class OtherTensor:
    """A tensor without plain values, which tells its kind as one of PyTorch does; `convert.arrays.check_dense` refuses it."""

    layout: str = "strided"
    is_nested: bool = False
    is_quantized: bool = False
    is_meta: bool = False
    shape: tuple[int, ...] = ()

    def detach(self) -> "OtherTensor":
        """Returns the tensor itself."""
        return self


def parse_zip(path: str | os.PathLike[str], data: bytes) -> Mapping[Any, Any]:
    """Returns the mapping in a zip file of `torch.save`: its tensors are read-only arrays, or `OtherTensor`s.

    Other objects are inert. Checksums of all members are tested.

    Raises:
        UserError: if it holds no mapping.
        One of `torch_files.ON_DAMAGE`: if it is damaged, or unpacks to far more than it is.
    """
    archive = Archive(path, data)
    content = _Machine(archive).run(archive.pickle)
    if not isinstance(content, dict) or (isinstance(content, _Inert) and not content):
        raise no_state_dict(path, _kind(content))
    return content


@dataclasses.dataclass(frozen=True, slots=True)
class _Name:
    """The name of a class or a function, which stays a name."""

    name: str


@dataclasses.dataclass(frozen=True, slots=True)
class _Storage:
    """The memory of tensors: `dtype` is PyTorch's name of its elements."""

    archive: Archive
    key: str
    dtype: str


class _Inert(dict[Any, Any]):
    """An object that is not made, with the keys and values that the pickle gives it, as mappings of unknown classes have."""

    def __init__(self, name: str):
        super().__init__()
        self.name = name


class _Key:
    """A key of another type than the usual ones: never hashed itself, which may take forever."""

    def __init__(self, key: object):
        self._kind = _kind(key)

    def __repr__(self) -> str:
        return f"<{self._kind}>"


def _kind(value: object) -> str:
    """Returns the name of the class of an object in a file, on one line."""
    name = value.name.rpartition(".")[2] if isinstance(value, _Inert | _Name) else type(value).__name__
    return one_line(shorten(name, 100))


class _Machine:
    """Follows the opcodes of a pickle of any protocol. All that they fill are dicts and lists made here."""

    def __init__(self, archive: Archive):
        self._archive = archive
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        """Returns the object.

        Raises:
            LookupError, OverflowError, RecursionError, TypeError, ValueError: if the pickle is damaged.
        """
        for opcode, argument, _ in pickletools.genops(data):  # to the end of the pickle, or a ValueError
            self._step(opcode, argument)
        return self._stack[-1]

    def _step(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        stack = self._stack
        match opcode.name:
            case "BINPUT" | "LONG_BINPUT" | "PUT":
                self._memo[argument] = stack[-1]
            case "MEMOIZE":
                self._memo[len(self._memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET" | "GET":
                stack.append(self._memo[argument])
            case "MARK":
                self._marked.append(stack)
                self._stack = []
            case "TUPLE":
                self._gather(tuple)
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                taken = [stack.pop() for _ in opcode.stack_before]
                stack.append(tuple(reversed(taken)))
            case "GLOBAL":
                stack.append(_Name(argument.replace(" ", ".", 1)))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(_Name(f"{_text(module)}.{_text(name)}"))
            case "BINPERSID":
                stack.append(self._storage(stack.pop()))
            case "REDUCE" | "NEWOBJ":
                arguments, called = stack.pop(), stack.pop()
                stack.append(_call(called, arguments))
            case "NEWOBJ_EX":
                _, arguments, called = stack.pop(), stack.pop(), stack.pop()
                stack.append(_call(called, arguments))
            case "OBJ":
                self._gather(lambda items: _call(items[0], items[1:]))
            case "INST":
                self._gather(lambda items: _call(_Name(argument.replace(" ", ".", 1)), items))
            case "BUILD":
                stack.pop()
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _fill(stack[-1], [key, value])
            case "SETITEMS":
                items = self._pop_mark()
                _fill(self._stack[-1], items)
            case "APPEND":
                value = stack.pop()
                _extend(stack[-1], [value])
            case "APPENDS" | "ADDITEMS":
                items = self._pop_mark()
                _extend(self._stack[-1], items)
            case "EMPTY_TUPLE":
                stack.append(())
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_SET":
                stack.append(_Inert("set"))
            case "LIST":
                self._gather(list)
            case "DICT":
                self._gather(lambda items: _fill({}, items))
            case "FROZENSET":
                self._gather(lambda items: _Inert("frozenset"))
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(opcode.name == "NEWTRUE")
            case "DUP":
                stack.append(stack[-1])
            case "POP":
                _ = stack.pop() if stack else self._pop_mark()
            case "POP_MARK":
                self._pop_mark()
            case "PROTO" | "FRAME" | "STOP":
                pass
            case "EXT1" | "EXT2" | "EXT4" | "PERSID" | "NEXT_BUFFER" | "READONLY_BUFFER":
                raise ValueError(f"a pickle with {opcode.name}, which torch.save does not write")
            case _:  # a number, a text or bytes
                stack.append(argument)

    def _pop_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._marked.pop()
        return items

    def _gather(self, make: Callable[[list[Any]], Any]) -> None:
        made = make(self._pop_mark())
        self._stack.append(made)

    def _storage(self, identity: Any) -> _Storage:
        """Returns the storage that is saved beside the pickle by this persistent id."""
        kind, named, key, _, numel = identity
        if kind != "storage" or not isinstance(named, _Name):
            raise ValueError("a persistent id of something else than a storage")
        name = named.name.rpartition(".")[2]
        dtype = _STORAGES.get(name, name)
        stored, count = len(self._archive.storage(_text(key))), operator.index(numel)
        if dtype in _DTYPES and count != stored // _DTYPES[dtype].itemsize:
            raise ValueError(f"a storage of {stored} bytes for {count} elements of {dtype}")
        return _Storage(self._archive, key, dtype)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a {_kind(value)} where a text is expected")
    return value


def _fill(mapping: Any, items: list[Any]) -> Any:
    """Sets keys and values, which follow each other, and returns the mapping."""
    if not isinstance(mapping, dict):
        raise TypeError(f"a {_kind(mapping)} where a dict is expected")
    for key, value in zip(items[::2], items[1::2], strict=True):
        usual = isinstance(key, str | float | None) or (isinstance(key, int) and abs(key) < 2**64)
        mapping[key if usual else _Key(key)] = value
    return mapping


def _extend(sequence: Any, items: list[Any]) -> None:
    if isinstance(sequence, list):
        sequence.extend(items)
    elif not isinstance(sequence, _Inert):
        raise TypeError(f"a {_kind(sequence)} where a list is expected")


def _call(called: Any, arguments: Any) -> Any:
    """Returns what a call makes: a tensor or a dict, if PyTorch's functions of this name make one, or an inert object."""
    name = called.name if isinstance(called, _Name) else "object"
    return _MAKERS[name](*arguments) if name in _MAKERS else _Inert(name)


def _ordered_dict(pairs: Any = ()) -> dict[Any, Any]:
    return _fill({}, [item for key, value in pairs for item in (key, value)])


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, grad: Any = None, hooks: Any = None, bits: Any = None) -> Any:
    return _array(storage, storage.dtype, offset, size, stride, bits)


def _tensor_of_dtype(
    storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, bits: Any = None
) -> Any:
    return _array(storage, dtype.name.removeprefix("torch."), offset, size, stride, bits)


def _array(storage: Any, name: str, offset: Any, size: Any, stride: Any, bits: Any) -> np.ndarray | OtherTensor:
    """Returns a read-only view of a storage; its `base` is the storage's memory, one object for all views.

    Raises:
        ValueError: if it reaches beyond the storage.
    """
    if bits or name not in _DTYPES:  # a set bit says that the values are yet to be conjugated or negated
        return OtherTensor("negated" if bits else repr(shorten(name, 100)))
    dtype = _DTYPES[name]
    numbers = [operator.index(number) for number in (offset, *size, *stride)]
    first, sizes, strides = numbers[0], numbers[1 : 1 + len(size)], numbers[1 + len(size) :]
    width = dtype.itemsize // 2 if dtype.kind == "c" else dtype.itemsize
    data = storage.archive.storage(storage.key, width)
    if min(numbers) < 0 or len(sizes) != len(strides):
        raise ValueError(f"a tensor of shape {sizes} and strides {strides}")
    if 0 in sizes:
        return np.empty(sizes, dtype)
    last = first + sum((length - 1) * step for length, step in zip(sizes, strides, strict=True))
    if last >= len(data) // dtype.itemsize:
        raise ValueError(f"a tensor that reaches to element {last} of a storage of {len(data)} bytes")
    return np.ndarray(sizes, dtype, data, first * dtype.itemsize, [step * dtype.itemsize for step in strides])


def _same(tensor: Any, *_: Any) -> Any:
    return tensor


def _of_type(function: Any, kind: Any, arguments: Any, state: Any) -> Any:
    """Returns a tensor of a subclass: what its values mean is known for those of PyTorch alone."""
    made = _call(function, arguments)
    plain = isinstance(kind, _Name) and kind.name in _PLAIN_TENSORS
    return made if plain or isinstance(made, OtherTensor) else OtherTensor(repr(_kind(kind)))


def _sparse(layout: Any, *_: Any) -> OtherTensor:
    name = layout.removeprefix("torch.") if isinstance(layout, str) else ""
    return OtherTensor(name if name in _LAYOUTS else "sparse")


_MAKERS: Mapping[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered_dict,
    "torch._tensor._rebuild_from_type_v2": _of_type,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _same,
    "torch._utils._rebuild_meta_tensor_no_storage": lambda *_: OtherTensor(is_meta=True),
    "torch._utils._rebuild_nested_tensor": lambda *_: OtherTensor(is_nested=True),
    "torch._utils._rebuild_parameter": _same,
    "torch._utils._rebuild_parameter_with_state": _same,
    "torch._utils._rebuild_qtensor": lambda *_: OtherTensor(is_quantized=True),
    "torch._utils._rebuild_sparse_tensor": _sparse,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_dtype,
    "torch._utils._rebuild_wrapper_subclass": lambda *_: OtherTensor("wrapped"),
    "torch.nested._internal.nested_tensor._rebuild_njt": lambda *_: OtherTensor(is_nested=True),
    "torch.serialization._get_layout": _same,
}
