"""How near two trees of arrays are."""

import jax
import jax.numpy as jnp
import numpy as np


def assert_agree(expected, found, tolerance):
    """Asserts that arrays have the expected shapes, and values within the tolerance times the largest expected one."""
    for a, b in zip(*map(jax.tree.leaves, (expected, found)), strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(np.asarray(b, np.float32), a, rtol=0, atol=tolerance * float(jnp.max(jnp.abs(a))))
