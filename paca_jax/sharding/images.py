"""Running a function on each device's own images, for what the compiler cannot split by itself (Pallas kernels)."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import jax
from jax.sharding import PartitionSpec

from paca_jax.sharding.mesh import BATCH_AXES, batch_shards

T = TypeVar("T")


def by_images(function: Callable[..., T], mapped: Sequence[Any], whole: Sequence[Any]) -> T:
    """Returns `function(*mapped, *whole)`, computed on each device for its own images.

    Without a mesh (`jax.set_mesh`) it simply calls the function.

    Args:
        function: treats images one by one; its results have them on axis 0, as `mapped` has.
        mapped: arrays of images, or trees of them, split along axis 0 as batches are. Images that do not divide over the
            devices are computed whole on each. The first is an array.
        whole: arrays, or trees of them, that every device has in full; their gradients are summed over the devices.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.size <= 1:
        return function(*mapped, *whole)
    images = PartitionSpec(BATCH_AXES) if mapped[0].shape[0] % batch_shards(mesh) == 0 else PartitionSpec()
    specs = (images,) * len(mapped) + (PartitionSpec(),) * len(whole)
    # Unchecked, for the outputs of Pallas kernels do not say over which axes they vary.
    return jax.shard_map(function, in_specs=specs, out_specs=images, check_vma=False)(*mapped, *whole)


def target_platform() -> str:
    """Returns what a program is being traced for, such as "tpu": what the mesh at hand is made of, else JAX's default."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform


def by_platform(kernels: Callable[..., T], operations: Callable[..., T], *arrays: Any, **options: Any) -> T:
    """Returns `kernels(*arrays, **options)` where the program runs on a TPU, else `operations` of the same.

    Both are traced once for each shape. A gradient keeps what both ask for, so it computes the operations anew: they then ask
    for no more than the kernels do.

    Args:
        kernels: a function of a module, which calls Pallas kernels.
        operations: a function of a module, which computes the same.
        arrays: arrays, or trees of them.
        options: hashable values.
    """
    return _by_platform(kernels, operations, tuple(options.items()), *arrays)


@partial(jax.jit, static_argnums=(0, 1, 2), inline=True)
def _by_platform(
    kernels: Callable[..., T], operations: Callable[..., T], options: tuple[tuple[str, Any], ...], *arrays: Any
) -> T:
    on_tpu, elsewhere = (partial(form, **dict(options)) for form in (kernels, operations))
    return jax.lax.platform_dependent(*arrays, tpu=on_tpu, default=jax.checkpoint(elsewhere))


def model_shards() -> int:
    """Returns the number of parts into which the mesh at hand (`jax.set_mesh`) splits heads and MLP channels."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else mesh.shape["model"]
