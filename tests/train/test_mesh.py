"""Meshes, rematerialization and accumulation change where a step is computed, not what it learns."""

import shutil

import jax
import numpy as np
import pytest

import paca_jax
from paca_jax.planning.collectives import collectives
from paca_jax.planning.hlo import parse
from paca_jax.train.run import prepare
from paca_jax.train.train_loop import train
from tests.runs import scalars, small_config

pytestmark = pytest.mark.xdist_group("train")  # so that one worker makes what they share

STEPS = 8
# The whole augmentation on the device, whose random draws must not depend on the mesh: groups to mix lie over several devices.
# Depth is not random, so that parts of a batch learn what the whole does; it is in the run that resumes on another mesh.
RECIPE = {
    "model__drop_path_rate": 0.0,
    "augment__erase_probability": 0.5,
    "augment__mixup_alpha": 0.8,
    "augment__cutmix_alpha": 1.0,
    "augment__mix_group": 16,
    "label_smoothing": 0.1,
}


def losses(devices, mesh=(1, 1, 1), steps=STEPS, variables=None, **overrides):
    """Returns the losses of the first steps of a run, from random or given variables, and the last state."""
    config = small_config(**RECIPE, num_steps=STEPS, mesh__data=mesh[0], mesh__fsdp=mesh[1], mesh__model=mesh[2], **overrides)
    run = prepare(config, devices)
    found = []
    with jax.set_mesh(run.mesh):
        state = run.fresh_state() if variables is None else run.start_from(variables)
        for batch in run.task.train_batches(0, steps, run.rows):
            state, values = run.train_step(state, run.to_devices(batch))
            found.append(float(values["loss"]))
    return np.array(found), state


@pytest.fixture(scope="module")
def variables(prepare_once):
    """The initial variables of a run on one device."""
    run = prepare_once(small_config(), jax.devices()[:1])
    with jax.set_mesh(run.mesh):
        return jax.device_get(run.fresh_state().variables)


@pytest.fixture(scope="module")
def on_one_device(variables):
    return losses(jax.devices()[:1], variables=variables)[0]


@pytest.mark.parametrize(("mesh", "overrides"), [((2, 2, 2), {}), ((2, 1, 4), {"mesh__split_rows": True, "remat": True})])
def test_eight_devices_learn_what_one_does(mesh, overrides, on_one_device, variables):
    found, state = losses(jax.devices(), mesh, variables=None if mesh == (2, 2, 2) else variables, **overrides)
    np.testing.assert_allclose(found, on_one_device, rtol=1e-5)
    if mesh[1] > 1:
        for tree in (state.params, state.opt_state[1][0].mu):
            kernel = tree["stage3"]["block0"]["mlp"]["fc1"]["kernel"]
            shard = kernel.addressable_shards[0].data
            assert shard.size * mesh[1] * mesh[2] == kernel.size
    large = [leaf for leaf in jax.tree.leaves(state.params) if leaf.size >= 1024]
    split = [leaf.addressable_shards[0].data.size * mesh[1] <= leaf.size for leaf in large]
    assert all(split)


def test_accumulated_parts_learn_what_the_whole_batch_does(on_one_device, variables):
    parts, _ = losses(jax.devices()[:2], (2, 1, 1), steps=4, variables=variables, accumulate_steps=4)
    np.testing.assert_allclose(parts, on_one_device[:4], rtol=1e-5)


def test_a_run_resumes_on_another_mesh(finished_run, tmp_path):
    """From one device to eight at step 6, and back at step 8; what stochastic depth leaves out does not depend on the mesh."""
    workdir = tmp_path / "run"
    shutil.copytree(finished_run, workdir)
    eight = {"mesh__data": 2, "mesh__fsdp": 2, "mesh__model": 2, "mesh__split_rows": True, "remat": True}
    for later, mesh, devices in ((("8", "12"), eight, jax.devices()), (("12",), {}, jax.devices()[:1])):
        for step in later:
            shutil.rmtree(workdir / "checkpoints" / step)
        train(small_config(**mesh), workdir, devices=devices)
        for before, now in zip(scalars(finished_run), scalars(workdir), strict=True):
            assert before.keys() == now.keys()
            assert now["train/loss"] == pytest.approx(before["train/loss"], rel=1e-5)
            assert now.get("eval/accuracy") == before.get("eval/accuracy")
        _, expected = paca_jax.load(finished_run)
        _, found = paca_jax.load(workdir)
        for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)


def test_fsdp_gathers_parameters_rather_than_activations():
    run = prepare(small_config(mesh__data=2, mesh__fsdp=4, batch_size=64))
    with jax.set_mesh(run.mesh):
        program = run.train_step.lower(run.abstract, run.abstract_batch).compile()
    gathered = [found for found in collectives(parse(program.as_text()), 8) if found.kind == "all-gather"]
    parameters = sum(4 * leaf.size for leaf in jax.tree.leaves(run.abstract.params))
    assert 0 < sum(found.total_bytes for found in gathered) <= parameters
