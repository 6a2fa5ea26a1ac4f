"""Clusters that are taken away: against smaller models, and in closed form."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from paca_jax import ops
from paca_jax.errors import UserError
from paca_jax.models import Removal, TeacherConfig, create_model
from tests import golden
from tests.shapes import unchecked

SHALLOW = {"depths": (2, 1, 1, 1), "clusters": (6, 0, 4, 0)}
KINDS = {
    "convolution": ("pacavit_nano", {"num_classes": 5}),
    "linear": ("pacavit_nano", {"num_classes": 5, "clustering": "linear", "cluster_position_embedding": True}),
    "mlp in every block": ("pacavit_nano", {"num_classes": 5, "clustering": "mlp", "clustering_periods": (1, 0, 0, 0)}),
    "teacher": ("pacavit_nano", {"num_classes": 5, "teacher": TeacherConfig(depths=(1, 1, 1, 1), kernel_size=3)}),
    "pacahead": ("pacahead_nano", {"num_classes": 7, "head_channels": 16}),
    "upernet": ("upernet_nano", {"num_classes": 7, "head_channels": 16}),
    "detector": ("mask_rcnn_nano", {"num_classes": 3, "proposals": 20, "detections": 5, "score_threshold": 0.0}),
}
IMAGES = jax.random.normal(jax.random.key(1), (2, 40, 36, 3))
ONE_REMOVED = np.arange(6) != 2


def made(kind, **overrides):
    name, given = KINDS[kind]
    return create_model(name, **(SHALLOW | given | overrides))


@functools.cache
def variables_of(kind):
    return golden.random_variables(made(kind))


def answer(model, variables, *arguments, method="__call__", **options):
    with jax.default_matmul_precision("highest"):
        return jax.jit(functools.partial(model.apply, method=method))(variables, IMAGES, *arguments, **options)


def without_channel(variables, cluster):
    """Returns variables whose clusterings of stage 1 have one output channel less."""
    leaves = {}
    for path, leaf in flatten_dict(variables, sep="/").items():
        place = path.removeprefix("params/").removeprefix("backbone/")
        if place.startswith("teacher/assign1/") or (place.startswith("stage1/") and "_clustering/project/" in place):
            leaf = jnp.delete(leaf, cluster, axis=-1)
        elif place.startswith("stage1/") and place.endswith("cluster_position_embedding"):
            leaf = jnp.delete(leaf, cluster, axis=0)
        leaves[path] = leaf
    return unflatten_dict(leaves, sep="/")


def blocks_of(kind):
    return ["stage1/block0", "stage1/block1"] if kind == "mlp in every block" else ["stage1/block0"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_without_a_cluster_is_one_whose_clustering_has_no_such_channel(kind):
    model, variables = made(kind), variables_of(kind)
    found = answer(model, variables, removals=dict.fromkeys(blocks_of(kind), Removal(ONE_REMOVED)))
    smaller, fewer = made(kind, clusters=(5, 0, 4, 0)), without_channel(variables, 2)
    expected = answer(smaller, fewer)
    unchanged = answer(model, variables)
    for ours, theirs, before in zip(*map(jax.tree.leaves, (found, expected, unchanged)), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4 if kind == "detector" else 1e-5)
        assert ours.dtype in (jnp.bool_, jnp.int32) or np.abs(ours - before).max() > 1e-3


def test_weights_of_a_removed_cluster_are_0_and_the_others_sum_to_1():
    model, variables = made("convolution"), variables_of("convolution")
    weights = answer(model, variables, method="attention", removals={"stage1/block0": Removal(ONE_REMOVED)})
    for block in ("stage1/block0", "stage1/block1"):  # both use the assignment
        assert not weights[block][..., 2].any()
        np.testing.assert_allclose(weights[block].sum(-1), 1, atol=1e-5)


def test_each_image_can_lose_its_own_clusters():
    model, variables = made("convolution"), variables_of("convolution")
    each = np.stack([ONE_REMOVED, np.arange(6) > 2])
    found = answer(model, variables, removals={"stage1/block0": Removal(each)})
    for index, kept in enumerate(each):
        alone = answer(model, variables, removals={"stage1/block0": Removal(kept)})
        np.testing.assert_allclose(found[index], alone[index], atol=1e-5)


def test_nothing_changes_where_every_cluster_stays():
    model, variables = made("convolution"), variables_of("convolution")
    for by_mean in (False, True):
        found = answer(model, variables, removals={"stage1/block0": Removal(np.ones(6, bool), by_mean)})
        np.testing.assert_allclose(found, answer(model, variables), atol=1e-6)


def test_without_any_cluster_attention_gathers_zeros():
    model, variables = made("convolution"), variables_of("convolution")
    leaves = flatten_dict(variables, sep="/")
    for block in ("block0", "block1"):
        leaves[f"params/stage1/{block}/attention/out/kernel"] *= 0
    found = answer(model, variables, removals={"stage1/block0": Removal(np.zeros(6, bool))})
    np.testing.assert_allclose(found, answer(model, unflatten_dict(leaves, sep="/")), atol=1e-5)


def test_of_two_clusters_one_that_becomes_the_mean_of_the_other_is_as_good_as_removed():
    model = made("convolution", clusters=(2, 0, 4, 0))
    variables, kept = golden.random_variables(model), np.array([False, True])
    replaced, removed = (answer(model, variables, removals={"stage1/block0": Removal(kept, mean)}) for mean in (True, False))
    np.testing.assert_allclose(replaced, removed, atol=1e-5)
    assert np.abs(replaced - answer(model, variables)).max() > 1e-3


def test_the_mean_of_clusters_takes_the_place_of_others():
    assignment = jax.nn.softmax(jax.random.normal(jax.random.key(0), (2, 4, 9)))
    kept = np.array([[True, False, True, True], [False] * 4])
    found = ops.average_clusters(assignment, jnp.asarray(kept))
    np.testing.assert_array_equal(found[0, [0, 2, 3]], assignment[0, [0, 2, 3]])
    np.testing.assert_allclose(found[0, 1], assignment[0, [0, 2, 3]].mean(0), atol=1e-6)
    assert not found[1].any()


def test_kernels_refuse_removed_clusters():
    model = made("convolution")
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    removals = {"stage1/block0": Removal(np.ones(6, bool))}
    with ops.interpret_kernels(True):
        with ops.record_choices() as choices:
            jax.eval_shape(lambda v: model.apply(v, IMAGES, removals=removals), variables)
        taken = {choice.block: (choice.implementation, choice.reason) for choice in choices if choice.operation == "attention"}
        assert taken["stage1/block1"] == ("xla", "clusters are removed")
        assert taken["stage3/block0"][0] == "pallas_tpu"
        asked = made("convolution", implementation="pallas_tpu")
        with pytest.raises(UserError, match=r"attention in stage1/block0 .*: clusters are removed"):
            jax.eval_shape(lambda v: asked.apply(v, IMAGES, removals=removals), variables)


def test_remat_does_not_change_the_answer():
    variables, removals = variables_of("convolution"), {"stage1/block0": Removal(ONE_REMOVED)}
    plain, again = (answer(made("convolution", remat=remat), variables, removals=removals) for remat in (False, True))
    np.testing.assert_allclose(plain, again, atol=1e-6)


@pytest.mark.parametrize("kind", ["convolution", "upernet", "detector"])
@pytest.mark.parametrize(
    ("removals", "message"),
    [
        (Removal(ONE_REMOVED), "Expected removals as a dict, got Removal"),
        ({"stage1/block1": Removal(ONE_REMOVED)}, "computes an assignment, got 'stage1/block1'; the nearest are stage1/block0"),
        ({"stage1": Removal(ONE_REMOVED)}, "got 'stage1'"),
        ({"stage2/block0": Removal(ONE_REMOVED)}, "got 'stage2/block0'"),
        ({"stage1/block0": ONE_REMOVED}, "Expected a Removal for stage1/block0, got ndarray"),
        ({"stage1/block0": Removal([True] * 6)}, r"kept of stage1/block0 to be booleans of shape \(6,\) or \(2, 6\), got list"),
        ({"stage1/block0": Removal(np.ones(5, bool))}, r"got bool of shape \(5,\)"),
        ({"stage1/block0": Removal(np.ones((1, 6), bool))}, r"got bool of shape \(1, 6\)"),
        ({"stage1/block0": Removal(np.ones(6))}, r"got float64 of shape \(6,\)"),
    ],
)
def test_clusters_that_are_not_there_cannot_be_removed(kind, removals, message):
    model = made(kind)
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    with unchecked(), pytest.raises(UserError, match=message):
        jax.eval_shape(lambda v: model.apply(v, IMAGES, removals=removals), variables)


def test_a_model_without_clusters_says_so():
    model = made("convolution", clusters=(0, 0, 0, 0))
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    with pytest.raises(UserError, match="the model has none"):
        jax.eval_shape(lambda v: model.apply(v, IMAGES, removals={"stage1/block0": Removal(ONE_REMOVED)}), variables)
