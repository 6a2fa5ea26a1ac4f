"""What a page shows of one picture: the part that the model sees, attention weights, assignments, and the model's answer."""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree
from PIL import Image

from paca_jax import data
from paca_jax.explain.checks import AnyModel
from paca_jax.explain.cluster_sheets.sheets import seen_by_model
from paca_jax.explain.inspection.patch_sources import weights_and_clusters
from paca_jax.explain.inspection.rows import Answer, first_answer, outputs


class Seen(NamedTuple):
    """What a model does with one picture.

    Attributes:
        picture: the part of the picture that the model sees.
        image: the normalized image.
        attention: the attention weights of every block with clusters.
        clusters: the assignments, by the block that computes them.
        answer: the answer of the model.
    """

    picture: Image.Image
    image: Float[np.ndarray, "H W C"]
    attention: dict[str, Float[np.ndarray, "heads Hi Wi M"]]
    clusters: dict[str, Float[np.ndarray, "M Hi Wi"]]
    answer: Answer


def look(model: AnyModel, variables: Mapping[str, PyTree], picture: Image.Image) -> Seen:
    """Returns what a model does with an upright picture of its number of channels; compiles once per shape.

    Raises:
        UserError: if an output of the model is not finite.
    """
    image = data.preprocess(picture, model)
    size = (image.shape[0], image.shape[1])
    batch = jnp.asarray(image)[None]
    attention, clusters = weights_and_clusters(model, dict(variables), batch)
    answer = first_answer(outputs(model, dict(variables), batch))
    return Seen(seen_by_model(picture, model, size), image, _first(attention), _first(clusters), answer)


def _first(arrays: dict[str, Array]) -> dict[str, np.ndarray]:
    """Returns the first row of each batch, in float32."""
    return {name: np.asarray(array[0], np.float32) for name, array in arrays.items()}
