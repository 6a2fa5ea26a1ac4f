"""A PaCa block: patch-to-cluster attention and an MLP with a depthwise convolution, each with its residual."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from paca_jax import ops
from paca_jax.models.clustering import make_clustering
from paca_jax.models.config import PaCaConfig
from paca_jax.models.layers import (
    Dense,
    DenseParameters,
    DepthwiseParameters,
    drop_path,
    layer_norm,
    linear_init,
)
from paca_jax.sharding import constrain

Assignment = Float[Array, "B M N"]


class Attention(nn.Module):
    """Attention whose queries are patches and whose keys and values are clusters (or patches, where a stage has none)."""

    config: PaCaConfig
    stage: int
    computes_assignment: bool
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W C"], assignment: Assignment | None, train: bool
    ) -> tuple[Float[Array, "B H W C"], Assignment | None]:
        """Returns the attended patches, and the assignment that this block used for its clusters."""
        config, channels = self.config, x.shape[-1]
        patches = x.reshape(x.shape[0], -1, channels)
        attended = patches
        if self.computes_assignment:
            logits = make_clustering(config, self.stage, self.dtype)(x)
            assignment = ops.assign_patches(logits.reshape(*patches.shape[:2], -1))
        if assignment is not None:
            attended = self._clusters(assignment, patches)
        layers = [DenseParameters(channels, name=name)(channels) for name in ("query", "key", "value", "out")]
        weights = ops.AttentionWeights(*(parameter for layer in layers for parameter in layer))
        dropout = nn.Dropout(config.attention_dropout_rate, deterministic=not train)
        drop = dropout if train and config.attention_dropout_rate > 0 else None
        out = ops.cluster_attention(patches, attended, weights, config.num_heads[self.stage], drop)
        out = nn.Dropout(config.dropout_rate)(out, deterministic=not train)
        return out.reshape(x.shape), assignment

    def _clusters(self, assignment: Assignment, patches: Float[Array, "B N C"]) -> Float[Array, "B M C"]:
        clusters = ops.gather_clusters(assignment, patches)
        if self.config.cluster_position_embedding:
            position = self.param("cluster_position_embedding", linear_init, clusters.shape[1:])
            clusters = clusters + position.astype(self.dtype)
        return layer_norm(self.dtype, "cluster_norm")(clusters) if self.config.cluster_norm else clusters


class Mlp(nn.Module):
    """Dense, depthwise 3x3 convolution plus its own input, GELU, dense."""

    config: PaCaConfig
    hidden: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B H W C"]:
        """Returns the mixed channels."""
        config, channels = self.config, x.shape[-1]
        dropout = nn.Dropout(config.dropout_rate, deterministic=not train)
        if config.mlp_depthwise:
            weights = ops.MlpWeights(
                *DenseParameters(self.hidden, name="fc1")(channels),
                *DepthwiseParameters(3, name="depthwise")(self.hidden),
                *DenseParameters(channels, name="fc2")(self.hidden),
            )
            drop = dropout if train and config.dropout_rate > 0 else None
            x = ops.depthwise_mlp(x.astype(self.dtype), weights, config.mlp_shortcut, drop)
        else:
            x = Dense(self.hidden, dtype=self.dtype, name="fc1")(x)
            x = constrain(x, "batch", None, None, "mlp")
            x = dropout(ops.gelu(x))
            x = Dense(channels, dtype=self.dtype, name="fc2")(x)
        return nn.Dropout(config.dropout_rate)(x, deterministic=not train)


class Block(nn.Module):
    """x + attention(x), then x + mlp(x); norms before, after or on both sides of each layer."""

    config: PaCaConfig
    stage: int
    index: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W C"], assignment: Assignment | None, train: bool
    ) -> tuple[Float[Array, "B H W C"], Assignment | None]:
        """Returns the patches, and the assignment for the blocks that follow."""
        config = self.config
        rate = config.drop_path_rates()[self.stage][self.index]
        if config.position_embedding and self.index == 0:
            x = x + self._position_embedding(x.shape)
            x = nn.Dropout(config.dropout_rate)(x, deterministic=not train)

        attention = Attention(
            config, self.stage, config.computes_assignment(self.stage, self.index), self.dtype, name="attention"
        )
        branch, assignment = attention(self._norm_before("attention", x), assignment, train)
        x = x + drop_path(rate, self._scale("attention", self._norm_after("attention", branch)), train)

        mlp = Mlp(config, int(x.shape[-1] * config.mlp_ratios[self.stage]), self.dtype, name="mlp")
        branch = mlp(self._norm_before("mlp", x), train)
        x = x + drop_path(rate, self._scale("mlp", self._norm_after("mlp", branch)), train)
        return x, assignment

    def _norm_before(self, layer: str, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        wanted = self.config.sub_norm or not self.config.post_norm
        return layer_norm(self.dtype, f"{layer}_norm")(x) if wanted else x

    def _norm_after(self, layer: str, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        wanted = self.config.sub_norm or self.config.post_norm
        return layer_norm(self.dtype, f"{layer}_post_norm")(x) if wanted else x

    def _scale(self, layer: str, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        if self.config.layer_scale is None:
            return x
        scale = self.param(f"{layer}_scale", nn.initializers.constant(self.config.layer_scale), (x.shape[-1],))
        return x * scale.astype(self.dtype)

    def _position_embedding(self, shape: tuple[int, ...]) -> Float[Array, "1 H W C"]:
        side = self.config.image_size // 4 // 2**self.stage
        table = self.param("position_embedding", linear_init, (side * side, shape[-1]))
        grid = ops.resize_bilinear(table.reshape(1, side, side, -1), (shape[1], shape[2]), align_corners=True)
        return grid.astype(self.dtype)
