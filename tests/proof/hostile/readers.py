"""The readers that run in this process, and intact content for each, to be mutated."""

import hashlib
import io
import json
import random
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import save

from paca_jax.checkpoints.files import read_weights
from paca_jax.checkpoints.loading import read_model
from paca_jax.convert import to_torch
from paca_jax.data.codecs.label_maps import IGNORED, decode_labels
from paca_jax.data.codecs.rle import encode_bitmap
from paca_jax.data.sources.coco.annotations import read_coco
from paca_jax.errors import UserError
from paca_jax.models import create_model, model_config
from paca_jax.train.config import check_config, count_steps, default_config, flat_items, model_overrides
from paca_jax.train.metrics.json_lines import read_metrics
from paca_jax.train.optimizer import make_optimizer, make_schedule
from tests import golden
from tests.data import coco_folder
from tests.proof.hostile.mutations import VALUES, mutate_bytes, mutate_json, mutated


class Reader(NamedTuple):
    """A reader.

    Attributes:
        name: what it reads.
        mutations: how many of ten thousand it gets.
        mutate: returns mutated content.
        read: reads content; raises a `UserError` where it is wrong, and an `AssertionError` where it was accepted silently.
    """

    name: str
    mutations: int
    mutate: Callable[[random.Random], Any]
    read: Callable[[Any], None]


# The smallest model: one stage of one block.
RECIPE: dict[str, Any] = {
    "name": "pacavit_nano",
    "num_classes": 2,
    "embed_dims": (4,),
    "depths": (1,),
    "num_heads": (1,),
    "mlp_ratios": (1,),
    "clusters": (2,),
    "clustering_periods": (0,),
    "clustering_kernel_sizes": (3,),
}
CLASS_NAMES = ["ant", "bee"]


def readers(folder: Path) -> Iterator[Reader]:
    """Yields the readers; they write what they read to a folder."""
    model = create_model(**RECIPE)
    state = to_torch(golden.random_variables(model), model)
    yield from _safetensors(folder, state)
    yield from _torch(folder, state)
    yield from _recorded(folder, state)
    yield from _annotations(folder)
    yield _label_maps()
    yield _config()


def _loaded(path: Path, data: bytes) -> dict[str, np.ndarray]:
    """Returns the state dict of the model that is loaded from a file with this content."""
    path.write_bytes(data)
    options = {key: value for key, value in RECIPE.items() if key != "name"}
    loaded = read_model(path, RECIPE["name"], **options)
    state = to_torch(loaded.variables, loaded.model)
    bad = [name for name, array in state.items() if not np.isfinite(array).all()]
    assert not bad, f"numbers that are not finite in {bad}"
    return state


def _safetensors(folder: Path, state: dict[str, np.ndarray]) -> Iterator[Reader]:
    intact = save(state, {"format": "pt", "paca_jax": json.dumps(RECIPE)})
    length = int.from_bytes(intact[:8], "little")

    def header(rng: random.Random) -> bytes:
        entries = json.loads(intact[8 : 8 + length])
        if rng.random() < 0.5:
            entries["__metadata__"]["paca_jax"] = mutate_json(rng, RECIPE).decode()
            text = json.dumps(entries).encode()
        else:
            text = mutate_json(rng, entries)
        return len(text).to_bytes(8, "little") + text + intact[8 + length :]

    def numbers(rng: random.Random) -> bytes:
        return intact[: 8 + length] + mutate_bytes(rng, intact[8 + length :])

    def read(data: bytes) -> None:
        _loaded(folder / "w.safetensors", data)

    yield Reader("safetensors, bytes", 1000, lambda rng: mutate_bytes(rng, intact), read)
    yield Reader("safetensors, header", 1000, header, read)
    yield Reader("safetensors, numbers", 500, numbers, read)


