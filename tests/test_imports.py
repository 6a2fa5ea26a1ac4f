"""The house: imports run downwards only, and `import paca_jax` is light."""

import ast

import pytest

from tests.runs import ROOT, run_code

# Lower rooms first. A room may import those before it; rooms of one line may not import each other.
FLOORS = [
    ["cache", "errors", "memory", "version"],
    ["sharding"],
    ["ops"],
    ["models"],
    ["convert", "explain", "export"],
    ["loading"],
    ["data"],
    ["tasks"],
    ["train"],
    ["planning"],
    ["__init__", "convert.__main__", "data.prepare", "data.convert_records", "plan", "predict"],
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
FILES = sorted((ROOT / "paca_jax").rglob("*.py"))


def room_of(module):
    """Returns the room of a dotted module name below paca_jax: itself where it is listed, else its first part."""
    return module if module in FLOOR else module.split(".")[0]


def imports(path):
    names = sorted(p.stem for p in (ROOT / "paca_jax").iterdir() if p.suffix == ".py" or (p / "__init__.py").exists())
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            if node.module == "paca_jax":
                yield from (f"paca_jax.{alias.name}" for alias in node.names if alias.name in names)
            else:
                yield node.module


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows_run_downwards(path):
    module = ".".join(path.relative_to(ROOT / "paca_jax").with_suffix("").parts).removesuffix(".__init__")
    room = room_of(module)
    assert room in FLOOR, f"{module} is in no room of FLOORS"
    for name in imports(path):
        if name.startswith(("configs", "tests", "main")):
            pytest.fail(f"{module} imports {name}, above it")
        if name.startswith("paca_jax."):
            other = room_of(name.removeprefix("paca_jax."))
            inside = other == room and "." in module
            assert inside or room == other or FLOOR[other] < FLOOR[room], f"{module} imports {name}"


def test_importing_the_library_loads_nothing_heavy():
    modules = "paca_jax, paca_jax.convert.__main__, paca_jax.data, paca_jax.explain, paca_jax.loading"
    heavy = ("tensorflow", "clu", "torch", "orbax", "matplotlib", "skimage")
    code = f"import sys, {modules}; print([name for name in {heavy} if name in sys.modules])"
    assert run_code(code).strip() == "[]"
