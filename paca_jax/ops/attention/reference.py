"""Patch-to-cluster attention and its residual (PaCa-ViT, section 3.1) in plain JAX.

    X' = norm(X)                                    patches
    Z  = norm(A X' + position)                      clusters: means of patches weighted by the assignment A (section 3.2)
    Q, K, V = X' W_q, Z W_k, Z W_v                  in plain attention K, V = X' W_k, X' W_v
    Y  = X + softmax(Q K^T / sqrt(D)) V W_out       head by head, times the drop-path scale

Axes: B images, N patches, M clusters, T attended tokens (clusters, or patches in plain attention), H heads, D channels of a
head. Softmaxes reduce in float32 in every compute type.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from paca_jax.ops.cast.api import cast_weights
from paca_jax.ops.implementation import Implementation
from paca_jax.ops.nn.dense import dense
from paca_jax.ops.nn.materialize import materialize
from paca_jax.ops.norm.api import NormWeights, layer_norm
from paca_jax.ops.residual import Residual
from paca_jax.sharding import constrain

Drop = Callable[[Float[Array, "B H N T"]], Float[Array, "B H N T"]]
Attend = Callable[[Float[Array, "B N H D"], Float[Array, "B T H D"], Float[Array, "B T H D"]], Float[Array, "B N H D"]]


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
    """The parameters of clusters: a vector that is added to each, and their LayerNorm; None for none."""

    position: Float[Array, "M C"] | None = None
    norm: NormWeights | None = None

    def place(self, clusters: Float[Array, "B M C"]) -> Float[Array, "B M C"]:
        """Returns clusters with their positions added."""
        return clusters if self.position is None else clusters + self.position.astype(clusters.dtype)


def residual_attention(
    x: Float[Array, "B N C"],
    assignment: Float[Array, "B M N"] | None,
    clusters: ClusterWeights,
    weights: AttentionWeights,
    num_heads: int,
    residual: Residual,
    attend: Attend,
    implementation: Implementation | None,
) -> Float[Array, "B N C"]:
    """Returns x + drop_path_scale * attention(norm(x)); the arguments are those of `ops.residual_attention`.

    `attend` returns each query's mean of the values under its attention weights.
    """
    patches, tokens = attended_tokens(x, assignment, clusters, residual, implementation)
    weights = cast_weights(weights, x.dtype, implementation)
    query = project_heads(patches, weights.query, weights.query_bias, num_heads, implementation)
    key = project_heads(tokens, weights.key, weights.key_bias, num_heads, implementation)
    value = project_heads(tokens, weights.value, weights.value_bias, num_heads, implementation)
    attended = attend(query, key, value).reshape(x.shape)
    return materialize(x + residual.scaled(dense(attended, weights.out, weights.out_bias, implementation)), implementation)


def patch_attention(
    x: Float[Array, "B N C"],
    assignment: Float[Array, "B M N"] | None,
    clusters: ClusterWeights,
    weights: AttentionWeights,
    num_heads: int,
    residual: Residual,
    kept: Bool[Array, "B M"] | None = None,
) -> Float[Array, "B H N T"]:
    """Returns the attention weights that `ops.residual_attention` has for the same arguments, by the plain formula.

    No fused implementation gives them: they are what it keeps on the chip. Each patch's weights sum to one over the clusters,
    or over the patches in plain attention.
    """
    patches, tokens = attended_tokens(x, assignment, clusters, residual, None)
    layers = weights.query, weights.query_bias, weights.key, weights.key_bias
    query, query_bias, key, key_bias = cast_weights(layers, x.dtype)
    queries = project_heads(patches, query, query_bias, num_heads, None)
    return attention_weights(queries, project_heads(tokens, key, key_bias, num_heads, None), kept)


def attended_tokens(
    x: Float[Array, "B N C"],
    assignment: Float[Array, "B M N"] | None,
    clusters: ClusterWeights,
    residual: Residual,
    implementation: Implementation | None,
) -> tuple[Float[Array, "B N C"], Float[Array, "B T C"]]:
    """Returns the normalized patches, and the tokens that they attend to: clusters, or themselves in plain attention."""
    patches = residual.before(x, implementation)
    if assignment is None:
        return patches, patches
    tokens = clusters.place(gather_clusters(assignment, patches))
    return patches, tokens if clusters.norm is None else layer_norm(tokens, clusters.norm, implementation)


def project_heads(
    x: Float[Array, "B T C"],
    kernel: Float[Array, "C C"],
    bias: Float[Array, "C"],
    num_heads: int,
    implementation: Implementation | None,
) -> Float[Array, "B T H D"]:
    """Returns the queries, keys or values of the tokens."""
    projected = dense(x, kernel, bias, implementation)
    return constrain(projected.reshape(*x.shape[:2], num_heads, -1), "batch", None, "heads", None)


def average_clusters(assignment: Float[Array, "B M N"], kept: Bool[Array, "B M"]) -> Float[Array, "B M N"]:
    """Returns an assignment in which clusters that are not kept are the mean of those that are (0 if none is)."""
    factors = kept / jnp.maximum(jnp.sum(kept, axis=-1, keepdims=True), 1)
    mean = jnp.einsum("bm,bmn->bn", factors, assignment.astype(jnp.float32), precision="highest")
    return jnp.where(kept[..., None], assignment, mean[:, None].astype(assignment.dtype))


def gather_clusters(assignment: Float[Array, "B M N"], patches: Float[Array, "B N C"]) -> Float[Array, "B M C"]:
    """Returns the clusters: for each, the mean of the patches weighted by its assignment."""
    return jnp.einsum("bmn,bnc->bmc", assignment, patches)


def attention_weights(
    query: Float[Array, "B N H D"], key: Float[Array, "B T H D"], kept: Bool[Array, "B T"] | None = None
) -> Float[Array, "B H N T"]:
    """Returns softmax(query . key / sqrt(D)) over the T attended tokens, or over those that are kept; all 0 if none is."""
    scores = jnp.einsum("bnhd,bthd->bhnt", query * query.shape[-1] ** -0.5, key)
    where = None if kept is None else kept[:, None, None]
    return jax.nn.softmax(scores.astype(jnp.float32), axis=-1, where=where).astype(query.dtype)


def attend(weights: Float[Array, "B H N T"], value: Float[Array, "B T H D"]) -> Float[Array, "B N H D"]:
    """Returns each query's mean of the values under its attention weights."""
    return jnp.einsum("bhnt,bthd->bnhd", weights, value)


def attend_plainly(
    query: Float[Array, "B N H D"],
    key: Float[Array, "B T H D"],
    value: Float[Array, "B T H D"],
    drop: Drop | None,
    kept: Bool[Array, "B T"] | None,
) -> Float[Array, "B N H D"]:
    """Returns each query's mean of the kept values under its attention weights, which `drop` changes."""
    weights = attention_weights(query, key, kept)
    return attend(weights if drop is None else drop(weights), value)
