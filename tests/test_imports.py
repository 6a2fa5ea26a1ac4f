"""The house: imports run downwards only, no room is crowded, and `import paca_jax` is light."""

import ast
import importlib
import itertools
import pkgutil
import re
import sys
import tomllib
from importlib.metadata import packages_distributions

import pytest

import paca_jax
from tests.runs import ROOT, run_code

# Lower rooms first. A room may import those before it; rooms of one line may not import each other. The longest name counts.
FLOORS = [
    ["cache", "errors", "memory", "version"],
    ["command_line", "fields", "paths"],
    ["files"],
    ["sharding"],
    ["ops.implementation", "ops.gpu"],
    ["ops.nn", "ops.detection", "ops.augmentation"],
    ["ops.norm.reference"],
    ["ops.pallas"],
    ["ops.norm", "ops.depthwise", "ops.cast"],
    ["ops.residual"],
    ["ops.attention", "ops.clustering", "ops.mlp"],
    ["ops"],
    ["models"],
    ["convert"],
    ["data.class_names"],
    ["data.codecs"],
    ["data.sources"],
    ["data.transforms"],
    ["data.loader"],
    ["data"],
    ["data.scenes", "explain", "export"],
    ["checkpoints"],
    ["tasks"],
    ["train", "serve"],
    ["planning"],
    ["cli"],
    [
        *("__init__", "__main__", "convert.__main__", "export.__main__", "data.prepare", "data.convert_records", "explore"),
        *("plan", "predict"),
    ],
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
FILES = sorted((ROOT / "paca_jax").rglob("*.py"))
FOLDERS = sorted({path.parent for path in FILES})


def room_of(module):
    """Returns the room of a dotted module name below paca_jax: its longest part, from the front, that is listed."""
    parts = module.split(".")
    names = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
    return next((name for name in names if name in FLOOR), None)


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            for alias in node.names:
                module = f"{node.module}.{alias.name}"
                place = ROOT / module.replace(".", "/")
                yield module if place.is_dir() or place.with_suffix(".py").exists() else node.module


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows_run_downwards(path):
    module = ".".join(path.relative_to(ROOT / "paca_jax").with_suffix("").parts).removesuffix(".__init__")
    room = room_of(module)
    assert room is not None, f"{module} is in no room of FLOORS"
    for name in imports(path):
        if name.startswith(("configs", "tests", "main")):
            pytest.fail(f"{module} imports {name}, above it")
        if name.startswith("paca_jax."):
            other = room_of(name.removeprefix("paca_jax."))
            assert room == other or FLOOR[other] < FLOOR[room], f"{module} imports {name}"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_room_is_crowded(folder):
    files = [path.name for path in folder.glob("*.py")]
    assert len(files) <= 12, files


def test_no_module_is_hidden_by_a_name_of_its_package():
    hidden = []
    for module in pkgutil.walk_packages(paca_jax.__path__, "paca_jax."):
        package, _, name = module.name.rpartition(".")
        if name == "__main__" or package == "paca_jax.data.scenes":  # which imports TensorFlow
            continue
        importlib.import_module(module.name)
        if getattr(importlib.import_module(package), name) is not importlib.import_module(module.name):
            hidden.append(module.name)
    assert not hidden


def test_importing_the_library_loads_nothing_heavy():
    commands = ("cli.pictures.predict", "cli.pictures.explore", "cli.pictures.serve", "cli.convert", "cli.export")
    rooms = ("checkpoints", "data", "explain", "export")
    modules = ", ".join(["paca_jax", *(f"paca_jax.{room}" for room in (*commands, *rooms))])
    of_training = ("tensorflow", "clu", "grain", "pycocotools", "ml_collections", "optax")
    heavy = (
        *of_training,
        "torch",
        "orbax",
        "tensorstore",
        "pooch",
        "huggingface_hub",
        "jax2onnx",
        "onnx",
        "onnxruntime",
        "starlette",
        "uvicorn",
        "jax.experimental.pallas",
        "matplotlib",
        "skimage",
    )
    code = f"import sys, {modules}; print([name for name in {heavy} if name in sys.modules])"
    assert run_code(code).strip() == "[]"


def test_every_package_that_is_imported_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *itertools.chain.from_iterable(project["optional-dependencies"].values())]
    declared = {_normalized(re.match(r"[\w.-]+", line)[0]) for line in lines}
    distributions = packages_distributions()
    names = {name.partition(".")[0] for path in FILES for name in imports(path)} - {"paca_jax", *sys.stdlib_module_names}
    assert [name for name in names if not declared & set(map(_normalized, distributions.get(name, [name])))] == []


def _normalized(distribution):
    return re.sub(r"[-_.]+", "-", distribution).lower()
