"""The PaCa segmentation head (section 3.4), whose clusters are the classes and are supervised as such."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from paca_jax import ops
from paca_jax.models.heads.config import SegmentorConfig
from paca_jax.models.heads.layers import Classifier, ConvNorm, resize_like, torch_init
from paca_jax.models.layers import BatchNorm, Dense, PointwiseConv


class PaCaHeadOutputs(NamedTuple):
    """The outputs of the head at stride 4.

    Attributes:
        logits: class logits in float32.
        clustering: logits of the clustering in float32.
        clusters: the assignment, one cluster per class.
        weights: the attention weights of patches over the clusters.
    """

    logits: Float[Array, "B H W K"]
    clustering: Float[Array, "B H W K"]
    clusters: Float[Array, "B K H W"]
    weights: Float[Array, "B H W K"]


class ClassTokens(nn.Module):
    """The keys or values from class tokens: a dense layer, BatchNorm over images and classes, ReLU."""

    channels: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, tokens: Float[Array, "B K C"], train: bool) -> Float[Array, "B K D"]:
        """Returns one vector per class."""
        x = Dense(self.channels, dtype=self.dtype, kernel_init=torch_init, name="dense")(tokens)
        return jax.nn.relu(BatchNorm(self.dtype, name="norm")(x, train))


class PaCaHead(nn.Module):
    """Merges the maps of the stages at stride 4, gathers one token per class, and lets every patch attend to the tokens.

    The attention has one head and, as in the official code, no 1 / sqrt(channels).
    """

    config: SegmentorConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, features: list[Float[Array, "B _Hi _Wi _Ci"]], train: bool) -> PaCaHeadOutputs:
        """Returns the outputs of the head for the maps of the four stages."""
        config, channels, dtype = self.config, self.config.head_channels, self.dtype
        maps = [
            resize_like(ConvNorm(channels, dtype=dtype, name=f"project{index}")(x, train), features[0])
            for index, x in enumerate(features)
        ]
        merged = jnp.concatenate(maps, axis=-1)
        query = ConvNorm(channels, dtype=dtype, name="query")(merged, train)
        hidden = ConvNorm(channels, dtype=dtype, name="cluster_hidden")(merged, train)
        clustering = PointwiseConv(config.num_classes, dtype=dtype, kernel_init=torch_init, name="cluster_project")(hidden)

        batch, height, width = merged.shape[:3]
        assignment = ops.assign_patches(clustering.reshape(batch, height * width, -1))
        tokens = ops.gather_clusters(assignment, merged.reshape(batch, height * width, -1))
        key = ClassTokens(channels, dtype, name="key")(tokens, train)
        value = ClassTokens(channels, dtype, name="value")(tokens, train)
        scores = jnp.einsum("bhwd,bkd->bhwk", query, key)
        weights = jax.nn.softmax(scores.astype(jnp.float32), axis=-1).astype(dtype)
        attended = jnp.einsum("bhwk,bkd->bhwd", weights, value)

        out = ConvNorm(channels, dtype=dtype, name="out")(attended, train)
        logits = Classifier(config.num_classes, config.head_dropout_rate, dtype, name="classifier")(out, train)
        clusters = assignment.reshape(batch, -1, height, width)
        return PaCaHeadOutputs(logits, clustering.astype(jnp.float32), clusters, weights)
