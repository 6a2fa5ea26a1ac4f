"""Eight devices on one CPU, or a GPU if JAX_PLATFORMS names it; compiled programs kept from one test process to the next."""

import gc
import os
import tempfile
import tracemalloc  # noqa: F401  pytest asks for it when an object's end raises, and cannot import it while TFDS is being imported
from collections import Counter
from pathlib import Path

import jaxlib.version
import pytest

from tests.shapes import check_shapes

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
FLAGS = (
    "--xla_force_host_platform_device_count=8",
    # Compiles three times as fast for programs that run half as fast.
    "--xla_backend_optimization_level=0",
    # From 0.11.1 on there is no such flag, and a flag that XLA does not know ends the process.
    *(["--xla_cpu_use_fusion_emitters=false"] if jaxlib.version.__version_info__ < (0, 11, 1) else []),
    # Splitting a program to compile its parts side by side costs more than it gains where other tests run beside.
    "--xla_cpu_parallel_codegen_split_count=1",
)
if os.environ["JAX_PLATFORMS"] == "cpu":
    os.environ["XLA_FLAGS"] = " ".join([*os.environ.get("XLA_FLAGS", "").split(), *FLAGS])
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(tempfile.gettempdir()) / "paca-jax-compiled"))
# Tracing makes and drops so many objects that looking for cycles among them takes a fifth of its time.
gc.set_threshold(100_000, 20, 100)

check_shapes()  # before anything of these rooms is imported


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--campaign", action="store_true", help="the tests that take too long for the suite, instead of the others"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Chooses campaigns or the others; files with the most slow tests begin, so that no worker is left with one at the end."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    chosen, others = [], []
    for item in items:
        is_long = item.get_closest_marker("campaign") is not None
        (chosen if is_long == config.getoption("--campaign") else others).append(item)
    config.hook.pytest_deselected(items=others)
    items[:] = sorted(chosen, key=lambda item: -slow[item.path])


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A browser with one page, for the tests of a module."""
    from tests.explain.browser import Browser

    started = Browser(tmp_path_factory.mktemp("profile"))
    yield started
    started.close()
