import jax
import numpy as np
import pytest

from paca_jax.train.setup import prepare
from tests.runs import small_config

STEPS = 20


def losses(mesh, devices):
    config = small_config(num_steps=STEPS, mesh__data=mesh[0], mesh__fsdp=mesh[1], mesh__model=mesh[2])
    run = prepare(config, devices)
    found = []
    with jax.set_mesh(run.mesh):
        state = run.fresh_state()
        for batch in run.task.train_batches(0, STEPS, run.rows):
            state, scalars = run.train_step(state, run.to_devices(batch))
            found.append(float(scalars["loss"]))
    return np.array(found), state


@pytest.fixture(scope="module")
def on_one_device():
    return losses((1, 1, 1), jax.devices()[:1])[0]


@pytest.mark.parametrize("mesh", [(8, 1, 1), (2, 2, 2), (1, 4, 2)])
def test_eight_devices_learn_what_one_does(mesh, on_one_device):
    found, state = losses(mesh, jax.devices())
    np.testing.assert_allclose(found, on_one_device, rtol=1e-5)
    if mesh[1] > 1:
        for tree in (state.params, state.opt_state[1][0].mu):
            kernel = tree["stage3"]["block0"]["mlp"]["fc1"]["kernel"]
            shard = kernel.addressable_shards[0].data
            assert shard.size * mesh[1] * mesh[2] == kernel.size
    large = [leaf for leaf in jax.tree.leaves(state.params) if leaf.size >= 1024]
    split = [leaf.addressable_shards[0].data.size * mesh[1] <= leaf.size for leaf in large]
    assert all(split)
