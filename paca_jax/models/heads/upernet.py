"""UPerNet (Xiao et al., ECCV 2018) and its auxiliary FCN head."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from paca_jax import ops
from paca_jax.models.heads.config import SegmentorConfig
from paca_jax.models.heads.layers import Classifier, ConvNorm, resize_like

POOL_SIDES = (1, 2, 3, 6)
AUXILIARY_CHANNELS = 256


class UPerNetHead(nn.Module):
    """Pyramid pooling of the last stage, a top-down path, and a fusion of all levels at stride 4."""

    config: SegmentorConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, features: list[Float[Array, "B _Hi _Wi _Ci"]], train: bool) -> Float[Array, "B H W K"]:
        """Returns the logits for the maps of the four stages."""
        channels, dtype, last = self.config.head_channels, self.dtype, features[-1]
        pooled = [last]
        for index, side in enumerate(POOL_SIDES):
            x = ConvNorm(channels, dtype=dtype, name=f"pool{index}")(ops.adaptive_average_pool(last, (side, side)), train)
            pooled.append(resize_like(x, last))
        top = ConvNorm(channels, 3, dtype, name="bottleneck")(jnp.concatenate(pooled, axis=-1), train)

        levels = [top]
        for index in reversed(range(len(features) - 1)):
            lateral = ConvNorm(channels, dtype=dtype, name=f"lateral{index}")(features[index], train)
            levels.insert(0, lateral + resize_like(levels[0], lateral))
        smoothed = [ConvNorm(channels, 3, dtype, name=f"smooth{index}")(x, train) for index, x in enumerate(levels[:-1])]
        fused = jnp.concatenate([resize_like(x, features[0]) for x in (*smoothed, top)], axis=-1)
        out = ConvNorm(channels, 3, dtype, name="fusion")(fused, train)
        return Classifier(self.config.num_classes, self.config.head_dropout_rate, dtype, name="classifier")(out, train)


class FCNHead(nn.Module):
    """A 3x3 convolution and a classifier on the map of the third stage, for training only."""

    config: SegmentorConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, features: list[Float[Array, "B _Hi _Wi _Ci"]], train: bool) -> Float[Array, "B H W K"]:
        """Returns the logits at stride 16."""
        x = ConvNorm(AUXILIARY_CHANNELS, 3, self.dtype, name="hidden0")(features[2], train)
        return Classifier(self.config.num_classes, self.config.head_dropout_rate, self.dtype, name="classifier")(x, train)
