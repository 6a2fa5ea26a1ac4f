"""Outputs over files that were there before."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

from tests.proof.hostile.case import Case, copies, predict, then, writes

PREDICTIONS = json.dumps({"earlier.png": [{"name": "ant", "share": 1.0}]}) + "\n"
EARLIER = writes("out/predictions.json", PREDICTIONS)


def cases(world: Path, rng: random.Random) -> Iterator[Case]:
    """Yields the cases of this module."""
    kind = "predictions of an earlier run"
    broken = writes("broken.png", rng.randbytes(200))
    there = then(copies(world, "a.png", "b.jpg", "classifier.safetensors", "segmentor.safetensors"), broken, EARLIER)
    for name, run, names in (
        ("a broken first picture", predict("classifier.safetensors", "broken.png"), ("broken.png", "predictions.json")),
        ("a broken last picture", predict("classifier.safetensors", "a.png", "broken.png"), ("predictions.json",)),
        ("a missing picture", predict("segmentor.safetensors", "absent.png"), ("absent.png", "predictions.json")),
        ("missing weights", predict("absent.safetensors", "a.png"), ("absent.safetensors", "predictions.json")),
        ("other pictures", predict("classifier.safetensors", "a.png"), ("predictions.json",)),
    ):
        yield Case(kind, name, there, run, names)
    again = then(there, writes("out/predictions.json", json.dumps({"broken.png": [], "a.png": [{"name": "ant"}]})))
    for name, run in (
        ("the same pictures, the first one broken now", predict("classifier.safetensors", "broken.png", "a.png")),
        ("the same pictures, of other weights", predict("segmentor.safetensors", "broken.png", "a.png")),
    ):
        yield Case(kind, name, again, run, ("broken.png",))
    for content in ("", "[]", '{"a.png": 3}', '{"a.png": [1]}', '{"files/": [{"name": 7}]}', "{"):
        make = then(there, writes("out/predictions.json", content))
        may = "no earlier prediction is lost" if "files" in content else ""
        run = predict("classifier.safetensors", "broken.png")
        yield Case(kind, f"a file with {content!r}", make, run, ("predictions.json", "broken.png"), may_load=may)

    kind = "outputs over other files"
    taken = "a.mask.png", "a.overlay.png"
    for name in taken:
        make = then(copies(world, "a.png", "segmentor.safetensors"), copies(world, f"b.jpg:{name}"))
        yield Case(kind, f"{name} in the pictures' folder", make, predict("segmentor.safetensors", "a.png", out="."), (name,))
    for name in taken:
        make = then(copies(world, "a.png", "segmentor.safetensors"), copies(world, f"b.jpg:{name}"))
        run = predict("segmentor.safetensors", "a.png", name, out=".")
        yield Case(kind, f"{name}, a later input", make, run, (name,))
    make = then(copies(world, "a.png", "classifier.safetensors"), writes("out/a.clusters.png", "mine"))
    yield Case(kind, "a.clusters.png of another program", make, predict("classifier.safetensors", "a.png"), ("a.clusters.png",))
    make = then(copies(world, "a.png", "classifier.safetensors"), writes("out", "a file"))
    yield Case(kind, "--out is a file", make, predict("classifier.safetensors", "a.png"), ("out",))
    make = then(copies(world, "a.png", "classifier.safetensors"), writes("out/predictions.json/x", "a folder"))
    yield Case(kind, "predictions.json is a folder", make, predict("classifier.safetensors", "a.png"), ("predictions.json",))

    kind = "converted files over others"
    for name in ("w.safetensors", "w.pth"):
        make = then(copies(world, "classifier.safetensors"), writes(name, "mine"))
        yield Case(kind, name, make, ["convert", "classifier.safetensors", name], (name,))
    make = then(copies(world, "classifier.safetensors"), writes("w.pth.json", "mine"))
    yield Case(kind, "w.pth.json", make, ["convert", "classifier.safetensors", "w.pth"], ("w.pth.json",))
    make = copies(world, "classifier.safetensors", "converted:run")
    yield Case(kind, "a workdir", make, ["convert", "classifier.safetensors", "run"], ("run",))
    make = then(copies(world, "classifier.safetensors"), writes("folder/notes.txt", "mine"))
    yield Case(kind, "a folder of notes", make, ["convert", "classifier.safetensors", "folder"], ("folder",))
    make = copies(world, "tfds", "tfds:tfds_array_record")
    run = ["convert-records", "tfds/records/1.2.0"]
    yield Case(kind, "a data set that is there", make, run, ("tfds_array_record",))
