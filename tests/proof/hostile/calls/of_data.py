"""Calls of `data`, `explain` and `ops` with wrong types, shapes and sizes, and with nothing."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

import paca_jax
from tests.data.tiny import Numbers, draw, encode
from tests.proof.hostile.case import Case, call_of, short
from tests.proof.hostile.world import CLASSIFIER


def cases(world: Path, rng: random.Random) -> Iterator[Case]:
    """Yields the cases of this module."""
    yield from _data()
    yield from _explain()
    yield from _no_boxes()


def _data() -> Iterator[Case]:
    kind = "wrong types to functions of data"

    def of(function: str, *arguments: Any, **keywords: Any) -> Callable[[], Any]:
        return lambda: getattr(paca_jax.data, function)(*arguments, **keywords)

    picture, png = Image.new("RGB", (5, 5)), encode(np.zeros((5, 5, 3), np.uint8))
    for function, arguments, names in (
        ("open_dataset", (None, "train"), ("name", "data set")),
        ("open_dataset", (7, "train"), ("name", "data set")),
        ("open_dataset", ("folder", None, "."), ("split",)),
        ("open_dataset", ("folder", "train", 7), ("path", "folder", "data_dir")),
        ("open_dataset", ("folder", "train", "."), ("folder",)),
        ("open_dataset", ("folder", "train", ".", ("image", "sound")), ("features",)),
        ("open_dataset", ("folder", "train", ".", 5), ("features",)),
        ("open_dataset", ("folder", "train", ".", "image"), ("features",)),
        ("describe_dataset", ("coco", 3, "."), ("split",)),
        ("decode_image", (None, 3), ("bytes", "image")),
        ("decode_image", ("a.png", 3), ("bytes", "image")),
        ("decode_image", (b"", 3), ("bytes", "image")),
        ("decode_image", (png, 2), ("channels",)),
        ("decode_image", (png, "3"), ("channels",)),
        ("convert_image", (None, 3), ("image",)),
        ("convert_image", (picture, 5), ("channels",)),
        ("convert_image", (picture, None), ("channels",)),
        ("decode_mask", (None,), ("bytes", "mask", "image")),
        ("decode_mask", (7,), ("bytes", "mask", "image")),
        ("decode_mask", (b"mask",), ("image", "mask")),
        ("encode_bitmap", (None,), ("bitmap",)),
        ("encode_bitmap", (np.zeros(5),), ("bitmap",)),
        ("encode_bitmap", (np.zeros((2, 2, 2)),), ("bitmap",)),
        ("eval_transform", (None,), ("config",)),
        ("eval_transform", ("pacavit_nano",), ("config",)),
        ("readable_names", (7,), ("name",)),
    ):
        yield call_of(kind, f"{function}({', '.join(map(short, arguments))})", of(function, *arguments), *names)
    for key, value in (
        ("batch_size", 0),
        ("batch_size", -3),
        ("batch_size", 1.5),
        ("batch_size", "8"),
        ("batch_size", 10**15),
        ("seed", -1),
        ("seed", "x"),
        ("start_step", -1),
        ("num_workers", -1),
        ("rows", [9]),
        ("rows", [1, 0]),
        ("num_steps", -5),
    ):

        def batches(key: str = key, value: Any = value) -> None:
            given = {"batch_size": 4, "seed": 0, "start_step": 0, "num_steps": 1} | {key: value}
            for _ in paca_jax.data.train_batches(Numbers(8), draw, **given):
                pass

        may = {"num_steps=-5": "no steps", "seed=-1": "any whole number is a seed"}.get(f"{key}={value!r}", "")
        yield call_of(kind, f"train_batches({key}={value!r})", batches, key, may_load=may)


def _explain() -> Iterator[Case]:
    kind = "wrong types to functions of explain"
    picture = Image.new("RGB", (5, 5))
    labels = np.zeros((5, 5), np.uint8)

    def of(function: str, *arguments: Any) -> Callable[[], Any]:
        return lambda: getattr(paca_jax.explain, function)(*arguments)

    for function, arguments, names in (
        ("mask_png", (None, 3), ("labels",)),
        ("mask_png", (labels + 9, 3), ("label",)),
        ("mask_png", (labels.astype(float), 3), ("label",)),
        ("mask_png", (labels, 0), ("classes", "labels")),
        ("mask_png", (labels, 10**9), ("classes",)),
        ("mask_png", (labels[0], 3), ("label",)),
        ("palette", (-1,), ("classes",)),
        ("palette", ("x",), ("classes",)),
        ("palette", (10**12,), ("classes",)),
        ("overlay", (None, np.zeros((2, 2))), ("picture",)),
        ("overlay", (picture, None), ("heat",)),
        ("overlay", (picture, np.zeros((0, 0))), ("heat",)),
        ("overlay", (picture, np.full((2, 2), np.nan)), ("heat",)),
        ("segment_overlay", (picture, labels[:2], ["sky"]), ("label", "size", "picture")),
        ("segment_overlay", (picture, labels + 9, ["sky"]), ("label",)),
        ("segment_overlay", (picture, labels, "s"), ("names",)),
        ("segment_overlay", (None, labels, ["sky"]), ("picture",)),
        ("segment_sheet", ([], ["sky"]), ("row", "picture")),
        ("detection_sheet", ([], ["sky"]), ("row", "picture")),
        ("detection_overlay", (picture, None, ["sky"]), ("objects",)),
        ("to_png", (None,), ("image", "picture")),
        ("cluster_sheet", (None, {}, [picture], np.zeros((1, 32, 32, 3)), ["a"]), ("model",)),
    ):
        yield call_of(kind, f"{function}({', '.join(map(short, arguments))})", of(function, *arguments), *names)
    for name, change, names in (
        ("no pictures", {"pictures": [], "images": np.zeros((0, 32, 32, 3), np.float32)}, ("picture", "image")),
        ("two pictures, one image", {"pictures": [picture] * 2}, ("picture",)),
        ("names as one text", {"class_names": "abcd"}, ("names",)),
        ("three names of four", {"class_names": ["a", "b", "c"]}, ("names",)),
        ("an unknown block", {"block": "stage9/block9"}, ("block",)),
        ("labels beyond the names", {"labels": [9]}, ("label",)),
        ("no heat maps", {"clusters_per_image": -1}, ("clusters_per_image",)),
    ):

        def sheet(change: dict[str, Any] = change) -> Any:
            model = paca_jax.create_model(**CLASSIFIER)
            variables = jax.jit(model.init)(jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
            given = {
                "pictures": [picture],
                "images": np.zeros((1, 32, 32, 3), np.float32),
                "class_names": ["a", "b", "c", "d"],
            } | change
            return paca_jax.explain.cluster_sheet(model, variables, **given)

        yield call_of(kind, f"cluster_sheet, {name}", sheet, *names)


def _no_boxes() -> Iterator[Case]:
    reason = "a picture without boxes is ordinary: the answer is empty"
    boxes, none = np.zeros((0, 4), np.float32), np.zeros(0, np.float32)
    maps = np.ones((8, 8, 3), np.float32)

    def of(function: str, *arguments: Any, shapes: Any) -> Callable[[], Any]:
        def call() -> None:
            found = getattr(paca_jax.ops, function)(
                *jax.tree.map(lambda x: jax.numpy.asarray(x) if isinstance(x, np.ndarray) else x, arguments)
            )
            assert jax.tree.map(np.shape, found) == shapes, jax.tree.map(np.shape, found)

        return call

    valid = np.zeros(0, bool)
    for function, arguments, shapes in (
        ("nms", (boxes, none, valid, 0.5), (0,)),
        ("batched_nms", (boxes, none, none.astype(np.int32), valid, 0.5, 5), ((5,), (5,))),
        ("batched_nms", (boxes, none, none.astype(np.int32), valid, 0.5, 0), ((0,), (0,))),
        ("roi_align", (maps, boxes, 4, 7), (0, 7, 7, 3)),
        ("box_iou", (boxes, boxes + 0), (0, 0)),
        ("paste_masks", (np.zeros((0, 28, 28), np.float32), boxes, (9, 9)), (0, 9, 9)),
    ):
        yield call_of(
            "operations of no boxes", f"{function}, {short(shapes)}", of(function, *arguments, shapes=shapes), loads=reason
        )
