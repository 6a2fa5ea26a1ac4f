"""The weights that a run starts from."""

from collections.abc import Collection

import flax.linen as nn

from paca_jax.checkpoints.loading import open_source
from paca_jax.models.variables import Variables


def initial_variables(source: str, model: nn.Module, allow_new: Collection[str]) -> Variables:
    """Returns variables for `model` from a workdir, a `.safetensors` or `.pth` file, or an official model's name.

    Args:
        source: the place of the weights.
        model: the model to fill.
        allow_new: layers that may start fresh, "head" and/or "clustering"; a warning names those that do.

    Raises:
        UserError: if the weights are not there or do not fit.
    """
    fill_model, _, _ = open_source(source)
    filled = fill_model(model, allow_new=allow_new)
    filled.log_departures()
    return filled.variables
