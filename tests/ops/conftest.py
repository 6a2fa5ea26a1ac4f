import importlib
from collections.abc import Callable, Iterator
from functools import partial

import jax
import pytest

from paca_jax.sharding import images


@pytest.fixture
def kernels_called(monkeypatch) -> Iterator[Callable[[str, str], list[tuple[int, ...]]]]:
    """Makes this process choose as on a TPU, with kernels that are interpreted.

    Called with an operation and the name of its kernels, it returns a list that takes the shape of the first argument of each
    call of these.
    """

    def watch(operation: str, kernels: str) -> list[tuple[int, ...]]:
        module = importlib.import_module(f"paca_jax.ops.{operation}")  # the package's attribute is the function
        interpreted = partial(getattr(module, kernels), interpret=True)
        called = []

        def note(x, *rest, **options):
            called.append(x.shape)
            return interpreted(x, *rest, **options)

        monkeypatch.setattr(module, kernels, note)
        monkeypatch.setattr(module, "target_platform", lambda: "tpu")
        monkeypatch.setattr(jax.lax, "platform_dependent", lambda *arrays, default, tpu=None, **_: (tpu or default)(*arrays))
        return called

    yield watch
    images._by_platform.clear_cache()  # which holds what was traced with the kernels of this test
