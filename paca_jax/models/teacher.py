"""The external clustering teacher (section 3.3): a ConvMixer whose top-down path computes every stage's assignment."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from paca_jax import ops
from paca_jax.models.config import PaCaConfig, TeacherConfig
from paca_jax.models.layers import BatchNorm, Conv, DepthwiseConv, PointwiseConv


class ConvMixerBlock(nn.Module):
    """x + BN(GELU(depthwise(x))), then BN(GELU(pointwise(x)))."""

    kernel_size: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B H W C"]:
        """Returns the mixed maps."""
        mixed = DepthwiseConv(self.kernel_size, self.dtype, name="depthwise")(x)
        x = x + BatchNorm(self.dtype, name="norm1")(ops.gelu(mixed), train)
        x = PointwiseConv(x.shape[-1], dtype=self.dtype, name="pointwise")(x)
        return BatchNorm(self.dtype, name="norm2")(ops.gelu(x), train)


class BlurTransition(nn.Module):
    """3x3 binomial blur, convolution of stride 2, GELU, BN."""

    channels: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B H2 W2 D"]:
        """Returns the maps of the next stage."""
        x = Conv(self.channels, stride=2, dtype=self.dtype, name="conv")(ops.binomial_blur(x))
        return BatchNorm(self.dtype, name="norm")(ops.gelu(x), train)


class Lateral(nn.Module):
    """1x1 convolution, GELU, BN: maps the channels of a coarser map to those of the finer one."""

    channels: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B H W D"]:
        """Returns the map with its new channels."""
        x = PointwiseConv(self.channels, dtype=self.dtype, name="conv")(x)
        return BatchNorm(self.dtype, name="norm")(ops.gelu(x), train)


class Teacher(nn.Module):
    """Computes one assignment per stage, used by all of its blocks."""

    config: PaCaConfig
    teacher: TeacherConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, patches: Float[Array, "B H W C"], train: bool
    ) -> tuple[list[Float[Array, "B _M _N"] | None], list[Float[Array, "B _Hi _Wi _Ci"]]]:
        """Returns the assignment of each stage (None without clusters) and its map before the top-down path."""
        config, kernel_size = self.config, self.teacher.kernel_size
        maps = []
        x = patches
        for stage, depth in enumerate(self.teacher.depths):
            if stage > 0:
                x = BlurTransition(config.embed_dims[stage], self.dtype, name=f"transition{stage}")(x, train)
            for index in range(depth):
                x = ConvMixerBlock(kernel_size, self.dtype, name=f"stage{stage + 1}_block{index}")(x, train)
            maps.append(x)

        merged = [maps[-1]]
        for stage in range(config.num_stages - 2, -1, -1):
            finer = maps[stage]
            coarser = ops.resize_bilinear(merged[0], (finer.shape[1], finer.shape[2]))
            coarser = Lateral(config.embed_dims[stage], self.dtype, name=f"lateral{stage + 1}")(coarser, train)
            merged.insert(0, ConvMixerBlock(kernel_size, self.dtype, name=f"topdown{stage + 1}")(finer + coarser, train))

        return [self._assignment(stage, x) for stage, x in enumerate(merged)], maps

    def _assignment(self, stage: int, x: Float[Array, "B H W C"]) -> Float[Array, "B M N"] | None:
        clusters = self.config.clusters[stage]
        if clusters == 0:
            return None
        logits = PointwiseConv(clusters, dtype=self.dtype, name=f"assign{stage + 1}")(x)
        return ops.assign_patches(logits.reshape(x.shape[0], -1, clusters))
