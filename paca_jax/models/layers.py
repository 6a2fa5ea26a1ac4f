"""The layers of the backbone, the teacher and the heads."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from paca_jax import ops

BATCH_NORM_EPSILON = 1e-5
BATCH_NORM_MOMENTUM = 0.1

linear_init = nn.initializers.normal(0.02)


def conv_init(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
    """Draws a convolution kernel (..., in, out), depthwise or not, from a normal with variance 2 / fan-out.

    A channel of a depthwise kernel (K, K, 1, C) feeds K * K outputs: the fan-out is divided by the groups, as in torch.
    """
    *window, channels_in, channels_out = shape
    fan_out = math.prod(window) * (1 if window and channels_in == 1 else channels_out)
    return math.sqrt(2 / fan_out) * jax.random.normal(key, shape, dtype)


def drop_path_scale(rate: float, images: int) -> Float[Array, "B"]:
    """Draws a factor of a residual branch for each image (stochastic depth); call it inside a compact module."""
    return nn.Dropout(rate, deterministic=False)(jnp.ones(images))


class Dense(nn.Module):
    """A dense layer over channels."""

    features: int
    use_bias: bool = True
    dtype: DTypeLike = jnp.float32
    kernel_init: nn.initializers.Initializer = linear_init

    @nn.compact
    def __call__(self, x: Float[Array, "*B C"]) -> Float[Array, "*B D"]:
        """Returns the new channels."""
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,)) if self.use_bias else None
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        return ops.dense(x, kernel, bias)


class PointwiseConv(Dense):
    """A 1x1 convolution: a dense layer over channels, initialized like a convolution."""

    kernel_init: nn.initializers.Initializer = conv_init


class DenseParameters(nn.Module):
    """The parameters of a `Dense` of the same name, for a function that computes several layers at once."""

    features: int
    kernel_init: nn.initializers.Initializer = linear_init

    @nn.compact
    def __call__(self, channels: int) -> tuple[Float[Array, "C D"], Float[Array, "D"]]:
        """Returns the kernel and the bias of a layer with this number of input channels."""
        kernel = self.param("kernel", self.kernel_init, (channels, self.features))
        return kernel, self.param("bias", nn.initializers.zeros_init(), (self.features,))


class PointwiseKernel(nn.Module):
    """The parameter of a `PointwiseConv` of the same name without bias, for a function that computes several layers at once."""

    features: int

    @nn.compact
    def __call__(self, channels: int) -> Float[Array, "C D"]:
        """Returns the kernel of a layer with this number of input channels."""
        return self.param("kernel", conv_init, (channels, self.features))


def _norm_parameters(module: nn.Module, channels: int) -> ops.NormWeights:
    scale = module.param("scale", nn.initializers.ones_init(), (channels,))
    return ops.NormWeights(scale, module.param("bias", nn.initializers.zeros_init(), (channels,)))


class NormParameters(nn.Module):
    """The parameters of a `LayerNorm` of the same name, for a function that computes several layers at once."""

    @nn.compact
    def __call__(self, channels: int) -> ops.NormWeights:
        """Returns the scale and the bias."""
        return _norm_parameters(self, channels)


class LayerNorm(nn.Module):
    """A LayerNorm over channels; its statistics reduce in float32."""

    @nn.compact
    def __call__(self, x: Float[Array, "B *S C"]) -> Float[Array, "B *S C"]:
        """Returns the normalized patches, in the type of the input."""
        return ops.layer_norm(x, _norm_parameters(self, x.shape[-1]))


def _depthwise_parameters(module: nn.Module, kernel_size: int, channels: int) -> tuple[Array, Array]:
    kernel = module.param("kernel", conv_init, (kernel_size, kernel_size, 1, channels))
    return kernel, module.param("bias", nn.initializers.zeros_init(), (channels,))


class DepthwiseParameters(nn.Module):
    """The parameters of a `DepthwiseConv` of the same name, for a function that computes several layers at once."""

    kernel_size: int

    @nn.compact
    def __call__(self, channels: int) -> tuple[Float[Array, "K K 1 C"], Float[Array, "C"]]:
        """Returns the kernel and the bias."""
        return _depthwise_parameters(self, self.kernel_size, channels)


class DepthwiseConv(nn.Module):
    """A depthwise convolution with bias and stride 1 that keeps the size."""

    kernel_size: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """Returns the filtered maps."""
        kernel, bias = _depthwise_parameters(self, self.kernel_size, x.shape[-1])
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        return ops.depthwise_conv(x, kernel) + bias


class BatchNorm(nn.Module):
    """Batch normalization as in torch.

    It normalizes with the biased variance but averages the unbiased one, with momentum 0.1, and counts batches. Statistics are
    float32. Under jit on a sharded batch they are those of the global batch.
    """

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B *spatial C"], train: bool) -> Float[Array, "B *spatial C"]:
        """Normalizes by the statistics of the batch and updates `batch_stats` if training, else by the running statistics."""
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones_init(), (channels,))
        bias = self.param("bias", nn.initializers.zeros_init(), (channels,))
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        running_variance = self.variable("batch_stats", "var", jnp.ones, (channels,))
        count = self.variable("batch_stats", "count", jnp.zeros, (), jnp.int32)
        wide = x.astype(jnp.float32)
        if train:
            axes = tuple(range(x.ndim - 1))
            mean = jnp.mean(wide, axes)
            variance = jnp.mean(jnp.square(wide - mean), axes)
            if not self.is_initializing():
                samples = x.size // channels
                unbiased = variance * (samples / max(samples - 1, 1))
                running_mean.value += BATCH_NORM_MOMENTUM * (mean - running_mean.value)
                running_variance.value += BATCH_NORM_MOMENTUM * (unbiased - running_variance.value)
                count.value += 1
        else:
            mean, variance = running_mean.value, running_variance.value
        normalized = (wide - mean) * (jax.lax.rsqrt(variance + BATCH_NORM_EPSILON) * scale) + bias
        return normalized.astype(self.dtype)


class Conv(nn.Module):
    """A convolution with half a kernel of padding on every side; by default 3x3 and with bias."""

    channels: int
    kernel_size: int = 3
    stride: int = 1
    use_bias: bool = True
    dtype: DTypeLike = jnp.float32
    kernel_init: nn.initializers.Initializer = conv_init

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 D"]:
        """Returns the filtered maps, of size ceil(H / stride) x ceil(W / stride)."""
        kernel = self.param("kernel", self.kernel_init, (self.kernel_size, self.kernel_size, x.shape[-1], self.channels))
        bias = self.param("bias", nn.initializers.zeros_init(), (self.channels,)) if self.use_bias else None
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        y = ops.conv(x, kernel, self.stride)
        return y if bias is None else y + bias


class Stem(nn.Module):
    """The patch embedding: two convolutions of stride 2 with nothing in between, then LayerNorm."""

    channels: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: Float[Array, "B H W C"]) -> Float[Array, "B H4 W4 D"]:
        """Returns the patches."""
        x = Conv(self.channels // 2, stride=2, dtype=self.dtype, name="conv1")(images)
        x = Conv(self.channels, stride=2, dtype=self.dtype, name="conv2")(x)
        return LayerNorm(name="norm")(x)


class Transition(nn.Module):
    """Halves the map and changes its channels between two stages."""

    channels: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 D"]:
        """Returns the patches of the next stage."""
        x = Conv(self.channels, stride=2, dtype=self.dtype, name="conv")(x)
        return LayerNorm(name="norm")(x)
