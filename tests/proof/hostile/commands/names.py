"""Paths and names with zero bytes, bytes that are not UTF-8, and newlines, which must not forge a second line."""

import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.proof.hostile.case import BOXED, MASKED, PHOTOS, Case, copies, predict, then, train, writes
from tests.proof.hostile.data.images import read_photos
from tests.proof.hostile.weights.recorded import change_metadata

FORGED = "x\nerror: forged"
TEXTS = {
    "a zero byte": "x\0y",
    "no UTF-8": os.fsdecode(b"x\xff\xfe"),
    "newlines": FORGED,
    "4,000 characters": "x" * 4000,
    "an escape": "x\x1b[2Jy\rz",
}


def cases(world: Path, rng: random.Random) -> Iterator[Case]:
    """Yields the cases of this module."""
    kind = "names with strange characters"
    there = copies(world, "a.png", "classifier.safetensors", "coco", "masks", "tfds", "photos")
    for name, text in TEXTS.items():
        for what, run in (
            ("a picture", predict("classifier.safetensors", f"{text}.png")),
            ("weights", predict(f"{text}.safetensors", "a.png")),
            ("names", predict("classifier.safetensors", "a.png", flags=[f"--class-names={text}"])),
            ("a config", ["train", f"--config={text}.py", "--workdir=run"]),
            ("weights to start from", train(init_from=f"{text}.pth")),
            ("a data set", train(dataset__name=text)),
            ("a folder of data sets", train(dataset__data_dir=text)),
            ("a split", train(dataset__train_split=text)),
            ("a model", train(model__name=text)),
            ("a value", train(f"--config.batch_size={text}")),
            ("a key", train(f"--config.{text}=1")),
            ("a command", [text]),
            ("a data set to prepare", ["prepare", text]),
        ):
            yield Case(kind, f"{what}: {name}", there, run, ("x",))
    for name in ("a zero byte", "4,000 characters"):
        for what, run in (
            ("a workdir", train(workdir=TEXTS[name])),
            ("an output", predict("classifier.safetensors", "a.png", out=TEXTS[name])),
            ("a destination", ["convert", "classifier.safetensors", f"{TEXTS[name]}.pth"]),
        ):
            yield Case(kind, f"{what}: {name}", there, run, ("x",))
    for name in ("no UTF-8", "newlines", "an escape"):
        run = predict("classifier.safetensors", "a.png", out=TEXTS[name])
        yield Case(kind, f"an output: {name}", there, run, ("x",), may_load="such a folder can be made")

    kind = "contents with newlines"
    for what, make, run in (
        (
            "a picture that is there",
            lambda: Path(f"{FORGED}.png").write_bytes(b"no picture"),
            predict("classifier.safetensors", f"{FORGED}.png"),
        ),
        ("weights that are there", lambda: Path(f"{FORGED}.pth").write_bytes(b"no weights"), predict(f"{FORGED}.pth", "a.png")),
        ("a picture in a folder", lambda: Path(f"photos/ant/{FORGED}.png").write_bytes(b"no picture"), read_photos),
        ("a class folder", lambda: Path(f"photos/{FORGED}").mkdir(), train(on=PHOTOS)),
        ("a file_name", _coco(lambda content: content["images"][0].update(file_name=f"{FORGED}.png")), train(on=BOXED)),
        (
            "a category",
            _coco(lambda content: [entry.update(name=FORGED) for entry in content["categories"][:2]]),
            train(on=BOXED),
        ),
        ("an id", _coco(lambda content: content["images"][0].update(id=FORGED)), train(on=BOXED)),
        ("a class of masks", writes("masks/classes.txt", "sky\n\n" + FORGED), train(on=MASKED)),
        ("a tensor", lambda: _tensor(world), ["convert", "named.safetensors", "new.pth"]),
        ("a recorded model", lambda: _recorded(world, {"name": FORGED}), predict("run", "a.png")),
        ("a recorded option", lambda: _recorded(world, {"name": "pacavit_nano", FORGED: 1}), predict("run", "a.png")),
    ):
        yield Case(kind, what, then(there, make), run)


def _coco(change: Callable[[dict[str, Any]], Any]) -> Callable[[], None]:
    def make() -> None:
        path = Path("coco/annotations/instances_train2017.json")
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return make


def _tensor(world: Path) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    from tests.proof.hostile.weights.forms import read

    save_file(read(world / "classifier.safetensors") | {FORGED: np.zeros(3, np.float32)}, "named.safetensors")


def _recorded(world: Path, recipe: dict[str, Any]) -> None:
    copies(world, "converted:run")()
    change_metadata("run", {"model": recipe})
