"""JSON that is read back and is not what was written: recipes, names of classes, sidecars, indices, cache records."""

import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.proof.hostile.case import Case, copies, predict, short, then, writes

ABSENT = object()
# Changes of the recorded keyword arguments of `create_model`.
RECIPES: tuple[dict[str, Any], ...] = (
    {"name": ABSENT},
    {"name": None},
    {"name": 7},
    {"name": ["pacavit_nano"]},
    {"name": "pacavit_nono"},
    {"num_heads": [0, 0, 0, 0]},
    {"num_heads": "1111"},
    {"num_heads": [1, 1, 1]},
    {"num_heads": [None, 1, 1, 1]},
    {"num_heads": [3, 3, 3, 3]},
    {"embed_dims": [-8, 8, 8, 8]},
    {"embed_dims": ["8", 8, 8, 8]},
    {"embed_dims": [[8], 8, 8, 8]},
    {"embed_dims": [10**12, 8, 8, 8]},
    {"embed_dims": []},
    {"depths": [1.5, 1, 1, 1]},
    {"depths": [10**9, 1, 1, 1]},
    {"mlp_ratios": [float("nan"), 4, 4, 4]},
    {"mlp_ratios": [float("inf"), 4, 4, 4]},
    {"mlp_ratios": [0.001, 4, 4, 4]},
    {"clusters": None},
    {"clusters": [10**12, 4, 4, 0]},
    {"clusters": {"a": 1}},
    {"clustering": 3},
    {"clustering_kernel_sizes": [10**6 + 1, 7, 7, 7]},
    {"drop_path_rate": "0.1"},
    {"drop_path_rate": float("nan")},
    {"layer_scale": float("inf")},
    {"num_classes": 10**12},
    {"num_classes": True},
    {"num_classes": "4"},
    {"image_size": 0},
    {"image_size": 10**9},
    {"image_size": 32.5},
    {"crop": float("nan")},
    {"image_channels": 10**9},
    {"teacher": "yes"},
    {"teacher": {"depths": [0]}},
    {"dtype": "int8"},
    {"remat": "no"},
    {"unknown": 1},
    {"implementation": "gpu"},
)
NOT_RECIPES = (3, "pacavit_nano", [], [["name", "pacavit_nano"]], True)
CLASS_NAMES = ("abcd", "ant", 4, {"0": "ant"}, [1, 2, 3, 4], ["ant", None, "cat", "dog"], [["ant"], "b", "c", "d"], True)


def cases(world: Path, rng: random.Random) -> Iterator[Case]:
    """Yields the cases of this module."""
    for index, change in enumerate(RECIPES):
        form = ("safetensors", "pth", "run")[index % 3]
        names = (next(iter(change)), *_places(form))
        yield Case(
            "recorded recipes", f"{form}: {short(_shown(change))}", _recipe(world, form, change), _command(form, index), names
        )
    for index, recipe in enumerate(NOT_RECIPES):
        form = ("safetensors", "pth", "run")[index % 3]
        yield Case(
            "recorded recipes", f"{form}: {recipe!r}", _recipe(world, form, recipe), _command(form, index), _places(form)
        )
    for index, names in enumerate(CLASS_NAMES):
        form = ("safetensors", "pth", "run")[index % 3]
        make = _recipe(world, form, {}, names)
        yield Case("recorded names of classes", f"{form}: {names!r}", make, _command(form, index), _places(form))
    yield from _given_names(world)
    yield from _sidecars(world)
    yield from _hugging_face(world)
    yield from _cache(world, rng)


def _shown(change: dict[str, Any]) -> dict[str, Any]:
    return {key: "(absent)" if value is ABSENT else value for key, value in change.items()}


def _places(form: str) -> tuple[str, ...]:
    return ("run",) if form == "run" else (f"w.{form}",)


def _command(form: str, index: int) -> list[str]:
    place = _places(form)[0]
    return predict(place, "a.png") if index % 2 else ["convert", place, "new.safetensors"]


def _recipe(world: Path, form: str, change: Any, class_names: Any = None) -> Any:
    """Returns a function that writes weights of a form whose recorded recipe, or names of classes, are changed."""

    def make() -> None:
        from safetensors.numpy import save_file

        from tests.proof.hostile.weights.forms import read
        from tests.proof.hostile.world import CLASSIFIER, NAMES

        recipe = change
        if isinstance(change, dict):
            recipe = {key: value for key, value in (CLASSIFIER | change).items() if value is not ABSENT}
        names = NAMES if class_names is None else class_names
        copies(world, "a.png")()
        if form == "safetensors":
            metadata = {"format": "pt", "paca_jax": json.dumps(recipe), "paca_jax.class_names": json.dumps(names)}
            save_file(read(world / "classifier.safetensors"), "w.safetensors", metadata)
        elif form == "pth":
            copies(world, "classifier.pth:w.pth", "classifier.pth.json:w.pth.json")()
            entries = json.loads(Path("w.pth.json").read_text())
            Path("w.pth.json").write_text(json.dumps(entries | {"paca_jax": recipe, "paca_jax.class_names": names}))
        else:
            copies(world, "converted:run")()
            change_metadata("run", {"model": recipe, "class_names": names})

    return make


