"""Annotation files in COCO's format."""

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.proof.hostile.case import Case, copies, short, then, writes

FILE = "coco/annotations/instances_train2017.json"
NAN, INF = float("nan"), float("inf")
ABSENT = object()
# Values for a key of the first entry of a list.
FIELDS: dict[str, dict[str, tuple[Any, ...]]] = {
    "images": {
        "id": (ABSENT, None, "one", 1.5, True, 2, [1], 2**70),
        "height": (ABSENT, 0, -40, "40px", 1e9, 40.5, NAN),
        "width": (None, 0, 2**40, [50]),
        "file_name": (ABSENT, None, "", 7, "\0.png", "absent.png", "\ud800.png", ["a"], "."),
    },
    "categories": {"id": (ABSENT, "x", None, 3), "name": (ABSENT, None, "", 5, " ", ["cat"])},
    "annotations": {
        "id": (ABSENT, None, "x", 2, 1.5),
        "image_id": (ABSENT, 99, "1x", None, [1]),
        "category_id": (ABSENT, 99, "seven", NAN),
        "bbox": ([1, 2, 3], ["a", 1, 2, 3], [NAN, 1, 2, 3], [1, 2, INF, 3], [1e300, 0, 1, 1], "1 2 3 4", {"x": 1}, [None] * 4),
        "area": (-1, "big", NAN, INF, [5]),
        "iscrowd": ("x", 2, -1, [0], 0.5),
        "segmentation": (
            "polygon",
            7,
            [[1, 2, "3", 4, 5, 6]],
            [[NAN] * 6],
            [[1e300] * 6],
            [1, 2, 3, 4, 5, 6],
            [[[1, 2], [3, 4]]],
        ),
    },
}
NOT_FILES = (
    "",
    "{",
    "[]",
    "null",
    "7",
    '{"images": []}',
    '{"images": {}, "annotations": [], "categories": []}',
    '{"images": [], "annotations": [], "categories": []}',
    '{"images": [1], "annotations": [], "categories": []}',
    "[" * 99_999,
    "\0",
    '{"images": [{"id": 1}]',
    b"\xff\xfe\xff",
    b"\x89PNG\r\n\x1a\n",
)


def cases(world: Path, rng: random.Random) -> Iterator[Case]:
    """Yields the cases of this module."""
    for name, fields in FIELDS.items():
        for key, values in fields.items():
            for value in values:
                make = _edit(world, lambda content, name=name, key=key, value=value: _set(content[name][0], key, value))
                shown = "absent" if value is ABSENT else short(value, 40)
                if (name, key, value) == ("annotations", "id", 2) or (key == "id" and value == 3):
                    shown += ", which another has"
                yield Case(f"annotations: {name}", f"{key}: {shown}", make, read_boxes, ("instances_train2017.json",))
    for content in NOT_FILES:
        make = then(copies(world, "coco"), writes(FILE, content))
        yield Case("files that are no annotations", short(content, 50), make, read_boxes, ("instances_train2017.json",))
    yield from _counts(world, rng)
    yield from _outside(world)
    yield from _names(world)


def read_boxes() -> None:
    """Opens the folder, and makes every training example."""
    from paca_jax import data

    dataset = data.open_dataset("coco", "train", "coco", ("image", "objects"))
    transform = data.DetectionEvalTransform(32, 64, 3)
    for batch in data.eval_batches(dataset, transform, batch_size=1, groups=range(len(dataset))):
        del batch
    for index in range(len(dataset)):
        dataset.annotations(index)


def _edit(world: Path, change: Callable[[dict[str, Any]], Any]) -> Callable[[], None]:
    def make() -> None:
        copies(world, "coco")()
        content = json.loads(Path(FILE).read_text())
        change(content)
        Path(FILE).write_text(json.dumps(content))

    return make


def _set(entry: dict[str, Any], key: str, value: Any) -> None:
    if value is ABSENT:
        del entry[key]
    else:
        entry[key] = value


def _counts(world: Path, rng: random.Random) -> Iterator[Case]:
    size = [45, 60]
    pixels = 45 * 60
    text = "".join(chr(rng.randrange(48, 112)) for _ in range(40))
    for name, counts in (
        ("a text of a megabyte", "P" * 10**6),
        ("a text of zeros of a megabyte", "0" * 10**6),
        ("a text of ones of a megabyte", "1" * 10**6),
        ("a text at random of a megabyte", text * 25_000),
        ("a text at random", text),
        ("a list of 1,000,000", [0] * 10**6),
        ("a list of 2,700 and many zeros", [pixels] + [0] * 10**6),
        ("a list of texts", ["1", "2"]),
        ("a negative run", [-5, pixels + 5]),
        ("runs that are too long", [0, 2**62]),
        ("runs of 1e18", [1e18, 1e18]),
        ("runs that are too short", [0, 5]),
        ("other characters", "~~~~"),
        ("a text that is cut", "Po"),
        ("a number", 5),
        ("nothing", None),
        ("NaN", [NAN, 5]),
    ):
        make = _edit(
            world,
            lambda content, counts=counts: _set(content["annotations"][0], "segmentation", {"size": size, "counts": counts}),
        )
        may = "the runs cover the picture" if "zeros" in name and isinstance(counts, list) else ""
        yield Case("run lengths", name, make, read_boxes, ("instances_train2017.json",), may_load=may)
    for given in ([60, 45], [10**6, 10**6], ["45", "60"], None, 45, [45], [-45, -60]):
        make = _edit(
            world,
            lambda content, given=given: _set(
                content["annotations"][0], "segmentation", {"size": given, "counts": [0, pixels]}
            ),
        )
        yield Case("run lengths", f"a size of {given}", make, read_boxes, ("instances_train2017.json",))


def _outside(world: Path) -> Iterator[Case]:
    kind = "images outside the folder"
    for name in (
        "../a.png",
        "../../world/a.png",
        "x/../../../a.png",
        "/etc/hostname",
        "file:///etc/hostname",
        "~/a.png",
        "..\\..\\a.png",
        "/proc/self/environ",
    ):
        make = then(
            copies(world, "a.png"), _edit(world, lambda content, name=name: _set(content["images"][0], "file_name", name))
        )
        yield Case(kind, name, make, read_boxes, ("instances_train2017.json",))

    def link() -> None:
        shutil.copy(world / "a.png", "a.png")
        os.symlink(Path("a.png").absolute(), "coco/train2017/link.png")

    make = then(_edit(world, lambda content: _set(content["images"][0], "file_name", "link.png")), link)
    yield Case(kind, "a link out of it", make, read_boxes, ("instances_train2017.json",))


def _names(world: Path) -> Iterator[Case]:
    kind = "two categories of one name"
    for first, second in (("cat", "cat"), ("cat", " cat"), ("cat", "cat\n"), ("café", "cafe\u0301")):

        def change(content: dict[str, Any], first: str = first, second: str = second) -> None:
            content["categories"][0]["name"], content["categories"][1]["name"] = first, second

        may = "" if first == second else "they differ in a character"
        yield Case(
            kind, f"{first!r} and {second!r}", _edit(world, change), read_boxes, ("instances_train2017.json",), may_load=may
        )
    yield Case(
        kind,
        "a category twice",
        _edit(world, lambda content: content["categories"].append(content["categories"][0])),
        read_boxes,
        ("instances_train2017.json",),
    )
