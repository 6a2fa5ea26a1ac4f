import functools
from types import SimpleNamespace

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest

from paca_jax.models import TeacherConfig, create_model
from paca_jax.tasks.classification.loss import cross_entropy
from paca_jax.train.config import default_config
from paca_jax.train.state import state_of
from paca_jax.train.train_step import make_train_step, stream
from tests import golden

pytestmark = pytest.mark.xdist_group("step")  # so that one worker makes what they share

SIZES = {"embed_dims": (8, 8, 16, 16), "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2), "clusters": (4, 4, 0, 0)}


class Linear(nn.Module):
    """A classifier of the mean color, for what does not depend on the model."""

    @nn.compact
    def __call__(self, images, train=False):
        return nn.Dense(5, name="head")(images.mean((1, 2)))


@pytest.fixture(scope="module")
def classifier():
    model = create_model("pacavit_nano", num_classes=5, **SIZES)
    return model, golden.random_variables(model)


@pytest.fixture(scope="module")
def linear():
    model = Linear()
    return model, model.init(jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))


def batch_of(size, masked=()):
    rng = np.random.default_rng(0)
    mask = np.ones(size, np.float32)
    mask[list(masked)] = 0
    return {
        "image": rng.normal(size=(size, 32, 32, 3)).astype(np.float32),
        "target": np.eye(5)[rng.integers(0, 5, size)],
        "valid": mask,
    }


def config_of(**options):
    config = default_config()
    config.update(options)
    return config


@functools.cache
def step_of(model, **options):
    task = SimpleNamespace(augment=lambda b, rng: b, loss=lambda v, b, rng: cross_entropy(model, v, b, rng))
    return jax.jit(make_train_step(task, optax.sgd(1.0), lambda _: 1.0, config_of(**options)))


def one_step(classifier, batch, **options):
    model, variables = classifier
    return step_of(model, **options)(state_of(variables, optax.sgd(1.0), averaged="ema_decay" in options), batch)


def test_an_accumulated_gradient_is_that_of_the_whole_batch(classifier):
    batch = batch_of(12, masked=[1, 2, 9])
    whole, scalars = one_step(classifier, batch)
    parts, same_scalars = one_step(classifier, batch, accumulate_steps=3)
    for a, b in zip(jax.tree.leaves(whole.params), jax.tree.leaves(parts.params), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)
    for name, value in scalars.items():
        np.testing.assert_allclose(value, same_scalars[name], rtol=1e-5)


def test_masked_examples_do_not_count(classifier):
    whole = batch_of(12)
    cut = {name: value[:8] for name, value in whole.items()}
    masked = whole | {"valid": np.array([1.0] * 8 + [0.0] * 4, np.float32)}
    a, b = one_step(classifier, cut), one_step(classifier, masked)
    np.testing.assert_allclose(a[1]["loss"], b[1]["loss"], rtol=1e-6)
    np.testing.assert_allclose(a[1]["grad_norm"], b[1]["grad_norm"], rtol=1e-5)
    assert (int(a[0].skipped), int(b[0].skipped)) == (0, 4)


def test_the_average_moves_by_its_decay(linear):
    state, _ = one_step(linear, batch_of(12), ema_decay=0.75)
    before = linear[1]["params"]["head"]["kernel"]
    expected = 0.75 * before + 0.25 * state.params["head"]["kernel"]
    np.testing.assert_allclose(state.ema["params"]["head"]["kernel"], expected, rtol=1e-5, atol=1e-7)
    assert state.eval_variables["params"] is state.ema["params"]


def test_running_statistics_follow_every_part_of_a_batch():
    teacher = TeacherConfig(depths=(1, 1, 1, 1), kernel_size=3)
    model = create_model("pacavit_nano", num_classes=5, teacher=teacher, **SIZES | {"clusters": (4, 4, 4, 4)})
    variables = golden.random_variables(model)
    state, _ = one_step((model, variables), batch_of(8), accumulate_steps=2)
    before, after = (stats["teacher"]["stage1_block0"]["norm1"] for stats in (variables["batch_stats"], state.batch_stats))
    assert int(after["count"]) == int(before["count"]) + 2
    assert not np.allclose(after["mean"], before["mean"])


def test_streams_differ_by_name_and_seed():
    keys = [jax.random.key_data(stream(seed, name)).tolist() for seed in (0, 1) for name in ("init", "dropout")]
    assert len({tuple(key) for key in keys}) == 4


@pytest.mark.parametrize("poison", [np.inf, np.nan])
def test_a_step_that_is_not_finite_changes_only_its_count(linear, poison):
    batch = batch_of(12)
    bad = batch | {"image": batch["image"].copy()}
    bad["image"][1, 3, 3, 0] = poison
    state, scalars = one_step(linear, bad, ema_decay=0.75)
    assert (int(state.step), int(state.nonfinite), int(scalars["nonfinite"])) == (1, 1, 1)
    assert not np.isfinite(scalars["grad_norm"])
    same = jax.tree.map(np.array_equal, (state.params, state.ema["params"]), (linear[1]["params"],) * 2)
    assert jax.tree.all(same)
    good, _ = one_step(linear, batch)
    assert int(good.nonfinite) == 0


@pytest.mark.parametrize("rate", [3e38, np.nan])
@pytest.mark.parametrize("action", ["stop", "skip"])
def test_a_finite_gradient_whose_update_is_not_counts_and_is_skipped(linear, rate, action):
    model, variables = linear
    task = SimpleNamespace(augment=lambda b, rng: b, loss=lambda v, b, rng: cross_entropy(model, v, b, rng))
    optimizer = optax.chain(optax.scale_by_sign(), optax.scale(rate), optax.scale(2.0))
    step = jax.jit(make_train_step(task, optimizer, lambda _: rate, config_of(on_nonfinite=action)))
    state, scalars = step(state_of(variables, optimizer, averaged=False), batch_of(12))
    assert np.isfinite(scalars["loss"])
    assert np.isfinite(scalars["grad_norm"])
    assert (int(state.step), int(state.nonfinite), int(scalars["nonfinite"])) == (1, 1, 1)
    if action == "skip":
        assert jax.tree.all(jax.tree.map(np.array_equal, state.params, variables["params"]))


def test_only_the_head_of_a_frozen_backbone_learns(classifier):
    frozen, scalars = one_step(classifier, batch_of(12), freeze_backbone=True)
    free, free_scalars = one_step(classifier, batch_of(12))
    before = classifier[1]["params"]
    for name, part in frozen.params.items():
        same = jax.tree.all(jax.tree.map(np.array_equal, part, before[name]))
        assert same == (name != "head")
    np.testing.assert_allclose(frozen.params["head"]["kernel"], free.params["head"]["kernel"], rtol=1e-5, atol=1e-7)
    assert scalars["grad_norm"] < free_scalars["grad_norm"]


def test_a_batch_is_augmented_whole_before_it_is_split(linear):
    model, variables = linear
    seen = []

    def augment(batch, rng):
        seen.append(batch["image"].shape[0])
        return batch | {"image": batch["image"][::-1], "target": batch["target"][::-1]}

    task = SimpleNamespace(augment=augment, loss=lambda v, b, rng: cross_entropy(model, v, b, rng))
    step = jax.jit(make_train_step(task, optax.sgd(1.0), lambda _: 1.0, config_of(accumulate_steps=2)))
    _, scalars = step(state_of(variables, optax.sgd(1.0), averaged=False), batch_of(12))
    assert seen == [12]
    np.testing.assert_allclose(scalars["loss"], one_step(linear, batch_of(12))[1]["loss"], rtol=1e-5)
