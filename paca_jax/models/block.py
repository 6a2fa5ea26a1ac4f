"""A PaCa block: patch-to-cluster attention and an MLP with a depthwise convolution, each with its residual.

    x = x + drop_path_scale * attention(norm(x))
    x = x + drop_path_scale * mlp(norm(x))

Here are the parameters and the options; `ops/attention/reference.py` and `ops/mlp/reference.py` hold the two formulas.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from paca_jax import ops
from paca_jax.models.clustering import Removal, make_clustering
from paca_jax.models.config import PaCaConfig
from paca_jax.models.layers import (
    Dense,
    DenseParameters,
    DepthwiseParameters,
    NormParameters,
    drop_path_scale,
    linear_init,
)
from paca_jax.sharding import constrain

Assignment = Float[Array, "B M N"]
Weights = Float[Array, "B heads N T"]


class Attention(nn.Module):
    """Attention with patches as queries and clusters (patches in a stage without clusters) as keys and values."""

    config: PaCaConfig
    stage: int
    computes_assignment: bool
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B H W C"],
        residual: ops.Residual,
        assignment: Assignment | None,
        removal: Removal | None,
        train: bool,
        gives_weights: bool,
    ) -> tuple[Float[Array, "B H W C"], Assignment | None, Weights | None]:
        """Returns x plus its attention, the assignment of this block's clusters, and its attention weights if asked."""
        config, channels = self.config, x.shape[-1]
        patches = x.reshape(x.shape[0], -1, channels)
        if self.computes_assignment:
            assignment = make_clustering(config, self.stage, self.dtype)(x, residual)
        clusters = ops.ClusterWeights() if assignment is None else self._clusters(assignment.shape[1], channels)
        layers = [DenseParameters(channels, name=name)(channels) for name in ("query", "key", "value", "out")]
        weights = ops.AttentionWeights(*(parameter for layer in layers for parameter in layer))
        dropout = nn.Dropout(config.attention_dropout_rate, deterministic=not train)
        drop = dropout if train and config.attention_dropout_rate > 0 else None
        used, kept = (assignment, None) if assignment is None or removal is None else removal.applied(assignment)
        arguments = (patches, used, clusters, weights, config.num_heads[self.stage], residual)
        y = ops.residual_attention(*arguments, drop, kept=kept).reshape(x.shape)
        return y, assignment, ops.patch_attention(*arguments, kept) if gives_weights else None

    def _clusters(self, clusters: int, channels: int) -> ops.ClusterWeights:
        config, position = self.config, None
        if config.cluster_position_embedding:
            position = self.param("cluster_position_embedding", linear_init, (clusters, channels))
        norm = NormParameters(name="cluster_norm")(channels) if config.cluster_norm else None
        return ops.ClusterWeights(position, norm)


class Mlp(nn.Module):
    """Dense, depthwise 3x3 convolution plus its input, GELU, dense."""

    config: PaCaConfig
    hidden: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], residual: ops.Residual, train: bool) -> Float[Array, "B H W C"]:
        """Returns x plus its MLP."""
        config, channels = self.config, x.shape[-1]
        dropout = nn.Dropout(config.dropout_rate, deterministic=not train)
        if config.mlp_depthwise:
            weights = ops.MlpWeights(
                *DenseParameters(self.hidden, name="fc1")(channels),
                *DepthwiseParameters(3, name="depthwise")(self.hidden),
                *DenseParameters(channels, name="fc2")(self.hidden),
            )
            drop = dropout if train and config.dropout_rate > 0 else None
            return ops.residual_mlp(x, weights, config.mlp_shortcut, residual, drop)
        hidden = Dense(self.hidden, dtype=self.dtype, name="fc1")(residual.before(x))
        hidden = dropout(ops.gelu(constrain(hidden, "batch", None, None, "mlp")))
        return ops.materialize(x + residual.scaled(Dense(channels, dtype=self.dtype, name="fc2")(hidden)))


class Block(nn.Module):
    """Attention and MLP, with norms before, after or on both sides of each."""

    config: PaCaConfig
    stage: int
    index: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B H W C"],
        assignment: Assignment | None,
        removal: Removal | None,
        train: bool,
        gives_weights: bool,
    ) -> tuple[Float[Array, "B H W C"], Assignment | None, Weights | None]:
        """Returns the patches, the assignment for the blocks that follow, and the attention weights if asked."""
        config = self.config
        if config.position_embedding and self.index == 0:
            x = x + self._position_embedding(x.shape)
            x = nn.Dropout(config.dropout_rate)(x, deterministic=not train)

        computes_assignment = config.computes_assignment(self.stage, self.index)
        attention = Attention(config, self.stage, computes_assignment, self.dtype, name="attention")
        residual = self._residual("attention", x, train)
        x, assignment, weights = attention(x, residual, assignment, removal, train, gives_weights)
        mlp = Mlp(config, int(x.shape[-1] * config.mlp_ratios[self.stage]), self.dtype, name="mlp")
        return mlp(x, self._residual("mlp", x, train), train), assignment, weights

    def _residual(self, layer: str, x: Float[Array, "B H W C"], train: bool) -> ops.Residual:
        config, channels = self.config, x.shape[-1]
        rate = config.drop_path_rates()[self.stage][self.index]
        after: list[Callable[[Array], Array]] = []
        if train and config.dropout_rate > 0:
            after.append(nn.Dropout(config.dropout_rate, deterministic=False))
        if config.sub_norm or config.post_norm:
            norm = NormParameters(name=f"{layer}_post_norm")(channels)
            after.append(lambda branch: ops.layer_norm(branch, norm))
        if config.layer_scale is not None:
            scale = self.param(f"{layer}_scale", nn.initializers.constant(config.layer_scale), (channels,))
            after.append(lambda branch: branch * scale.astype(self.dtype))
        return ops.Residual(
            norm=NormParameters(name=f"{layer}_norm")(channels) if config.sub_norm or not config.post_norm else None,
            drop_path_scale=drop_path_scale(rate, x.shape[0]) if train and rate > 0 else None,
            after=tuple(after),
        )

    def _position_embedding(self, shape: tuple[Any, ...]) -> Float[Array, "1 H W C"]:
        side = self.config.image_size // 4 // 2**self.stage
        table = self.param("position_embedding", linear_init, (side * side, shape[-1]))
        grid = ops.resize_bilinear(table.reshape(1, side, side, -1), (shape[1], shape[2]), align_corners=True)
        return grid.astype(self.dtype)
