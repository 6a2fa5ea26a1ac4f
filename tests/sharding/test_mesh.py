import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from paca_jax.errors import UserError
from paca_jax.sharding import (
    batch_sharding,
    batch_shards,
    constrain,
    gather_bytes,
    host_rows,
    local_rows,
    logical_axes,
    make_mesh,
    parameter_spec,
)


def test_one_size_takes_the_remaining_devices():
    mesh = make_mesh(data=-1, fsdp=2, model=2, devices=jax.devices())
    assert dict(mesh.shape) == {"data": 2, "fsdp": 2, "model": 2}
    assert batch_shards(mesh) == 4
    assert {kind.name for kind in mesh.axis_types} == {"Auto"}


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((16, 1, 1), "Choose smaller sizes"),
        ((2, 1, 1), "Choose other sizes"),
        ((-1, 3, 1), r"product of 8 \(the devices"),
        ((-1, -1, 1), "for one of them, -1"),
        ((0, 1, 1), "positive"),
    ],
)
def test_sizes_that_do_not_fit_are_rejected(sizes, message):
    with pytest.raises(UserError, match=message):
        make_mesh(*sizes, devices=jax.devices())


def test_an_axis_that_does_not_divide_is_not_split():
    mesh = make_mesh(1, 4, 2, devices=jax.devices())
    path = "stage1/block0/attention/query/kernel"
    assert parameter_spec(path, (96, 96), mesh) == PartitionSpec("fsdp", "model")
    assert parameter_spec(path, (6, 96), mesh) == PartitionSpec(None, "model")


def test_a_parameter_without_a_row_is_an_error():
    with pytest.raises(LookupError, match="got 0"):
        logical_axes("stage1/block0/attention/other/kernel")
    with pytest.raises(LookupError, match="axis name for each axis"):
        parameter_spec("stage1/block0/attention/query/kernel", (96,), make_mesh(devices=jax.devices()))


def test_constraints_take_effect_only_under_a_mesh():
    x = jnp.zeros((8, 4, 6, 2))
    assert constrain(x, "batch", None, "heads", None) is x
    mesh = make_mesh(4, 1, 2, devices=jax.devices())
    with jax.set_mesh(mesh):
        y = jax.jit(lambda x: constrain(x, "batch", None, "heads", None))(x)
        odd = jax.jit(lambda x: constrain(x, "batch", None, "heads", None))(x[:, :, :3])
    assert y.addressable_shards[0].data.shape == (2, 4, 3, 2)
    assert odd.addressable_shards[0].data.shape == (2, 4, 3, 2)


def test_a_batch_is_split_over_data_and_fsdp():
    mesh = make_mesh(2, 2, 2, devices=jax.devices())
    batch = jax.device_put(np.arange(8.0), batch_sharding(mesh))
    assert {tuple(shard.data.tolist()) for shard in batch.addressable_shards} == {(0, 1), (2, 3), (4, 5), (6, 7)}


@pytest.mark.parametrize("sizes", [(8, 1, 1), (2, 2, 2), (1, 1, 8)])
def test_a_process_finds_its_rows_of_a_batch(sizes):
    batch = np.arange(24.0).reshape(8, 3)
    mesh = make_mesh(*sizes, devices=jax.devices())
    array = jax.device_put(batch, batch_sharding(mesh))
    np.testing.assert_array_equal(host_rows(array), batch[local_rows(mesh, 8)])


@pytest.mark.parametrize("part", [b"", b"\x00text\x00"])
def test_bytes_come_back_whole(part):
    assert gather_bytes(part) == [part]
