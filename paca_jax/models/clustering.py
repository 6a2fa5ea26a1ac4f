"""From patches to their assignment to clusters: convolution, MLP and linear clustering (section 3.2)."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from paca_jax import ops
from paca_jax.models.config import PaCaConfig
from paca_jax.models.layers import Dense, DenseParameters, DepthwiseParameters, PointwiseKernel, conv_init


class ConvClustering(nn.Module):
    """Depthwise convolution, GELU, 1x1 convolution, GELU, 1x1 convolution without bias."""

    clusters: int
    kernel_size: int

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], residual: ops.Residual) -> Float[Array, "B M N"]:
        """Returns the assignment of patches to clusters."""
        channels = x.shape[-1]
        weights = ops.ClusteringWeights(
            *DepthwiseParameters(self.kernel_size, name="depthwise")(channels),
            *DenseParameters(channels, conv_init, name="pointwise")(channels),
            PointwiseKernel(self.clusters, name="project")(channels),
        )
        return ops.conv_clustering(x, residual.norm, weights)


class MlpClustering(nn.Module):
    """Two dense layers with a GELU between."""

    clusters: int
    hidden: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], residual: ops.Residual) -> Float[Array, "B M N"]:
        """Returns the assignment of patches to clusters."""
        x = Dense(self.hidden, dtype=self.dtype, name="hidden")(residual.before(x))
        x = ops.gelu(x)
        return _assign(Dense(self.clusters, dtype=self.dtype, name="project")(x))


class LinearClustering(nn.Module):
    """One dense layer without bias."""

    clusters: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], residual: ops.Residual) -> Float[Array, "B M N"]:
        """Returns the assignment of patches to clusters."""
        return _assign(Dense(self.clusters, use_bias=False, dtype=self.dtype, name="project")(residual.before(x)))


def _assign(logits: Float[Array, "B H W M"]) -> Float[Array, "B M N"]:
    return ops.assign_patches(logits.reshape(len(logits), -1, logits.shape[-1]))


def make_clustering(config: PaCaConfig, stage: int, dtype: DTypeLike) -> nn.Module:
    """Returns the clustering module of a stage, named after its kind; it takes patches and what surrounds their attention."""
    clusters = config.clusters[stage]
    if config.clustering == "conv":
        return ConvClustering(clusters, config.clustering_kernel_sizes[stage], name="conv_clustering")
    if config.clustering == "mlp":
        hidden = int(config.embed_dims[stage] * config.mlp_ratios[stage])
        return MlpClustering(clusters, hidden, dtype, name="mlp_clustering")
    return LinearClustering(clusters, dtype, name="linear_clustering")
