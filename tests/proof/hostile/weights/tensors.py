"""Numbers that are not finite, strange tensors, and mappings and views without end."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch

import paca_jax
from paca_jax.checkpoints.workdir import write_variables
from paca_jax.convert import checkpoint
from tests.proof.hostile.case import Case, copies, then
from tests.proof.hostile.weights.forms import commands, read, spoiled
from tests.proof.hostile.world import CLASSIFIER, NAMES

VALUES = (np.nan, np.inf, -np.inf)


def cases(world: Path, rng: random.Random) -> Iterator[Case]:
    """Yields the cases of this module."""
    yield from _nonfinite(world, rng)
    yield from _endless()
    yield from _views()
    yield from _strange(world)


def _nonfinite(world: Path, rng: random.Random) -> Iterator[Case]:
    names = sorted(name for name in read(world / "classifier.safetensors") if not name.endswith("num_batches_tracked"))
    for place in ("w.safetensors", "w.pth", "w.legacy", "folder"):
        for (command, run), value in zip(commands(place), VALUES, strict=True):
            name, number = rng.choice(names), rng.random()

            def change(state: dict[str, Any], name: str = name, number: float = number, value: float = value) -> None:
                flat = state[name] = state[name].copy()
                flat.reshape(-1)[int(number * flat.size)] = value

            yield Case(
                "weights not finite", f"{command} {place} with {value} in {name}", spoiled(world, place, change), run, (name,)
            )
    for (command, run), value in zip(commands("run"), VALUES, strict=True):
        make = then(copies(world, "a.png"), lambda value=value: _write_workdir(world, value))
        yield Case("weights not finite", f"{command} a workdir with {value}", make, run, ("stem",))


def _write_workdir(world: Path, value: float) -> None:
    model = paca_jax.create_model(**CLASSIFIER)
    variables = paca_jax.convert.from_torch(read(world / "classifier.safetensors"), model)
    variables = jax.tree.map(np.array, variables)
    next(iter(variables["params"]["stem"].values()))["kernel"][0, 0, 0, 0] = value
    write_variables("run", variables, {"model": CLASSIFIER, "class_names": NAMES})


def _saved(make: Callable[[], Any]) -> Callable[[], None]:
    return lambda: torch.save(make(), "w.pth")


def _endless() -> Iterator[Case]:
    def itself() -> Any:
        holds: dict[str, Any] = {}
        holds["state_dict"] = holds
        return holds

    def each_other() -> Any:
        one: dict[str, Any] = {}
        one["model"] = {"module": one, "state_dict_ema": one}
        return one

    def every_wrapper() -> Any:
        holds: dict[str, Any] = {}
        for name in checkpoint._WRAPPERS:
            holds[name] = holds
        return holds

    def in_a_list() -> Any:
        holds: list[Any] = []
        holds.append(holds)
        return {"state_dict": {"stem": holds}}

    def deep() -> Any:
        holds: Any = {}
        for _ in range(300):
            holds = {"state_dict": holds}
        return holds

    for make in (itself, each_other, every_wrapper, in_a_list, deep):
        for command, run in commands("w.pth")[:2]:
            yield Case(
                "mappings that hold themselves", f"{command}: {make.__name__.replace('_', ' ')}", _saved(make), run, ("w.pth",)
            )


def _views() -> Iterator[Case]:
    def view(*shape: int, key: str = "head.weight", dtype: torch.dtype = torch.float32) -> Callable[[], Any]:
        return lambda: {key: torch.zeros(1, dtype=dtype).expand(*shape)}

    for name, make in (
        ("37 GiB", view(100_000, 100_000)),
        ("an unknown name", view(1 << 20, 1 << 14, key="x")),
        ("whole numbers", view(1 << 35, dtype=torch.int64)),
        ("half precision", view(3, 1 << 20, 1 << 20, dtype=torch.float16)),
    ):
        for command, run in commands("w.pth")[:2]:
            yield Case("expanded views", f"{command}: {name}", _saved(make), run, ("w.pth",))


# Made in the child: PyTorch may start threads.
_STRANGE: dict[str, Callable[[], Any]] = {
    "sparse": lambda: torch.eye(4).to_sparse(),
    "sparse rows": lambda: torch.eye(4).to_sparse_csr(),
    "quantized": lambda: torch.quantize_per_tensor(torch.ones(4, 4), 0.1, 0, torch.qint8),
    "meta": lambda: torch.ones(4, 4, device="meta"),
    "complex": lambda: torch.ones(4, 4, dtype=torch.complex64),
    "boolean": lambda: torch.ones(4, 4, dtype=torch.bool),
    "nested": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    "a float": lambda: 1.5,
    "a text": lambda: "weights",
    "None": lambda: None,
}


def _strange(world: Path) -> Iterator[Case]:
    kind, name = "tensors of other kinds", "head.weight"
    for index, (what, value) in enumerate(_STRANGE.items()):

        def make(value: Callable[[], Any] = value) -> None:
            state = {key: torch.from_numpy(array.copy()) for key, array in read(world / "classifier.safetensors").items()}
            torch.save(state | {name: value()}, "w.pth")

        command, run = commands("w.pth")[index % 2]
        yield Case(kind, f"{command}: {what}", make, run, (name,))
    _, run = commands("w.safetensors")[1]
    for what, change in (
        ("int8", lambda array: array.astype(np.int8)),
        ("uint8", lambda array: array.astype(np.uint8)),
        ("float16 of another shape", lambda array: array[:1].astype(np.float16)),
    ):
        make = spoiled(world, "w.safetensors", lambda state, change=change: state.update({name: change(state[name])}))
        yield Case(kind, f"convert safetensors: {what}", make, run, (name,))
