"""The base class of backbones, segmentors and detectors."""

from typing import Any

import flax.linen as nn
import numpy as np
from jaxtyping import Array, Float

from paca_jax import ops

# Images as users give them: JAX arrays, or NumPy arrays as `preprocess` returns them.
Images = Float[Array | np.ndarray, "B H W C"]


class Model(nn.Module, kw_only=True):
    """A network whose operations all take the implementation that it was created with.

    Attributes:
        implementation: how operations are computed; None chooses for each one (see `paca_jax.ops.implementation`).
    """

    implementation: ops.Implementation | None = None

    @nn.nowrap
    def apply(self, *args: Any, **kwargs: Any) -> Any:
        """Applies a method of the network to variables; see `flax.linen.Module.apply`."""
        with ops.use_implementation(self.implementation):
            return super().apply(*args, **kwargs)

    @nn.nowrap
    def init(self, *args: Any, **kwargs: Any) -> Any:
        """Draws the variables of the network; see `flax.linen.Module.init`."""
        with ops.use_implementation(self.implementation):
            return super().init(*args, **kwargs)
