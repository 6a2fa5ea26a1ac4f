"""From pictures to the probabilities of their classes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree
from PIL import Image

from paca_jax import data
from paca_jax.models import PaCaViT


@functools.partial(jax.jit, static_argnames="model")
def _logits(model: PaCaViT, variables: dict[str, PyTree], images: Float[Array, "B H W C"]) -> Array:
    return jnp.asarray(model.apply(variables, images))


def classify_picture(model: PaCaViT, variables: dict[str, PyTree], picture: Image.Image) -> Float[np.ndarray, "K"]:
    """Returns the probability of every class for one picture.

    Args:
        model: the classifier.
        variables: the model's variables.
        picture: any mode.
    """
    images = jnp.asarray(data.preprocess(picture, model))[None]
    return np.asarray(jax.nn.softmax(_logits(model, variables, images)[0]))
