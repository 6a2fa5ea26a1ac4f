"""Bilinear resizing as torch does it."""

import jax.numpy as jnp
import numpy as np
import pytest

from paca_jax import ops

SIZES = [((7, 9), (14, 18)), ((8, 8), (5, 3)), ((4, 6), (4, 6)), ((1, 3), (6, 7)), ((10, 7), (1, 1))]


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("source", "target"), SIZES)
def test_matches_torch(source, target, align_corners):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).standard_normal((2, *source, 3)).astype(np.float32)
    ours = ops.resize_bilinear(jnp.asarray(x), target, align_corners)
    nchw = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
    theirs = torch.nn.functional.interpolate(nchw, target, mode="bilinear", align_corners=align_corners)
    np.testing.assert_allclose(ours, theirs.numpy().transpose(0, 2, 3, 1), atol=1e-5)


def test_doubling_and_aligned_corners_in_closed_form():
    x = jnp.array([0.0, 4.0]).reshape(1, 1, 2, 1)
    np.testing.assert_allclose(ops.resize_bilinear(x, (1, 4))[0, 0, :, 0], [0, 1, 3, 4], atol=1e-6)
    np.testing.assert_allclose(ops.resize_bilinear(x, (1, 5), align_corners=True)[0, 0, :, 0], [0, 1, 2, 3, 4], atol=1e-6)
