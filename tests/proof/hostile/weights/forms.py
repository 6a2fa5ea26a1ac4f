"""The classifier's weights in every form, and what is done with them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import paca_jax
from tests.proof.hostile.case import copies, predict


def commands(place: str) -> list[tuple[str, Any]]:
    """Returns what reads weights at a place, each with its name."""
    return [
        ("load", lambda: paca_jax.load(place)),
        ("convert", ["convert", place, "new.safetensors"]),
        ("predict", predict(place, "a.png")),
    ]


def read(path: str | Path) -> dict[str, np.ndarray]:
    """Returns the arrays in a safetensors file."""
    from safetensors.numpy import load_file

    return load_file(path)


def spoiled(world: Path, place: str, change: Callable[[dict[str, Any]], None]) -> Callable[[], None]:
    """Returns a function that writes the classifier's weights, changed, in the form that a name says."""

    def make() -> None:
        from safetensors import safe_open
        from safetensors.numpy import save_file

        copies(world, "a.png")()
        state = read(world / "classifier.safetensors")
        if place == "run":
            copies(world, "classifier.safetensors")()
        with safe_open(world / "classifier.safetensors", "np") as file:
            metadata = file.metadata()
        change(state)
        if place.endswith(".safetensors"):
            save_file(state, place, metadata)
        elif place == "folder":
            Path(place).mkdir()
            names = sorted(state)
            parts = {"1.safetensors": names[::2], "2.safetensors": names[1::2]}
            for file_name, part in parts.items():
                save_file({name: state[name] for name in part}, f"{place}/{file_name}")
            index = {"weight_map": {name: file_name for file_name, part in parts.items() for name in part}}
            Path(place, "model.safetensors.index.json").write_text(json.dumps(index))
            Path(place, "config.json").write_text(json.dumps({"image_size": 32}))
        else:
            save_torch(place, state)

    return make


def save_torch(place: str, state: dict[str, Any]) -> None:
    import torch

    tensors = {key: torch.from_numpy(np.array(value)) for key, value in state.items()}
    torch.save(tensors, place, _use_new_zipfile_serialization=not place.endswith(".legacy"))
