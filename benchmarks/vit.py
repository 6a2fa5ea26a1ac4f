"""ViT-S/16 (Dosovitskiy et al., ICLR 2021; DeiT's small size), as a baseline."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float


class Block(nn.Module):
    """Self-attention and an MLP, each with pre-normalization and a residual connection."""

    heads: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B N C"]) -> Float[Array, "B N C"]:
        """Returns the mixed tokens."""
        channels, options = x.shape[-1], {"dtype": self.dtype}
        normed = nn.LayerNorm(name="attention_norm", **options)(x)
        query, key, value = (
            nn.DenseGeneral((self.heads, channels // self.heads), name=name, **options)(normed)
            for name in ("query", "key", "value")
        )
        with jax.named_scope("attention"):
            attended = jax.nn.dot_product_attention(query, key, value)
        x = x + nn.DenseGeneral(channels, axis=(-2, -1), name="out", **options)(attended)
        hidden = nn.Dense(4 * channels, name="fc1", **options)(nn.LayerNorm(name="mlp_norm", **options)(x))
        return x + nn.Dense(channels, name="fc2", **options)(jax.nn.gelu(hidden, approximate=False))


class ViT(nn.Module):
    """A plain vision transformer with a class token."""

    patch: int = 16
    channels: int = 384
    depth: int = 12
    heads: int = 6
    classes: int = 1000
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: Float[Array, "B H W 3"], **_: Any) -> Float[Array, "B K"]:
        """Returns the class logits."""
        side = (self.patch, self.patch)
        x = nn.Conv(self.channels, side, strides=side, dtype=self.dtype, name="stem")(images.astype(self.dtype))
        x = x.reshape(len(x), -1, self.channels)
        token = self.param("token", nn.initializers.zeros_init(), (1, 1, self.channels)).astype(self.dtype)
        x = jnp.concatenate([jnp.broadcast_to(token, (len(x), 1, self.channels)), x], axis=1)
        x = x + self.param("position", nn.initializers.normal(0.02), x.shape[1:]).astype(self.dtype)
        for index in range(self.depth):
            x = Block(self.heads, self.dtype, name=f"block{index}")(x)
        x = nn.LayerNorm(dtype=self.dtype, name="norm")(x)
        return nn.Dense(self.classes, dtype=self.dtype, name="head")(x[:, 0]).astype(jnp.float32)
