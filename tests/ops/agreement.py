"""How near two trees of arrays are, and which kernels a program has."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas import tpu as pltpu

TPU_INTERPRETER = pltpu.InterpretParams(uninitialized_memory="nan")


def assert_agree(expected, found, tolerance):
    """Asserts that arrays have the expected shapes, and values within the tolerance times the largest expected one."""
    for a, b in zip(*map(jax.tree.leaves, (expected, found)), strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(np.asarray(b, np.float32), a, rtol=0, atol=tolerance * float(jnp.max(jnp.abs(a))))


def images_at_kernels(function, *arguments):
    """Returns, for each Pallas kernel of a program, how many images a device gives it, which are the first axis of arrays."""
    return list(_images(jax.make_jaxpr(function)(*arguments).jaxpr, len(arguments[0])))


def _images(jaxpr, images):
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name == "pallas_call":
            yield images
            continue
        for value in jax.tree.leaves(equation.params, is_leaf=lambda part: hasattr(part, "jaxpr") or hasattr(part, "eqns")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _images(inner, inner.invars[0].aval.shape[0] if name == "shard_map" else images)
