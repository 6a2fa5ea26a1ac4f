"""Models whose programs compile in seconds, and how to call an export."""

from typing import Any

import numpy as np

from paca_jax.models import create_model

SMALL = {"embed_dims": (16, 16, 32, 32), "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2), "clusters": (4, 4, 0, 0)}
NAMES = ("a", "b", "ünïcode")


def small(name: str = "pacavit_nano", **options: Any) -> Any:
    """Returns a small model of three classes."""
    return create_model(name, num_classes=len(NAMES), **SMALL | options)


def pixels(*shape: int) -> np.ndarray:
    """Returns random bytes."""
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
