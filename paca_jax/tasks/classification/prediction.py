"""From images to the probabilities of their classes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from paca_jax.models import PaCaViT
from paca_jax.models.model import check_finite


@functools.partial(jax.jit, static_argnames="model")
def _logits(model: PaCaViT, variables: dict[str, PyTree], images: Float[Array, "B H W C"]) -> Array:
    return jnp.asarray(model.apply(variables, images))


def classify_images(
    model: PaCaViT, variables: dict[str, PyTree], images: Float[np.ndarray, "B H W C"]
) -> Float[np.ndarray, "B K"]:
    """Returns the probability of every class for each image of a batch; compiles once for each shape.

    Args:
        model: the classifier.
        variables: the model's variables.
        images: normalized, as `paca_jax.preprocess` returns them.

    Raises:
        UserError: if a probability is not finite.
    """
    probabilities = np.asarray(jax.nn.softmax(_logits(model, variables, jnp.asarray(images))))
    check_finite(np.isfinite(probabilities).all())
    return probabilities


def classify_image(model: PaCaViT, variables: dict[str, PyTree], image: Float[np.ndarray, "H W C"]) -> Float[np.ndarray, "K"]:
    """Returns the probability of every class for one image; see `classify_images`."""
    return classify_images(model, variables, image[None])[0]
