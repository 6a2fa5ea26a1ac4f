"""Tests of this folder run on a GPU: `JAX_PLATFORMS=cuda,cpu pytest -m gpu`."""

import jax
import pytest


@pytest.fixture(autouse=True)
def _on_a_gpu():
    if jax.default_backend() != "gpu":
        pytest.skip(f"JAX's default device is a {jax.default_backend()}, not a GPU")
