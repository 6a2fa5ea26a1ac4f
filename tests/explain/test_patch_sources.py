"""Composed maps of attention weights and assignments, against the explicit product over all patches."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paca_jax import explain
from paca_jax.errors import UserError
from paca_jax.models import TeacherConfig, create_model
from tests import golden

SMALL = {"embed_dims": (8, 8, 16, 16), "num_heads": (2, 1, 2, 1), "depths": (3, 1, 1, 1), "clusters": (6, 0, 4, 0)}
PATCHES = [(0, 0), (4, 7), (5, 2), (0, 0)]
KINDS = {
    "classifier": ("pacavit_nano", {"clustering_periods": (2, 0, 0, 0)}),
    "teacher": ("pacavit_nano", {"teacher": TeacherConfig(depths=(1, 1, 1, 1), kernel_size=3)}),
    "segmentor": ("pacahead_nano", {"num_classes": 7, "head_channels": 16}),
    "detector": ("mask_rcnn_nano", {"num_classes": 3, "head_channels": 8, "box_channels": 8}),
}
# Every block of a classifier; of the others those that differ from one.
BLOCKS = {
    "classifier": ["stage1/block0", "stage1/block1", "stage1/block2", "stage3/block0"],
    "teacher": ["stage1/block2", "stage3/block0"],
    "segmentor": ["stage1/block2", "head"],
    "detector": ["stage1/block2"],
}


@functools.cache
def made(kind):
    name, overrides = KINDS[kind]
    model = create_model(name, **SMALL, **overrides)
    return model, golden.random_variables(model), jax.random.normal(jax.random.key(1), (2, 24, 32, 3))


@functools.cache
def explicit(kind):
    """Returns each block's explicit (N, N) product for each image, in float64."""
    model, variables, images = made(kind)
    weights, clusters = jax.jit(lambda v, x: (model.apply(v, x, method="attention"), model.apply(v, x, method="clusters")))(
        variables, images
    )
    owners = {
        "stage1/block0": "stage1/block0",
        "stage1/block1": "stage1/block0",
        "head": "head",
        "stage3/block0": "stage3/block0",
    }
    owners["stage1/block2"] = "stage1/block2" if kind == "classifier" else "stage1/block0"
    products = {}
    for block, each in weights.items():
        rows = np.asarray(each, np.float64).mean(1).reshape(2, -1, each.shape[-1])
        assignment = np.asarray(clusters[owners[block]], np.float64)
        products[block] = rows @ assignment.reshape(*assignment.shape[:2], -1)
    return products


def rows(product, patches, shape):
    chosen = [row * shape[1] + column for row, column in patches]
    return product[:, chosen].reshape(2, len(patches), *shape)


@pytest.mark.parametrize("kind", KINDS)
def test_composed_maps_are_the_rows_of_the_explicit_product(kind):
    assert explicit(kind).keys() == {*BLOCKS["classifier"], *BLOCKS[kind]}
    for block in BLOCKS[kind]:
        shape, patches = ((2, 2), [(1, 0)]) if block.startswith("stage3") else ((6, 8), PATCHES)
        found = explain.patch_sources(*made(kind), patches, block)
        np.testing.assert_allclose(found, rows(explicit(kind)[block], patches, shape), atol=1e-5)
        np.testing.assert_allclose(found.sum((-1, -2)), 1, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_rollouts_follow_shortcut_and_attention_back_to_the_stage(kind):
    product, expected = explicit(kind), np.eye(48)
    for index in range(3):
        block = f"stage1/block{index}"
        expected = (np.eye(48) + product[block]) / 2 @ expected
        if block not in BLOCKS[kind]:
            continue
        found = explain.patch_sources(*made(kind), PATCHES, block, rollout=True)
        np.testing.assert_allclose(found, rows(expected, PATCHES, (6, 8)), atol=1e-5)
        np.testing.assert_allclose(found.sum((-1, -2)), 1, atol=1e-5)


def test_no_array_is_quadratic_in_the_patches():
    weights, assignment = jnp.zeros((1, 2, 6, 8, 5)), jnp.zeros((1, 5, 6, 8))
    for program in (
        jax.make_jaxpr(lambda w, a: explain.compose_maps(w, a, PATCHES))(weights, assignment),
        jax.make_jaxpr(lambda w, a: explain.roll_out_maps([w, w], [a, a], PATCHES))(weights, assignment),
    ):
        assert re.search(r"\b4,48\b", str(program))
        assert not re.search(r"\b48,48\b", str(program))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([(6, 0)], "stage1/block0"), r"inside the map of 6 rows and 8 columns, got \(6, 0\)"),
        (([(0, -1)], "stage1/block0"), r"got \(0, -1\)"),
        (([(0.5, 1)], "stage1/block0"), r"patches to be whole numbers of shape \(P, 2\), got float64"),
        (((1, 2), "stage1/block0"), r"patches to be whole numbers of shape \(P, 2\), got int64 of shape \(2,\)"),
        (([], "stage1/block0"), r"patches to be whole numbers of shape \(P, 2\)"),
        ((PATCHES, "stage1/block7"), r"a block with clusters, got 'stage1/block7'; the nearest are stage1/block2"),
        ((PATCHES, "stage4/block0"), "weights of plain attention"),
        ((PATCHES, 3), "block to be a string, got 3"),
        ((PATCHES, "stage1/block0", 1), "rollout to be True or False, got 1"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        explain.patch_sources(*made("classifier"), *arguments)


def test_what_cannot_be_followed_is_refused():
    model, variables, images = made("segmentor")
    with pytest.raises(UserError, match="a block of a stage to roll out, got 'head'"):
        explain.patch_sources(model, variables, images, PATCHES, "head", rollout=True)
    with pytest.raises(UserError, match="Expected a model, got NoneType"):
        explain.patch_sources(None, variables, images, PATCHES, "head")
    with pytest.raises(UserError, match="The weights do not fit the model"):
        explain.patch_sources(model, {"params": {}}, images, PATCHES, "head")
    plain = create_model("pacavit_nano", clusters=(0, 0, 0, 0))
    with pytest.raises(UserError, match="the model has none"):
        explain.patch_sources(plain, golden.random_variables(plain), images, PATCHES, "stage1/block0")


def test_arrays_that_do_not_agree_are_refused():
    weights, assignment = jnp.zeros((1, 2, 6, 8, 5)), jnp.zeros((1, 5, 6, 8))
    with pytest.raises(UserError, match=r"assignment to be real numbers of shape \(1, 5, 6, 8\), got float32 of shape \(1, 4"):
        explain.compose_maps(weights, assignment[:, :4], PATCHES)
    with pytest.raises(UserError, match=r"shape \(B, heads, H, W, M\)"):
        explain.compose_maps(weights[0], assignment, PATCHES)
    with pytest.raises(UserError, match="an assignment for each of 2 blocks, got 1"):
        explain.roll_out_maps([weights, weights], [assignment], PATCHES)
    with pytest.raises(UserError, match="at least one block, got none"):
        explain.roll_out_maps([], [], PATCHES)
