"""The layers of the segmentation heads."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from paca_jax import ops
from paca_jax.models.layers import BatchNorm, Conv, PointwiseConv

# torch's default for linear layers and convolutions: uniform in +-1 / sqrt(fan-in).
torch_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
classifier_init = nn.initializers.normal(0.01)


class ConvNorm(nn.Module):
    """A convolution without bias that keeps the size, then BatchNorm and ReLU."""

    channels: int
    kernel_size: int = 1
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B H W D"]:
        """Returns the new map."""
        if self.kernel_size == 1:
            x = PointwiseConv(self.channels, use_bias=False, dtype=self.dtype, name="conv")(x)
        else:
            x = Conv(self.channels, self.kernel_size, use_bias=False, dtype=self.dtype, name="conv")(x)
        return jax.nn.relu(BatchNorm(self.dtype, name="norm")(x, train))


class Classifier(nn.Module):
    """Dropout of whole channels, then a 1x1 convolution to class logits."""

    num_classes: int
    dropout_rate: float
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B H W K"]:
        """Returns the logits in float32."""
        x = nn.Dropout(self.dropout_rate, broadcast_dims=(1, 2))(x, deterministic=not train)
        x = PointwiseConv(self.num_classes, dtype=self.dtype, kernel_init=classifier_init, name="project")(x)
        return x.astype(jnp.float32)


def resize_like(x: Float[Array, "B H W C"], like: Float[Array, "B H2 W2 D"]) -> Float[Array, "B H2 W2 C"]:
    """Resizes bilinearly to the height and width of another map."""
    return ops.resize_bilinear(x, (like.shape[1], like.shape[2]))
