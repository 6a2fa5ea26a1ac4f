"""Starting a run from weights that are there already."""

import logging
from collections.abc import Collection

import flax.linen as nn
from jaxtyping import PyTree

from paca_jax.checkpoints.loading import read_source
from paca_jax.convert import convert_state_dict, departures
from paca_jax.models import list_models

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
    state = read_source(source, pretrained=source in list_models()).state
    conversion = convert_state_dict(state, model, allow_new=allow_new)
    for sentence in departures(conversion.fresh, conversion.unused):
        logger.info("%s", sentence)
    return conversion.variables
