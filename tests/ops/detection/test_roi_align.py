"""RoIAlign against a plain statement that takes every sample by itself."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from paca_jax import ops

# Ordinary, tiny, elongated, whole, partly and wholly outside, huge, empty, reversed, with sides of whole bins, and in a corner.
BOXES = np.array(
    [
        [10.3, 20.7, 60.2, 90.1],
        [33.3, 40.0, 33.9, 40.2],
        [2.0, 50.0, 318.5, 57.0],
        [100.0, 1.0, 109.0, 199.0],
        [0.0, 0.0, 320.0, 200.0],
        [-30.0, -17.5, 44.0, 61.0],
        [280.0, 170.0, 390.0, 260.0],
        [-90.0, 20.0, -40.0, 50.0],
        [400.0, 300.0, 500.0, 420.0],
        [-700.0, -500.0, 900.0, 800.0],
        [50.0, 60.0, 50.0, 90.0],
        [90.0, 90.0, 40.0, 30.0],
        [16.0, 32.0, 16.0 + 84.0, 32.0 + 28.0],
        [0.0, 0.0, 2.0, 2.0],
    ],
    np.float32,
)


def plain_axis(low, high, stride, size, out):
    """Returns the (out, size) weights of one axis, one sample at a time."""
    weights = np.zeros((out, size))
    start = np.float32(low) / np.float32(stride) - np.float32(0.5)
    length = np.float32(high) / np.float32(stride) - np.float32(0.5) - start
    samples = math.ceil(length / np.float32(out))
    for b in range(out):
        for s in range(samples):
            position = float(start) + (b + (s + 0.5) / samples) * float(length) / out
            if -1 <= position <= size:
                position = min(max(position, 0), size - 1)
                lower = int(position)
                weights[b, lower] += (1 - (position - lower)) / samples
                weights[b, min(lower + 1, size - 1)] += (position - lower) / samples
    return weights


def plain_weights(boxes, stride, shape, out):
    """Returns the (N, out, H) and (N, out, W) weights of boxes."""
    rows = np.stack([plain_axis(box[1], box[3], stride, shape[0], out) for box in boxes])
    return rows, np.stack([plain_axis(box[0], box[2], stride, shape[1], out) for box in boxes])


def plain_roi_align(features, boxes, stride, out):
    rows, columns = plain_weights(boxes, stride, features.shape[:2], out)
    return np.einsum("nph,nqw,hwc->npqc", rows, columns, features, optimize=True)


def features(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


pooled = jax.jit(ops.roi_align, static_argnums=(2, 3))


@pytest.mark.parametrize(("stride", "out"), [(4, 7), (2, 14), (32, 7)])
def test_matches_every_sample_by_itself(stride, out):
    maps = features(-(-200 // stride), -(-320 // stride), 3)
    ours = pooled(maps, BOXES, stride, out)
    np.testing.assert_allclose(ours, plain_roi_align(maps, BOXES, stride, out), atol=1e-4)
    assert np.all(np.asarray(ours)[[7, 8, 10, 11]] == 0)
    assert np.all(np.any(np.asarray(ours)[[0, 1, 2, 3, 4, 5, 6, 9, 12, 13]] != 0, axis=(1, 2, 3)))


def test_gradient_is_the_transpose():
    maps, cotangent = features(11, 9, 2), features(len(BOXES), 7, 7, 2)
    gradient = jax.jit(jax.grad(lambda maps: jnp.vdot(ops.roi_align(maps, jnp.asarray(BOXES), 20, 7), cotangent)))(maps)
    rows, columns = plain_weights(BOXES, 20, maps.shape[:2], 7)
    np.testing.assert_allclose(gradient, np.einsum("nph,nqw,npqc->hwc", rows, columns, cotangent, optimize=True), atol=1e-4)


def test_levels_by_size():
    sides = np.array([0, 10, 111.9, 112, 223.9, 224, 447, 448, 5000], np.float32)
    boxes = np.stack([0 * sides, 0 * sides, 2 * sides, sides / 2], axis=-1)
    np.testing.assert_array_equal(ops.pyramid_level(jnp.asarray(boxes), 4), [0, 0, 0, 1, 1, 2, 2, 3, 3])
    np.testing.assert_array_equal(ops.pyramid_level(jnp.asarray(-boxes[:, ::-1]), 4)[1:3], [0, 0])


def many_boxes(rng, *shape):
    centers, sides = rng.uniform(0, 500, (*shape, 2)), np.exp(rng.uniform(1, 6.5, (*shape, 2)))
    return np.concatenate([centers - sides / 2, centers + sides / 2], axis=-1).astype(np.float32)


def test_pyramid_pools_each_box_from_its_level():
    rng = np.random.default_rng(1)
    levels = [rng.standard_normal((2, 500 // s, 500 // s, 2)).astype(np.float32) for s in (4, 8, 16, 32)]
    boxes, valid = many_boxes(rng, 2, 90), rng.random((2, 90)) < 0.8
    boxes[~valid] = np.nan
    cotangent = rng.standard_normal((2, 90, 7, 7, 2)).astype(np.float32)
    ours, transpose = jax.vjp(
        jax.jit(lambda *levels: ops.pyramid_roi_align(list(levels), *map(jnp.asarray, (boxes, valid)), 7)), *levels
    )
    sizes = np.sqrt(np.prod(boxes[..., 2:] - boxes[..., :2], axis=-1))
    which = np.clip(np.floor(np.log2(np.nan_to_num(sizes) / 56 + 1e-6)), 0, 3).astype(int)
    assert set(which[valid]) == {0, 1, 2, 3}
    expected = np.zeros(ours.shape)
    gradients = [np.zeros(level.shape) for level in levels]
    for image, box in zip(*np.nonzero(valid), strict=True):
        level = which[image, box]
        rows, columns = plain_weights(boxes[image, box][None], 4 * 2**level, levels[level].shape[1:3], 7)
        expected[image, box] = np.einsum("ph,qw,hwc->pqc", rows[0], columns[0], levels[level][image], optimize=True)
        gradients[level][image] += np.einsum("ph,qw,pqc->hwc", rows[0], columns[0], cotangent[image, box], optimize=True)
    np.testing.assert_allclose(ours, expected, atol=1e-4)
    for found, gradient in zip(transpose(cotangent), gradients, strict=True):
        np.testing.assert_allclose(found, gradient, atol=1e-3)


def test_boxes_get_no_gradient_and_bfloat16_stays():
    maps = jnp.asarray(features(12, 12, 2), jnp.bfloat16)
    both = jax.grad(lambda maps, boxes: jnp.sum(ops.roi_align(maps, boxes, 4, 2).astype(float)), argnums=(0, 1))
    by_maps, by_boxes = jax.jit(both)(maps, BOXES)
    assert by_maps.dtype == jnp.bfloat16
    assert np.any(by_maps != 0)
    assert not np.any(by_boxes)
    exact = pooled(maps.astype(jnp.float32), BOXES, 4, 2)
    np.testing.assert_allclose(pooled(maps, BOXES, 4, 2).astype(float), exact, atol=0.02 * np.max(np.abs(exact)))


def test_maps_may_be_mapped_over():
    maps = features(3, 10, 12, 2)
    ours = jax.jit(jax.vmap(lambda maps: ops.roi_align(maps, jnp.asarray(BOXES), 20, 3)))(maps)
    np.testing.assert_allclose(ours[2], plain_roi_align(maps[2], BOXES, 20, 3), atol=1e-4)


def test_images_on_several_devices_stay_there():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:4])

    def array(*shape, dtype=jnp.float32):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, PartitionSpec("data")))

    levels = [array(4, 32 // s, 32 // s, 2) for s in (4, 8)]

    def gradient(levels, boxes, valid):
        return jax.grad(lambda levels: jnp.sum(ops.pyramid_roi_align(levels, boxes, valid, 2, (4, 8)) ** 2))(levels)

    compiled = jax.jit(gradient).lower(levels, array(4, 70, 4), array(4, 70, dtype=bool)).compile()
    # Only whether some image has boxes on a level is told to others.
    moved = re.findall(r"= (.*) (?:all|collective|reduce)-[a-z-]+\(", compiled.as_text())
    assert {kind for shapes in moved for kind in re.findall(r"([a-z]+\d*)\[", shapes)} == {"pred"}