def _torch(folder: Path, state: dict[str, np.ndarray]) -> Iterator[Reader]:
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in state.items()}

    def saved(zipped: bool) -> bytes:
        buffer = io.BytesIO()
        torch.save({"state_dict": tensors, "epoch": 3}, buffer, _use_new_zipfile_serialization=zipped)
        return buffer.getvalue()

    zipped, legacy = saved(True), saved(False)

    def repacked(rng: random.Random) -> bytes:
        """Returns the archive with one member mutated and a checksum that fits it."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(zipped)) as old, zipfile.ZipFile(buffer, "w") as new:
            names = old.namelist()
            chosen = rng.choice([next(name for name in names if name.endswith("data.pkl")), rng.choice(names)])
            for name in names:
                content = old.read(name)
                new.writestr(name, mutate_bytes(rng, content) if name == chosen else content)
        return buffer.getvalue()

    def read(data: bytes) -> dict[str, np.ndarray]:
        return _loaded(folder / "w.pth", data)

    def read_intact(data: bytes) -> None:
        found = read(data)
        same = all(np.array_equal(found[name], array) for name, array in state.items())
        assert same, "a damaged archive that gives other weights"

    yield Reader(".pth, bytes", 1200, lambda rng: mutate_bytes(rng, zipped), read_intact)
    yield Reader(".pth, members", 1200, repacked, read)
    yield Reader(".pth of old, bytes", 1000, lambda rng: mutate_bytes(rng, legacy), read)


def _recorded(folder: Path, state: dict[str, np.ndarray]) -> Iterator[Reader]:
    torch.save({key: torch.from_numpy(value.copy()) for key, value in state.items()}, folder / "s.pth")
    checksum = hashlib.sha256((folder / "s.pth").read_bytes()).hexdigest()
    entries = {"paca_jax": RECIPE, "paca_jax.class_names": CLASS_NAMES, "sha256": checksum}

    def read_sidecar(text: bytes) -> None:
        (folder / "s.pth.json").write_bytes(text)
        description = read_weights(folder / "s.pth").description
        if description.recipe and "name" in description.recipe:
            create_model(**description.recipe)
        names = description.class_names
        assert names is None or all(isinstance(name, str) for name in names), names

    yield Reader("sidecars of weights", 800, lambda rng: mutate_json(rng, entries), read_sidecar)

    lines = "".join(json.dumps({"step": step, "train/loss": 1.5, "eval/accuracy": 0.5}) + "\n" for step in range(1, 6)).encode()

    def read_lines(data: bytes) -> None:
        (folder / "metrics.jsonl").write_bytes(data)
        for line in read_metrics(folder):
            assert isinstance(line["step"], int), line

    yield Reader("metrics.jsonl", 500, lambda rng: mutate_bytes(rng, lines), read_lines)


def _annotations(folder: Path) -> Iterator[Reader]:
    boxes = [coco_folder.square(number, 1 + number % 2, 5, 5, 20) for number in range(1, 4)]
    crowds = [coco_folder.crowd(7, 1, (40, 50)), coco_folder.crowd(8, 2, (45, 60), "text")]
    content = coco_folder.content({1: (40, 50), 2: (45, 60)}, [*boxes, *crowds])

    def read(text: bytes) -> None:
        (folder / "a.json").write_bytes(text)
        file = read_coco(str(folder / "a.json"))
        assert np.isfinite(file.boxes).all(), "boxes that are not finite"
        assert np.isfinite(file.areas).all(), "areas that are not finite"
        for image, (first, last) in enumerate(zip(file.first[:-1].tolist(), file.first[1:].tolist(), strict=True)):
            for number in range(first, last):
                file.segments(number, image)

    yield Reader("annotations, values", 1000, lambda rng: mutate_json(rng, content), read)
    yield Reader("annotations, bytes", 300, lambda rng: mutate_bytes(rng, json.dumps(content).encode()), read)

    def counts(rng: random.Random) -> bytes:
        text = encode_bitmap(np.random.default_rng(rng.getrandbits(32)).random((45, 60)) < 0.1)["counts"]
        given: Any = mutate_bytes(rng, text.encode()).decode("latin-1")
        if rng.random() < 0.3:
            given = mutated(rng, [100, 200, 2400])
        boxed = coco_folder.square(1, 2, 5, 5, 20) | {"segmentation": {"size": [45, 60], "counts": given}}
        return json.dumps(coco_folder.content({2: (45, 60)}, [boxed])).encode()

    yield Reader("run lengths", 700, counts, read)


def _label_maps() -> Reader:
    pixels = np.arange(600, dtype=np.uint8).reshape(20, 30) % 3
    files = []
    for kind in ("PNG", "TIFF", "BMP", "PPM"):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, kind)
        files.append(buffer.getvalue())

    def read(data: bytes) -> None:
        found = decode_labels(data, (20, 30), 3)
        assert found.shape == (20, 30), found.shape
        assert set(np.unique(found).tolist()) <= {0, 1, 2, IGNORED}, np.unique(found)

    return Reader("label maps", 400, lambda rng: mutate_bytes(rng, rng.choice(files)), read)


def _config() -> Reader:
    kinds = {key: kind for key, _, kind in flat_items(default_config())}

    def mutate(rng: random.Random) -> dict[str, Any]:
        keys = rng.choices(list(kinds), k=rng.choice((1, 1, 2)))
        alike = {key: [value for value in VALUES if isinstance(value, kinds[key])] for key in keys}
        return {key: rng.choice(alike[key] if rng.random() < 0.7 else VALUES) for key in keys}

    def read(changes: dict[str, Any]) -> None:
        config = default_config()
        try:
            config.update_from_flattened_dict(changes)
        except (TypeError, KeyError, AttributeError) as error:  # of ml_collections; command lines say them in a sentence
            raise UserError("Expected a value of the key's type.") from error
        check_config(config, 1)
        model_config(config.model.name, **model_overrides(config))
        steps = count_steps(config, 1000)
        schedule = make_schedule(config, steps)
        make_optimizer(config, schedule)

    return Reader("config values", 400, mutate, read)
