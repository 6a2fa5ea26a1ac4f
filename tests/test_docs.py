"""The documentation names what exists, and the code keeps to the glossary of docs/architecture.md."""

import ast
import importlib
import importlib.util
import inspect
import json
import re
import tomllib
from collections import defaultdict
from functools import cache

import pytest

import paca_jax
from paca_jax.cli.main import COMMANDS
from paca_jax.train.config import default_config
from tests.runs import ROOT
from tests.test_imports import FLOORS

ARCHITECTURE = ROOT / "docs" / "architecture.md"
DOCUMENTS = sorted(
    [
        *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "benchmarks/RESULTS.md")),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "datasets").glob("*/README.md"),
    ]
)
# History names what was; the others say what is.
PRESENT = [path for path in DOCUMENTS if path.name != "CHANGELOG.md"]
SOURCES = sorted((ROOT / "paca_jax").rglob("*.py"))
PROSE = sorted(
    [
        *DOCUMENTS,
        *(ROOT / "notebooks").glob("*.ipynb"),
        ROOT / "Makefile",
        ROOT / "mkdocs.yml",
        ROOT / "main.py",
        *SOURCES,
        *(path for folder in ("benchmarks", "configs", "scripts") for path in (ROOT / folder).glob("*.[ps][yh]")),
        *(path for path in (ROOT / "tests").rglob("*.py") if path.name != "test_docs.py"),  # which lists the words themselves
    ]
)
# The packages of which every name is on a page of docs/api/.
PUBLIC = ("checkpoints", "convert", "data", "explain", "export", "models", "ops")
# Words that the prose does not use, and what it says instead.
STUMBLES = {
    r"anew": "again, or recompute",
    r"(?:cycles|FLOPs?|images|MiB|memory|time) an? (?:cycle|image|patch|second)": "per",
    r"lacking": "missing",
    r"learnt": "learned",
    r"spelt": "spelled",
    r"whilst": "while",
    r"licence": "license",
    r"\w*colour\w*": "color",
    r"neighbour\w*": "neighbor",
    r"behaviour\w*": "behavior",
    r"grey": "gray",
    r"(?:normal|optim|initial|general|special|serial|regular|summar)is(?:e|ed|es|ing|ation|er)": "-ize",
    r"centre[ds]?": "center",
}


def named(path):
    return str(path.relative_to(ROOT))


def found(pattern, paths=PRESENT):
    """Returns the matches of a pattern in documents, each with the document's name."""
    return sorted({(named(path), match) for path in paths for match in re.findall(pattern, path.read_text(), re.MULTILINE)})


def python_blocks(path):
    return re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)


def slug(heading):
    return re.sub(r"[^\w -]", "", heading.strip().lower()).replace(" ", "-")


def resolve(dotted):
    """Imports and returns what a dotted name says."""
    parts = dotted.split(".")
    for count in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            value = getattr(value, part)
        return value
    raise ModuleNotFoundError(dotted)


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_links_resolve(path):
    for link in re.findall(r"""(?:\]\(|src=")([^)\s"]+)""", path.read_text()):
        if link.startswith(("http://", "https://")):
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), link
        if anchor:
            assert anchor in [slug(line) for line in re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)], link


def test_every_page_is_linked_from_the_readme():
    readme = (ROOT / "README.md").read_text()
    assert not [path.name for path in (ROOT / "docs").glob("*.md") if f"docs/{path.name}" not in readme]


def test_paths_exist():
    files = found(r"(?<![\w/.-])(?:paca_jax|configs|benchmarks|scripts|tests|docs|notebooks|datasets)/[\w/.-]*\w(?!\w*[*{])")
    files = [(path, file) for path, file in files if not file.startswith("benchmarks/results/")]
    assert files
    assert not [(path, file) for path, file in files if not (ROOT / file).exists()]


def test_modules_to_run_exist():
    modules = found(r"python -m ([\w.]+)")
    assert modules
    for path, module in modules:
        spec = importlib.util.find_spec(module)
        assert spec is not None, f"{path}: {module}"
        if spec.submodule_search_locations is not None:
            assert importlib.util.find_spec(f"{module}.__main__"), f"{path}: {module}"


def test_public_names_resolve():
    names = found(r"(?<![\w/.])paca_jax(?:\.[A-Za-z]\w*)+")
    assert names
    for path, name in names:
        try:
            resolve(name)
        except (AttributeError, ModuleNotFoundError) as error:
            pytest.fail(f"{path} names {name}: {error}")


def test_console_commands_exist():
    commands = found(r"(?:^    |`)paca ([a-z]\w*)")
    assert commands
    assert not [(path, command) for path, command in commands if command not in COMMANDS]
    entry = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["paca"]
    assert callable(resolve(entry.replace(":", ".")))


