"""Calls that make, load, convert and prepare for models, with wrong types, shapes and sizes."""

import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import paca_jax
from paca_jax.checkpoints import read_state_dict, write_state_dict
from tests.proof.hostile.case import Case, call_of, copies, short
from tests.proof.hostile.world import CLASSIFIER

WRONG = (None, 7, 1.5, b"bytes", ["list"], {"a": 1}, object(), np.zeros(3))


def cases(world: Path, rng: random.Random) -> Iterator[Case]:
    """Yields the cases of this module."""
    model = paca_jax.create_model(**CLASSIFIER)
    yield from _preprocess(model)
    yield from _models()
    yield from _weights(world, model)


def _preprocess(model: Any) -> Iterator[Case]:
    kind = "wrong types to preprocess"
    array, whole = np.zeros((5, 5, 3)), np.zeros((5, 5, 3), np.uint8)
    arrays = (array, array.astype(np.int64), array.astype(bool), whole[0], whole[None], whole[:, :, :2])
    for picture in (*WRONG[:3], ["a.png"], {"a": 1}, object, *arrays, "", "\0", Image):
        yield call_of(kind, short(picture), partial(paca_jax.preprocess, picture, model), "path", "picture", "image", "array")
    for other in (None, "pacavit_nano", 3, CLASSIFIER, object()):
        yield call_of(kind, f"model {type(other).__name__}", partial(paca_jax.preprocess, whole, other), "model")


def _models() -> Iterator[Case]:
    kind = "wrong types to create_model"
    for name in (None, 7, b"pacavit_nano", ["pacavit_nano"], "", {}):
        yield call_of(kind, f"name {name!r}", partial(paca_jax.create_model, name), "model", "name")
    for key, values in {
        "num_classes": ("ten", -1, 1.5, True, 10**15, float("nan"), [10]),
        "dtype": ("int8", "float33", 5, None, "complex64", object()),
        "implementation": ("cuda", 5, ["xla"], ""),
        "remat": ("yes", 3, None),
        "clusters": (4, "4444", (4, 4), (4, 4, 4, -1), (10**12, 4, 4, 0), None, (np.nan, 4, 4, 0)),
        "embed_dims": ((), (0, 8, 8, 8), "8888", (10**12, 8, 8, 8), (8.5, 8, 8, 8)),
        "drop_path_rate": ("0.1", np.nan, 1.0, -0.1, (0.1,)),
        "image_size": (0, -1, "32", 10**12, None),
        "crop": (0, np.nan, "0.9", 2.0),
        "teacher": (3, "convmixer", {"depths": (1, 1, 1, 1)}),
        "unknown_option": (1,),
    }.items():
        for value in values:
            call = partial(paca_jax.create_model, "pacavit_nano", **{key: value})
            yield call_of(kind, f"{key}={short(value, 40)}", call, key, key.replace("_", " "))


def _weights(world: Path, model: Any) -> Iterator[Case]:
    kind = "wrong types to load and convert"
    there = copies(world, "classifier.safetensors")
    for source in (None, 7, b"classifier.safetensors", ["x"], object(), ""):
        yield call_of(kind, f"load({short(source, 30)})", partial(paca_jax.load, source), "path", "load", make=there)
    for key, values in {
        "model": (7, ["pacavit_nano"], b"pacavit_nano", "nano"),
        "weights": ("mean", 3, b"raw", ["raw"]),
        "allow_new": ("heads", 5, ("x",), [None]),
        "pretrained": ("yes", 3),
        "rgb_to_gray": ("yes", 3),
        "num_classes": ("4", 10**12, -1),
        "dtype": ("int8",),
        "clusters": ("4",),
        "image_size": (10**12, "32", [32]),
        "nonsense": (1,),
    }.items():
        for value in values:
            call = partial(paca_jax.load, "classifier.safetensors", **{key: value})
            yield call_of(kind, f"load({key}={value!r})", call, key, key.replace("_", " "), str(value), make=there)

    array = {"a": np.zeros(3)}
    for state in (*WRONG, {}, {1: np.zeros(3)}, {"head.weight": "text"}, {"head.weight": [1, 2]}, {"state_dict": 5}):
        call = partial(paca_jax.convert.from_torch, state, model)
        yield call_of(kind, f"from_torch({short(state, 30)})", call, "state dict", "state_dict", "head.weight")
    for other in (None, 7, "pacavit_nano"):
        yield call_of(kind, f"from_torch(model={other!r})", partial(paca_jax.convert.from_torch, array, other), "model")
        yield call_of(kind, f"to_torch(model={other!r})", partial(paca_jax.convert.to_torch, {"params": {}}, other), "model")
    for variables in (None, 7, [], "x", {}, {"params": 3}, {"params": {"stem": None}}):
        call = partial(paca_jax.convert.to_torch, variables, model)
        yield call_of(kind, f"to_torch({variables!r})", call, "params", "variables", "dict")
    for path in (None, 7, b"x", ""):
        yield call_of(kind, f"read_state_dict({path!r})", partial(read_state_dict, path), "path")
        yield call_of(kind, f"write_state_dict({path!r})", partial(write_state_dict, path, array), "path")
    for state in (None, 7, {}, {"a": "text"}, {1: np.zeros(3)}, {"a": np.array([object()])}):
        call = partial(write_state_dict, "x.safetensors", state)
        yield call_of(kind, f"write_state_dict(state={short(state, 40)})", call, "state", "array")
