import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paca_jax import explain


def one_hot(position, shape=(3, 5)):
    return np.eye(math.prod(shape), dtype=np.float32)[position].reshape(shape)


UNIFORM = np.full((3, 5), 1 / 15, np.float32)


def test_strength_of_uniform_is_zero_and_of_one_patch_log_n():
    half = np.zeros((3, 5), np.float32)
    half[0, :3] = 1 / 3
    strengths = explain.cluster_strengths(np.stack([UNIFORM, one_hot(4), half])[None])
    assert strengths.shape == (1, 3)
    np.testing.assert_allclose(strengths[0], [0, math.log(15), math.log(5)], atol=1e-6)


def test_strengths_can_be_jitted_and_take_bfloat16():
    assignments = jax.nn.softmax(jax.random.normal(jax.random.key(0), (2, 4, 15)), axis=-1).reshape(2, 4, 3, 5)
    expected = explain.cluster_strengths(assignments)
    np.testing.assert_allclose(jax.jit(explain.cluster_strengths)(assignments), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(explain.cluster_strengths(assignments.astype(jnp.bfloat16)), expected, atol=0.02)


def test_the_strongest_come_first_without_duplicates_and_without_uniform_ones():
    maps = np.stack([UNIFORM, one_hot(4), 0.9 * one_hot(4) + 0.1 * UNIFORM, 0.5 * one_hot(7) + 0.5 * UNIFORM])
    assert explain.strongest_clusters(maps, 4) == [1, 3]
    assert explain.strongest_clusters(maps, 4, similarity=1.1) == [1, 2, 3]
    assert explain.strongest_clusters(maps, 1) == [1]
    assert explain.strongest_clusters(maps, 0) == []


def test_maps_of_one_patch_have_no_strongest():
    assert explain.strongest_clusters(np.ones((4, 1, 1), np.float32), 3) == []


@pytest.mark.parametrize("scale", [1.0, 0.05])
def test_similarity_ignores_contrast(scale):
    weak = scale * one_hot(2) + (1 - scale) * UNIFORM
    assert explain.strongest_clusters(np.stack([one_hot(2), weak, one_hot(9)]), 3) == [0, 2]
