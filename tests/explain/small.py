"""A small classifier with random variables, and pictures for it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from paca_jax.models import create_model

NAMES = ["apple", "bicycle", "a class with a name that is far too long for its column", "dog"]


SMALL = {
    "embed_dims": (8, 8),
    "depths": (1, 1),
    "num_heads": (1, 1),
    "mlp_ratios": (1, 1),
    "clusters": (16, 8),
    "clustering": "linear",
    "clustering_periods": (0, 0),
    "clustering_kernel_sizes": (3, 3),
}


@functools.cache
def nano(**overrides):
    model = create_model("pacavit_nano", **{"num_classes": len(NAMES), **SMALL, **overrides})
    images = jnp.zeros((1, 32, 32, model.config.image_channels))
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    rng = np.random.default_rng(0)
    return model, jax.tree.map(lambda leaf: rng.normal(0, 0.5, leaf.shape).astype(np.float32), shapes)


def smooth(count, shape=(28, 28)):
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (count, 5, 5, 3), np.uint8)
    return [Image.fromarray(pixels).resize(shape[::-1], Image.Resampling.BICUBIC) for pixels in coarse]


def normalized(pictures, size=(32, 32)):
    return np.stack([np.asarray(p.resize(size[::-1]), np.float32) / 64 - 2 for p in pictures])
