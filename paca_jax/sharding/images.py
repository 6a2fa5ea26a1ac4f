"""Running a function on each device's own images, for what the compiler cannot split by itself (Pallas kernels)."""

from collections.abc import Callable, Sequence
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


def on_each_device(function: Callable[..., T], *arrays: Any) -> T:
    """Returns `function(*arrays)`, computed on each device, which has these arrays, or trees of them, in full."""
    if jax.sharding.get_abstract_mesh().size <= 1:
        return function(*arrays)
    whole = PartitionSpec()
    return jax.shard_map(function, in_specs=(whole,) * len(arrays), out_specs=whole, check_vma=False)(*arrays)


def target_platform() -> str:
    """Returns the platform that a program is being traced for, such as "tpu": the mesh's, else that of JAX's default device."""
    device = jax.sharding.get_abstract_mesh().abstract_device or jax.config.values["jax_default_device"]
    if device is None:
        return jax.default_backend()
    return device if isinstance(device, str) else device.platform


def model_shards() -> int:
    """Returns the number of parts into which the mesh at hand (`jax.set_mesh`) splits heads and MLP channels."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else mesh.shape["model"]
