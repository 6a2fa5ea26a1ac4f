"""The weights that a run starts from."""

from collections.abc import Collection

import flax.linen as nn

from paca_jax.checkpoints.source import open_source
from paca_jax.models.variables import Variables


def initial_variables(
    source: str, model: nn.Module, allow_new: Collection[str], weights: str | None = None, rgb_to_gray: bool = False
) -> Variables:
    """Returns variables for `model` from a source of weights as for `paca_jax.load`, or an official model's name.

    What starts fresh, and how the source was read, is logged.

    Args:
        source: the place of the weights.
        model: the model to fill.
        allow_new: layers that may start fresh, "head" and/or "clustering".
        weights: "raw" or "ema", as for `paca_jax.load`.
        rgb_to_gray: as for `paca_jax.load`.

    Raises:
        UserError: if the weights are not there or do not fit.
    """
    filled = open_source(source, weights=weights).fill(model, allow_new, rgb_to_gray)
    filled.log_departures()
    return filled.variables
