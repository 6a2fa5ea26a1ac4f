"""From patches to their assignment to clusters: convolution, MLP and linear clustering (section 3.2); removed clusters."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from paca_jax import ops
from paca_jax.errors import UserError, nearest
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
    return ops.assign_patches(logits.reshape(logits.shape[0], -1, logits.shape[-1]))


def make_clustering(config: PaCaConfig, stage: int, dtype: DTypeLike) -> nn.Module:
    """Returns the clustering module of a stage, named after its kind; it takes patches and what surrounds their attention."""
    clusters = config.clusters[stage]
    if config.clustering == "conv":
        return ConvClustering(clusters, config.clustering_kernel_sizes[stage], name="conv_clustering")
    if config.clustering == "mlp":
        hidden = int(config.embed_dims[stage] * config.mlp_ratios[stage])
        return MlpClustering(clusters, hidden, dtype, name="mlp_clustering")
    return LinearClustering(clusters, dtype, name="linear_clustering")


@flax.struct.dataclass
class Removal:
    """Clusters of one assignment that are taken away from every block that uses it.

    A removed cluster is masked: no patch attends to it, and the attention weights of the others sum to one. The model answers
    as one whose clustering has no such output channel. Without any cluster, attention gathers zeros.

    Attributes:
        kept: whether each cluster stays, for all images (M,) or for each one (B, M).
        by_mean: whether a removed cluster becomes the mean of the others instead, to which patches attend as before.
    """

    kept: Bool[Array | np.ndarray, "M"] | Bool[Array | np.ndarray, "B M"]
    by_mean: bool = flax.struct.field(pytree_node=False, default=False)

    def applied(self, assignment: Float[Array, "B M N"]) -> tuple[Float[Array, "B M N"], Bool[Array, "B M"] | None]:
        """Returns the assignment that remains, and the clusters that patches attend to; None for all."""
        kept = jnp.broadcast_to(self.kept, assignment.shape[:2])
        return (ops.average_clusters(assignment, kept), None) if self.by_mean else (assignment, kept)


Removals = Mapping[str, Removal]


def check_removals(config: PaCaConfig, removals: Removals, images: Any) -> None:
    """Checks that clusters to remove exist, for a batch of so many images, a number or a symbol.

    Raises:
        UserError: if they are no dict, a block computes no assignment, or a value is no removal of its clusters.
    """
    if not isinstance(removals, Mapping):
        example = "{'stage1/block0': paca_jax.models.Removal(kept)}"
        raise UserError(f"Expected removals as a dict, got {type(removals).__name__}. Pass one such as {example}.")
    counts = config.assignments
    for name, removal in removals.items():
        if name not in counts:
            known = nearest(str(name), list(counts)) if counts else "the model has none"
            raise UserError(f"Expected removals of a block that computes an assignment, got {name!r}; {known}. Choose one.")
        if not isinstance(removal, Removal):
            raise UserError(f"Expected a Removal for {name}, got {type(removal).__name__}. Pass paca_jax.models.Removal(kept).")
        kept, wanted = removal.kept, f"booleans of shape ({counts[name]},) or ({images}, {counts[name]})"
        if not isinstance(kept, jax.Array | np.ndarray):
            raise UserError(f"Expected kept of {name} to be {wanted}, got {type(kept).__name__}. Pass an array.")
        if kept.dtype != bool or kept.shape not in ((counts[name],), (images, counts[name])):
            raise UserError(f"Expected kept of {name} to be {wanted}, got {kept.dtype} of shape {kept.shape}. Correct it.")
