"""Starting a run from weights that are there already."""

import logging
from collections.abc import Collection

import flax.linen as nn
import numpy as np
from etils import epath
from jaxtyping import PyTree

from paca_jax import convert
from paca_jax.models import create_model, list_models
from paca_jax.train.checkpoints import read_variables

logger = logging.getLogger(__name__)


def initial_variables(source: str, model: nn.Module, allow_new: Collection[str]) -> dict[str, PyTree]:
    """Returns variables for `model` from a workdir, a `.safetensors` or `.pth` file, or an official model's name.

    Every way goes through the official names, so that one check serves all.

    Args:
        source: where the weights are.
        model: what they are for.
        allow_new: layers that may start fresh, "head" or "clustering"; what does is logged.

    Raises:
        UserError: if the weights are not there or do not fit.
    """
    conversion = convert.convert_state_dict(_state_dict(source), model, allow_new=allow_new)
    if conversion.fresh:
        logger.info("Starting fresh, for want of fitting weights in %s: %s.", source, ", ".join(conversion.fresh))
    return conversion.variables


def _state_dict(source: str) -> dict[str, np.ndarray]:
    if epath.Path(source).is_dir():
        variables, metadata = read_variables(source)
        return convert.to_torch(variables, create_model(**metadata["model"]))
    path = convert.fetch_pretrained(source) if source in list_models() else source
    return convert.read_state_dict(path)
