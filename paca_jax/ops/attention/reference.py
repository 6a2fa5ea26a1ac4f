"""Patch-to-cluster attention (PaCa-ViT, section 3.1) as functions of arrays.

Axes: B images, N patches, M clusters, T attended tokens (clusters, or patches in plain attention), H heads, D channels a head.
Softmaxes reduce in float32 whatever the compute type.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from paca_jax.ops.norm.api import NormWeights


class AttentionWeights(NamedTuple):
    """The parameters of an attention layer: four dense layers of as many channels, heads one after the other."""

    query: Float[Array, "C C"]
    query_bias: Float[Array, "C"]
    key: Float[Array, "C C"]
    key_bias: Float[Array, "C"]
    value: Float[Array, "C C"]
    value_bias: Float[Array, "C"]
    out: Float[Array, "C C"]
    out_bias: Float[Array, "C"]


class ClusterWeights(NamedTuple):
    """The parameters of clusters: what is added to each, and those of their LayerNorm; None where there is none."""

    position: Float[Array, "M C"] | None = None
    norm: NormWeights | None = None

    def place(self, clusters: Float[Array, "B M C"]) -> Float[Array, "B M C"]:
        """Returns clusters with their positions added."""
        return clusters if self.position is None else clusters + self.position.astype(clusters.dtype)


def assign_patches(logits: Float[Array, "B N M"]) -> Float[Array, "B M N"]:
    """Returns the assignment of patches to clusters: a softmax over the N patches, so that each cluster sums to one."""
    weights = jax.nn.softmax(logits.astype(jnp.float32), axis=1).astype(logits.dtype)
    return jnp.swapaxes(weights, 1, 2)


def gather_clusters(assignment: Float[Array, "B M N"], patches: Float[Array, "B N C"]) -> Float[Array, "B M C"]:
    """Returns the clusters: for each, the mean of the patches weighted by its assignment."""
    return jnp.einsum("bmn,bnc->bmc", assignment, patches)


def attention_weights(query: Float[Array, "B N H D"], key: Float[Array, "B T H D"]) -> Float[Array, "B H N T"]:
    """Returns softmax(query . key / sqrt(D)) over the T attended tokens."""
    scores = jnp.einsum("bnhd,bthd->bhnt", query * query.shape[-1] ** -0.5, key)
    return jax.nn.softmax(scores.astype(jnp.float32), axis=-1).astype(query.dtype)


def attend(weights: Float[Array, "B H N T"], value: Float[Array, "B T H D"]) -> Float[Array, "B N H D"]:
    """Returns each query's mean of the values under its weights."""
    return jnp.einsum("bhnt,bthd->bnhd", weights, value)
