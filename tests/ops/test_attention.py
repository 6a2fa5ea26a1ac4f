"""Assignments, clusters and attention against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np

from paca_jax import ops

KEYS = jax.random.split(jax.random.key(0), 3)


def test_each_cluster_is_a_distribution_over_patches():
    logits = 5 * jax.random.normal(KEYS[0], (2, 30, 7))
    assignment = ops.assign_patches(logits)
    assert assignment.shape == (2, 7, 30)
    np.testing.assert_allclose(assignment.sum(-1), 1, atol=1e-6)
    expected = np.exp(np.asarray(logits, np.float64))
    expected = (expected / expected.sum(1, keepdims=True)).transpose(0, 2, 1)
    np.testing.assert_allclose(assignment, expected, atol=1e-6)


def test_clusters_are_weighted_means_of_patches():
    assignment = jnp.zeros((1, 2, 4)).at[0, 0, 3].set(1).at[0, 1].set(0.25)
    patches = jax.random.normal(KEYS[1], (1, 4, 5))
    clusters = ops.gather_clusters(assignment, patches)
    np.testing.assert_allclose(clusters[0, 0], patches[0, 3], atol=1e-6)
    np.testing.assert_allclose(clusters[0, 1], patches[0].mean(0), atol=1e-6)


def test_attention_weights_sum_to_one_and_scale_by_the_head_dimension():
    query = jax.random.normal(KEYS[0], (2, 11, 3, 16))
    key = jax.random.normal(KEYS[1], (2, 6, 3, 16))
    with jax.default_matmul_precision("highest"):
        weights = ops.attention_weights(query, key)
    assert weights.shape == (2, 3, 11, 6)
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-6)
    scores = np.einsum("bnhd,bthd->bhnt", np.asarray(query, np.float64), np.asarray(key, np.float64)) / 4
    expected = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    np.testing.assert_allclose(weights, expected, atol=1e-6)


def test_attend_returns_means_of_values():
    value = jax.random.normal(KEYS[2], (2, 6, 3, 4))
    out = ops.attend(jnp.full((2, 3, 5, 6), 1 / 6), value)
    assert out.shape == (2, 5, 3, 4)
    np.testing.assert_allclose(out, jnp.broadcast_to(value.mean(1, keepdims=True), out.shape), atol=1e-6)


def test_softmaxes_keep_the_compute_type():
    query = jnp.ones((1, 3, 1, 8), jnp.bfloat16)
    assert ops.attention_weights(query, query).dtype == jnp.bfloat16
    assert ops.assign_patches(jnp.ones((1, 3, 2), jnp.bfloat16)).dtype == jnp.bfloat16