def metadata_file(workdir: str) -> Path:
    """Returns the file of metadata of a workdir's only or newest checkpoint."""
    found = sorted(Path(workdir, "checkpoints").glob("*/metadata/metadata"), key=lambda path: int(path.parts[-3]))
    return found[-1]


def change_metadata(workdir: str, changes: dict[str, Any]) -> None:
    """Changes entries of a workdir's metadata."""
    path = metadata_file(workdir)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _given_names(world: Path) -> Iterator[Case]:
    """Names of classes that a caller gives."""
    kind = "given names of classes"
    there = copies(world, "a.png", "classifier.safetensors")

    def write(names: Any) -> Any:
        def call() -> None:
            from paca_jax.checkpoints import write_state_dict
            from tests.proof.hostile.weights.forms import read

            write_state_dict("new.safetensors", read("classifier.safetensors"), {"name": "pacavit_nano"}, names)

        return call

    for names in ("abcd", "ant", b"abcd", 4, [1, 2], {"ant": 1}):
        yield Case(kind, f"write_state_dict(class_names={names!r})", there, write(names), ("class_names", "names"))
    for name, content in (
        ("three lines", "ant\nbee\ncat\n"),
        ("zero bytes", "ant\0\nbee\ncat\ndog\n"),
        ("Latin-1", "ant\nbee\ncat\nK\xe4fer\n".encode("latin-1")),
        ("nothing", ""),
        ("an empty line", "ant\n\ncat\ndog\n"),
    ):
        make = then(there, writes("names.txt", content))
        run = predict("classifier.safetensors", "a.png", flags=["--class-names=names.txt"])
        yield Case(kind, f"a file with {name}", make, run, ("names.txt", "names"))


def _sidecars(world: Path) -> Iterator[Case]:
    for index, content in enumerate(
        ("", "null", "[]", "7", '"x"', "{}", "{", '{"sha256": 5}', '{"sha256": null}', "\xff\xfe", "[" * 99_999)
    ):
        make = then(copies(world, "a.png", "classifier.pth:w.pth"), writes("w.pth.json", content))
        yield Case("sidecars", short(content, 20), make, _command("pth", index), ("w.pth.json",))


def _hugging_face(world: Path) -> Iterator[Case]:
    weights = copies(world, "a.png")
    for index, content in enumerate(
        (
            "",
            "[]",
            "{",
            '{"id2label": ["ant"]}',
            '{"id2label": {"x": "ant"}}',
            '{"label_names": 4}',
            '{"label_names": "abcd"}',
            '{"image_size": "32"}',
            '{"image_size": [32, 48]}',
            '{"image_size": 1e400}',
            '{"image_size": 1000000000}',
            '{"image_size": -1}',
            '{"pretrained_cfg": {"input_size": []}}',
            '{"pretrained_cfg": [1]}',
            '{"pretrained_cfg": {"mean": 3}}',
        )
    ):
        make = then(weights, lambda: Path("model").mkdir(), _bare(world), writes("model/config.json", content))
        run = predict("model", "a.png") if index % 2 else ["convert", "model", "new.safetensors"]
        yield Case("config.json of Hugging Face", short(content, 45), make, run, ("config.json", "image_size"))
    for content in (
        "{",
        "[]",
        '{"weight_map": 3}',
        '{"weight_map": {"head.weight": "../w.bin"}}',
        '{"weight_map": {"head.weight": 5}}',
        '{"weight_map": {"head.weight": "absent.safetensors"}}',
        '{"weight_map": {}}',
        '{"weight_map": {"head.weight": "/dev/zero"}}',
    ):
        make = writes("model.safetensors.index.json", content)
        run = ["convert", "model.safetensors.index.json", "new.safetensors"]
        yield Case("indices of split weights", short(content, 55), make, run, ("index.json", "absent.safetensors"))


def _bare(world: Path) -> Any:
    """Returns a function that writes the weights of a Hugging Face folder without a recipe."""

    def make() -> None:
        from safetensors.numpy import save_file

        from tests.proof.hostile.weights.forms import read

        save_file(read(world / "classifier.safetensors"), "model/model.safetensors")

    return make


def _cache(world: Path, rng: random.Random) -> Iterator[Case]:
    address = "https://example.org/w.safetensors"
    folder = f"cache/downloads/{hashlib.sha256(address.encode()).hexdigest()[:16]}"
    for content in ("", "\n", "0" * 64, "not a checksum", b"\xff\xfe\x00", rng.randbytes(2000)):
        make = then(
            lambda: Path(folder).mkdir(parents=True),
            copies(world, f"classifier.safetensors:{folder}/w.safetensors"),
            writes(f"{folder}/w.safetensors.sha256", content),
        )
        yield Case(
            "records of the cache", short(content, 20), make, ["convert", address, "new.safetensors"], ("w.safetensors",)
        )
    name = "pacavit_tiny_p2cconv_100_0"
    make = then(writes(f"cache/IMNET_224_{name}.pth", "x"), writes(f"cache/IMNET_224_{name}.pth.sha256", "y"))
    yield Case("records of the cache", "an official model", make, ["convert", name, "new.safetensors"], (name,))