def test_make_targets_exist():
    targets = re.findall(r"^([\w -]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    known = {name for line in targets for name in line.split()}
    assert not [(path, target) for path, target in found(r"(?:^    |`)make ([\w-]+)") if target not in known]


def test_extras_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert not [(path, extra) for path, extra in found(r"""-e "?\.\[(\w+)\]""") if extra not in extras]


def test_config_keys_exist():
    keys = found(r"--config\.([a-z][\w.]*)=")
    keys += found(r"`((?!model\.safetensors)(?:augment|checkpoint|dataset|mesh|model|test)[._]\w+)`")
    config = default_config()
    assert keys
    for path, key in keys:
        place = config
        for part in key.split("."):
            assert part in place, f"{path}: --config.{key}"
            place = place[part]


def test_config_variants_exist():
    variants = found(r"(configs/\w+\.py):([a-z0-9_]+(?:,[a-z]\w*)?)\b", [*PRESENT, *(ROOT / "configs").glob("*.py")])
    assert variants
    for _, (file, variant) in variants:
        importlib.import_module(file.removesuffix(".py").replace("/", ".")).get_config(variant)


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if python_blocks(path)], ids=named)
def test_python_examples_parse_and_name_what_exists(path):
    for block in python_blocks(path):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and (name := ast.unparse(node)).startswith("paca_jax."):
                assert resolve(name) is not None, name


def test_public_names_are_documented():
    text = "\n".join(path.read_text() for path in DOCUMENTS)
    assert not [name for name in paca_jax.__all__ if not name.startswith("_") and name not in text]


@pytest.mark.parametrize("package", ["", *(f".{name}" for name in PUBLIC)])
def test_every_public_name_is_on_an_api_page(package):
    text = "\n".join(path.read_text() for path in (ROOT / "docs" / "api").glob("*.md"))
    documented = {name.split(".")[-1]: resolve(name) for name in re.findall(r"^::: (\S+)$", text, re.MULTILINE)}
    module = importlib.import_module(f"paca_jax{package}")
    for name in module.__all__:
        value = getattr(module, name)
        if name in documented:
            assert documented[name] is value, name
            own = (vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__) or ""
            assert own.partition(f"{name}(")[0], f"{name} has no docstring"  # a dataclass makes one up
        else:  # constants and modules, which a page describes
            constant = not (inspect.isclass(value) or inspect.isroutine(value))
            assert constant, name
            assert f"`{name}`" in text or f"`paca_jax{package}.{name}`" in text, name


def test_the_ladder_is_the_tested_one():
    section = ARCHITECTURE.read_text().split("## What may import what")[1].split("\n## ")[0]
    floors = [re.findall(r"`([\w.]+)`", line) for line in section.splitlines() if line.startswith("| ")]
    there = [sorted(room for room in rooms if exists(room)) for rooms in FLOORS]
    assert [sorted(rooms) for rooms in floors if rooms][::-1] == [rooms for rooms in there if rooms]


def exists(room):
    place = ROOT / "paca_jax" / room.replace(".", "/")
    return place.is_dir() or place.with_suffix(".py").exists()


def glossary():
    """Yields each row of the glossary: the word, names in the code, and words that no identifier contains."""
    for line in ARCHITECTURE.read_text().split("## One word, one thing")[1].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4 and "`" in cells[2]:
            yield cells[0], re.findall(r"`(\w+)`", cells[2]), re.findall(r"\w+", cells[3])


@cache
def identifiers():
    """Returns where each identifier of the package is, module names among them."""
    places = defaultdict(set)
    for path in SOURCES:
        places[path.stem].add(named(path))
        for node in ast.walk(ast.parse(path.read_text())):
            name = getattr(node, "id", None) or getattr(node, "attr", None) or getattr(node, "arg", None)
            for identifier in (name, getattr(node, "name", None), getattr(node, "asname", None)):
                if isinstance(identifier, str):
                    places[identifier].add(named(path))
    return places


@cache
def keys():
    """Returns the strings of the package, which may be keys of a batch."""
    nodes = (node for path in SOURCES for node in ast.walk(ast.parse(path.read_text())))
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


@pytest.mark.parametrize(
    ("word", "used", "avoided"), list(glossary()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_the_code_keeps_the_glossary(word, used, avoided):
    assert not [name for name in used if name not in identifiers() and name not in keys()]
    broken = {
        identifier: sorted(places)
        for identifier, places in identifiers().items()
        if set(avoided) & set(re.findall(r"[a-z]+", identifier.lower()))
    }
    assert not broken


def test_operations_define_each_type_and_limit_once():
    places = defaultdict(list)
    for path in (ROOT / "paca_jax" / "ops").rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            names = [node.name] if isinstance(node, ast.ClassDef) else [getattr(target, "id", "") for target in targets]
            for name in names:
                if not name.startswith("_") and (isinstance(node, ast.ClassDef) or name.isupper()):
                    places[name].append(named(path))
    assert not {name: paths for name, paths in places.items() if len(paths) > 1}


def test_prose_does_not_stumble():
    stumbles = defaultdict(dict)
    for path in PROSE:
        text = path.read_text()
        if path.suffix == ".ipynb":
            text = "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
        for word, instead in STUMBLES.items():
            if matches := re.findall(rf"\b{word}\b", text, re.IGNORECASE):
                stumbles[named(path)] |= dict.fromkeys(map(str, matches), instead)
    assert not stumbles
