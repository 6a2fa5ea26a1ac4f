"""The networks of Mask R-CNN (He et al., ICCV 2017): region proposals, boxes and masks."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from paca_jax import ops
from paca_jax.models.heads.fpn import xavier_init
from paca_jax.models.layers import Conv, Dense

ANCHORS = 3
BOX_SIDE = 7
MASK_SIDE = 14

# The official code's initialization of convolutions before a ReLU: a normal of variance 2 / fan-out.
relu_init = nn.initializers.variance_scaling(2, "fan_out", "normal")


class RegionProposals(nn.Module):
    """A 3x3 convolution, then a score and four deltas for each of three anchors; the same layers at every level."""

    channels: int = 256
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Creates the layers, which are used at all levels."""
        init = nn.initializers.normal(0.01)
        self.conv = Conv(self.channels, dtype=self.dtype, kernel_init=init)
        self.score = Dense(ANCHORS, dtype=self.dtype, kernel_init=init)
        self.delta = Dense(4 * ANCHORS, dtype=self.dtype, kernel_init=init)

    def __call__(
        self, pyramid: list[Float[Array, "B _Hi _Wi C"]]
    ) -> tuple[list[Float[Array, "B _Ni"]], list[Float[Array, "B _Ni 4"]]]:
        """Returns the logits and deltas of each level's anchors in float32, row by row, the anchors of a cell together."""
        scores, deltas = [], []
        for x in pyramid:
            x = jax.nn.relu(self.conv(x))
            scores.append(self.score(x).reshape(x.shape[0], -1).astype(jnp.float32))
            deltas.append(self.delta(x).reshape(x.shape[0], -1, 4).astype(jnp.float32))
        return scores, deltas


class BoxHead(nn.Module):
    """Two dense layers, then class logits (the background last) and four deltas for each class."""

    num_classes: int
    channels: int = 1024
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, regions: Float[Array, "N 7 7 C"]) -> tuple[Float[Array, "N K1"], Float[Array, "N K 4"]]:
        """Returns the logits and deltas in float32."""
        x = regions.reshape(regions.shape[0], -1)
        for index in range(2):
            x = jax.nn.relu(Dense(self.channels, dtype=self.dtype, kernel_init=xavier_init, name=f"hidden{index}")(x))
        logits = Dense(self.num_classes + 1, dtype=self.dtype, kernel_init=nn.initializers.normal(0.01), name="score")(x)
        deltas = Dense(4 * self.num_classes, dtype=self.dtype, kernel_init=nn.initializers.normal(0.001), name="delta")(x)
        return logits.astype(jnp.float32), deltas.reshape(regions.shape[0], -1, 4).astype(jnp.float32)


class SplitCells(nn.Module):
    """A transposed convolution with a 2x2 kernel and stride 2: each cell becomes four that do not overlap.

    It is a single matrix product, and pointwise layers that follow can run before the cells are rearranged.
    """

    channels: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "N H W C"]) -> Float[Array, "N H W 2 2 D"]:
        """Returns the four cells of each cell, by row and column."""
        kernel = self.param("kernel", relu_init, (2, 2, x.shape[-1], self.channels))
        bias = self.param("bias", nn.initializers.zeros_init(), (self.channels,))
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        columns = kernel.transpose(2, 0, 1, 3).reshape(x.shape[-1], -1)
        return ops.dense(x, columns).reshape(*x.shape[:3], 2, 2, self.channels) + bias


class MaskHead(nn.Module):
    """Four 3x3 convolutions, a transposed one that doubles the side, and a logit for each class."""

    num_classes: int
    channels: int = 256
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, regions: Float[Array, "N 14 14 C"]) -> Float[Array, "N 28 28 K"]:
        """Returns the logits in float32."""
        x, dtype, init = regions, self.dtype, relu_init
        for index in range(4):
            conv = Conv(self.channels, dtype=dtype, kernel_init=init, name=f"conv{index}")
            x = jax.nn.relu(conv(x))
        x = jax.nn.relu(SplitCells(self.channels, dtype=dtype, name="upsample")(x))
        logits = Dense(self.num_classes, dtype=dtype, kernel_init=init, name="project")(x).astype(jnp.float32)
        count, height, width = logits.shape[:3]
        return logits.transpose(0, 1, 3, 2, 4, 5).reshape(count, 2 * height, 2 * width, self.num_classes)
