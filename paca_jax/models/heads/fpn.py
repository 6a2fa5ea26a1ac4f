"""The feature pyramid (Lin et al., CVPR 2017): equal channels at every stride from 4 to 64."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from paca_jax import ops
from paca_jax.models.layers import Conv, Dense

xavier_init = nn.initializers.xavier_uniform()


class FeaturePyramid(nn.Module):
    """Lateral layers, a top-down path with nearest-neighbor upsampling, and a 3x3 convolution per level.

    One more level is the last one, subsampled by two.

    Attributes:
        channels: the channels of every level.
        dtype: the type to compute in.
    """

    channels: int = 256
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, features: list[Float[Array, "B _Hi _Wi _Ci"]]) -> list[Float[Array, "B _Hi _Wi C"]]:
        """Returns the levels, one more than there are maps."""
        levels = [
            Dense(self.channels, dtype=self.dtype, kernel_init=xavier_init, name=f"lateral{index}")(x)
            for index, x in enumerate(features)
        ]
        for index in reversed(range(len(levels) - 1)):
            finer = levels[index]
            levels[index] = finer + ops.resize_nearest(levels[index + 1], (finer.shape[1], finer.shape[2]))
        pyramid = [
            Conv(self.channels, dtype=self.dtype, kernel_init=xavier_init, name=f"output{index}")(x)
            for index, x in enumerate(levels)
        ]
        return [*pyramid, pyramid[-1][:, ::2, ::2]]
