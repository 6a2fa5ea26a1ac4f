"""How near two trees of arrays are, which kernels a program has, and how kernels are interpreted."""

import contextlib
import io

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import AbstractDevice, AbstractMesh, use_abstract_mesh

from paca_jax import ops
from paca_jax.planning.topology import compile_only_devices, parse_topology, prepare_environment
from paca_jax.sharding import MESH_AXES, make_mesh

KINDS = {"v4": ("TPU v4", 2), "v5e": ("TPU v5 lite", 1), "v5p": ("TPU v5", 2), "v6e": ("TPU v6 lite", 1), "tpu7x": ("TPU7x", 1)}


def on_a(chip):
    """Returns a context in which programs are traced for one chip, by its name or, if JAX does not know it, its kind."""
    kind, cores = KINDS.get(chip, (chip, 1))
    device = AbstractDevice(device_kind=kind, num_cores=cores, platform="tpu")
    return use_abstract_mesh(AbstractMesh((1, 1, 1), MESH_AXES, abstract_device=device))


@contextlib.contextmanager
def interpreted_on_a_tpu(cores=1):
    """A context that interprets kernels as a TPU of so many cores runs them; programs must end within it.

    Memory that nothing has written is NaN, and a race of two cores, or of a core and a copy, fails.
    """
    printed = io.StringIO()
    interpreter = pltpu.InterpretParams(uninitialized_memory="nan", detect_races=True, num_cores_or_threads=cores)
    with contextlib.redirect_stdout(printed), ops.interpret_kernels(interpreter):
        yield
    assert "RACE DETECTED" not in printed.getvalue(), printed.getvalue()


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


def gradient_on_a_tpu(loss, *shapes):
    """Returns the program of a loss and its gradient by every argument, compiled for one TPU. Needs a process of its own."""
    prepare_environment()
    mesh = make_mesh(devices=compile_only_devices(parse_topology("v5e:1x1")))
    place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    placed = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes)
    with jax.set_mesh(mesh):
        return jax.jit(jax.value_and_grad(loss, tuple(range(len(shapes))))).lower(*placed).compile().as_text()
