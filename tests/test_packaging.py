"""What the wheel and the source archive hold."""

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import PurePosixPath

import pytest

from tests.runs import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("packaging")]  # so that one worker builds


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The paths of both archives."""
    out = tmp_path_factory.mktemp("built")
    line = [sys.executable, "-m", "build", "--no-isolation", "--sdist", "--wheel", "--outdir", out, ROOT]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.glob("*.whl")), next(out.glob("*.tar.gz"))


def test_the_wheel_holds_the_package_its_configs_and_the_demos_data_and_nothing_beside(built):
    names = zipfile.ZipFile(built[0]).namelist()
    assert {PurePosixPath(name).parts[0] for name in names if ".dist-info/" not in name} == {"paca_jax"}
    configs = {path.name for path in (ROOT / "configs").glob("*.py")}
    assert {name.removeprefix("paca_jax/configs/") for name in names if name.startswith("paca_jax/configs/")} == configs
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "paca_jax").rglob("*.py")}
    assert modules <= set(names)
    pages = {
        str(path.relative_to(ROOT)) for folder in ("explain/page", "serve") for path in (ROOT / "paca_jax" / folder).iterdir()
    }
    assert {name for name in pages if name.endswith((".html", ".css", ".js"))} <= set(names)
    assert {"paca_jax/py.typed", "paca_jax/data/class_names/LICENSE.wordnet"} <= set(names)
    assert any(name.startswith("paca_jax/datasets/fashion_mnist_small/") for name in names)


def test_the_page_of_an_index_has_no_links_into_the_repository(built):
    with zipfile.ZipFile(built[0]) as archive:
        metadata = archive.read(next(name for name in archive.namelist() if name.endswith("/METADATA"))).decode()
    links = re.findall(r"\]\(([^)]*)\)", metadata)
    assert links
    assert not [link for link in links if not link.startswith("https://")]


def test_the_source_archive_can_be_tested(built):
    with tarfile.open(built[1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = ["main.py", "configs", "datasets", "docs", "tests/golden", "requirements.txt", "Makefile"]
    assert not [name for name in wanted if not any(found == name or found.startswith(f"{name}/") for found in names)]
