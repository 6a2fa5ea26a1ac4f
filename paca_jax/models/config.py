"""What a PaCa-ViT is made of: frozen values, checked when they are made."""

import dataclasses
from typing import Any

from paca_jax.errors import check

CLUSTERINGS = ("conv", "mlp", "linear")


@dataclasses.dataclass(frozen=True)
class TeacherConfig:
    """The external clustering teacher (section 3.3): a ConvMixer with a top-down path, as wide as the backbone.

    Attributes:
        depths: ConvMixer blocks of each stage.
        kernel_size: side of their depthwise kernels, odd.
    """

    depths: tuple[int, ...] = (2, 2, 2, 2)
    kernel_size: int = 7

    def __post_init__(self) -> None:
        _freeze_sequences(self)
        check(self.kernel_size % 2 == 1, f"The teacher's kernel_size is odd, but got {self.kernel_size}.")


@dataclasses.dataclass(frozen=True)
class PaCaConfig:
    """A PaCa-ViT. Fields in the plural hold one value a stage.

    Attributes:
        embed_dims: channels.
        depths: blocks.
        num_heads: attention heads; each divides its `embed_dims`.
        mlp_ratios: hidden channels of the MLP over `embed_dims`.
        clusters: clusters; 0 means plain self-attention.
        clustering: how a block computes its assignment: "conv", "mlp" or "linear".
        clustering_periods: 0: only the stage's first block computes an assignment, 1: every block does, i: every i-th.
        clustering_kernel_sizes: sides of the convolution clustering's depthwise kernels, odd.
        cluster_norm: whether clusters are normalized before keys and values are taken.
        cluster_position_embedding: whether each block adds a learned vector to each cluster.
        teacher: the network that computes every assignment instead of the blocks, or None.
        mlp_depthwise: whether a 3x3 depthwise convolution follows the MLP's first layer.
        mlp_shortcut: whether that convolution adds its own input.
        position_embedding: whether each stage's first block adds a learned vector to each patch.
        layer_scale: first value of the learned scale of each residual branch; None for no scale.
        post_norm: normalize each branch after, not before, its layer.
        sub_norm: normalize before and after (sub-LN).
        dropout_rate: rate after projections and in the MLP.
        attention_dropout_rate: rate on attention weights.
        drop_path_rate: stochastic depth of the last block; it grows linearly from 0 at the first.
        num_classes: outputs of the classifier; 0 for none (the model then returns pooled features).
        image_channels: channels of an image.
        image_size: native side of an image in pixels: the size of position embeddings, and what `preprocess` gives.
        crop: share of the resized short side that `preprocess` keeps.
    """

    embed_dims: tuple[int, ...] = (96, 192, 320, 384)
    depths: tuple[int, ...] = (2, 2, 4, 2)
    num_heads: tuple[int, ...] = (2, 4, 8, 16)
    mlp_ratios: tuple[float, ...] = (4, 4, 4, 4)
    clusters: tuple[int, ...] = (100, 100, 100, 0)
    clustering: str = "conv"
    clustering_periods: tuple[int, ...] = (0, 0, 0, 0)
    clustering_kernel_sizes: tuple[int, ...] = (7, 7, 7, 7)
    cluster_norm: bool = True
    cluster_position_embedding: bool = False
    teacher: TeacherConfig | None = None
    mlp_depthwise: bool = True
    mlp_shortcut: bool = True
    position_embedding: bool = False
    layer_scale: float | None = None
    post_norm: bool = False
    sub_norm: bool = False
    dropout_rate: float = 0.0
    attention_dropout_rate: float = 0.0
    drop_path_rate: float = 0.0
    num_classes: int = 1000
    image_channels: int = 3
    image_size: int = 224
    crop: float = 0.9

    def __post_init__(self) -> None:
        _freeze_sequences(self)
        stages = len(self.embed_dims)
        for name in ("depths", "num_heads", "mlp_ratios", "clusters", "clustering_periods", "clustering_kernel_sizes"):
            values = getattr(self, name)
            check(len(values) == stages, f"{name} needs one value for each of the {stages} stages, but got {values}.")
            check(all(v >= 0 for v in values), f"{name} are not negative, but got {values}.")
        if self.teacher:
            found = self.teacher.depths
            check(
                len(found) == stages, f"The teacher's depths need one value for each of the {stages} stages, but got {found}."
            )
        heads_divide = all(d % h == 0 for d, h in zip(self.embed_dims, self.num_heads, strict=True))
        check(heads_divide, f"num_heads {self.num_heads} must divide embed_dims {self.embed_dims}, stage by stage.")
        check(self.clustering in CLUSTERINGS, f"clustering is one of {', '.join(CLUSTERINGS)}, but got {self.clustering!r}.")
        odd = all(size % 2 == 1 for size in self.clustering_kernel_sizes)
        check(odd, f"clustering_kernel_sizes are odd, but got {self.clustering_kernel_sizes}.")
        for name in ("dropout_rate", "attention_dropout_rate", "drop_path_rate"):
            check(0 <= getattr(self, name) < 1, f"{name} lies in [0, 1), but got {getattr(self, name)}.")
        check(self.num_classes >= 0, f"num_classes is not negative, but got {self.num_classes}.")
        check(self.image_channels >= 1, f"image_channels is at least 1, but got {self.image_channels}.")

    @property
    def num_stages(self) -> int:
        """The number of stages."""
        return len(self.embed_dims)

    def computes_assignment(self, stage: int, block: int) -> bool:
        """Whether block `block` of stage `stage` (both from 0) computes an assignment of its own."""
        if self.clusters[stage] == 0 or self.teacher:
            return False
        period = self.clustering_periods[stage]
        return block == 0 or (period > 0 and block % period == 0)

    def drop_path_rates(self) -> tuple[tuple[float, ...], ...]:
        """Returns each block's rate of stochastic depth, stage by stage."""
        total = sum(self.depths)
        rates = [self.drop_path_rate * i / max(total - 1, 1) for i in range(total)]
        starts = [sum(self.depths[:stage]) for stage in range(self.num_stages)]
        return tuple(tuple(rates[start : start + depth]) for start, depth in zip(starts, self.depths, strict=True))


def _freeze_sequences(config: Any) -> None:
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, list):
            object.__setattr__(config, field.name, tuple(value))
