"""The configuration of a PaCa-ViT: frozen dataclasses that are validated on creation."""

import dataclasses
from typing import Annotated, TypeVar

from paca_jax.errors import check
from paca_jax.fields import Length, OneOf, Range, check_types

CLUSTERINGS = ("conv", "mlp", "linear")
# Bounds beyond any model that is of use, so that a slip of a digit is an error before anything is allocated.
Channels = Annotated[int, Range(1, 16_384)]
Depth = Annotated[int, Range(1, 1000)]
Kernel = Annotated[int, Range(1, 255)]
Rate = Annotated[float, Range(0, 1, "[)")]
Side = Annotated[int, Range(1, 16_384)]  # of an image, in pixels
T = TypeVar("T")
PerStage = Annotated[tuple[T, ...], Length(1, 8)]


@dataclasses.dataclass(frozen=True)
class TeacherConfig:
    """The external clustering teacher (section 3.3): a ConvMixer with a top-down path and the backbone's widths.

    Attributes:
        depths: the number of ConvMixer blocks of each stage.
        kernel_size: the side of their depthwise kernels, odd.
    """

    depths: PerStage[Depth] = (2, 2, 2, 2)
    kernel_size: Kernel = 7

    def __post_init__(self) -> None:
        check_types(self)
        check(self.kernel_size % 2 == 1, f"Expected an odd kernel_size of the teacher, got {self.kernel_size}. Choose another.")


@dataclasses.dataclass(frozen=True)
class PaCaConfig:
    """The configuration of a PaCa-ViT. Plural fields hold one value per stage.

    Attributes:
        embed_dims: the number of channels.
        depths: the number of blocks.
        num_heads: the number of attention heads, which divides `embed_dims`.
        mlp_ratios: the hidden channels of the MLP, as a multiple of `embed_dims`.
        clusters: the number of clusters; 0 for plain self-attention.
        clustering: the way that a block computes its assignment: "conv", "mlp" or "linear".
        clustering_periods: 0 if only the first block of the stage computes an assignment, 1 if every block does, i if every
            i-th block does.
        clustering_kernel_sizes: the sides of the depthwise kernels of the "conv" clustering, odd.
        cluster_norm: whether clusters are normalized before the key and value projections.
        cluster_position_embedding: whether each block adds a learned vector to each cluster.
        teacher: the network that computes every assignment in place of the blocks, or None.
        mlp_depthwise: whether a 3x3 depthwise convolution follows the first layer of the MLP.
        mlp_shortcut: whether that convolution adds its own input.
        position_embedding: whether the first block of each stage adds a learned vector to each patch.
        layer_scale: the initial value of the learned scale of each residual branch; None for no scale.
        post_norm: whether each branch is normalized after its layer instead of before.
        sub_norm: whether each branch is normalized before and after its layer (sub-LN).
        dropout_rate: the dropout rate after projections and in the MLP.
        attention_dropout_rate: the dropout rate of attention weights.
        drop_path_rate: the rate of stochastic depth in the last block; it increases linearly from 0 in the first.
        num_classes: the outputs of the classifier; 0 for no classifier, so that the model returns pooled features.
        image_channels: the channels of an image.
        image_size: the native side of an image in pixels: that of position embeddings and of `preprocess`.
        crop: the fraction of the resized short side that `preprocess` keeps.
    """

    embed_dims: PerStage[Channels] = (96, 192, 320, 384)
    depths: PerStage[Depth] = (2, 2, 4, 2)
    num_heads: PerStage[Channels] = (2, 4, 8, 16)
    mlp_ratios: PerStage[Annotated[float, Range(0, 64, "(]")]] = (4, 4, 4, 4)
    clusters: PerStage[Annotated[int, Range(0, 65_536)]] = (100, 100, 100, 0)
    clustering: Annotated[str, OneOf(*CLUSTERINGS)] = "conv"
    clustering_periods: PerStage[Annotated[int, Range(0, 1000)]] = (0, 0, 0, 0)
    clustering_kernel_sizes: PerStage[Kernel] = (7, 7, 7, 7)
    cluster_norm: bool = True
    cluster_position_embedding: bool = False
    teacher: TeacherConfig | None = None
    mlp_depthwise: bool = True
    mlp_shortcut: bool = True
    position_embedding: bool = False
    layer_scale: Annotated[float, Range(0, 1000)] | None = None
    post_norm: bool = False
    sub_norm: bool = False
    dropout_rate: Rate = 0.0
    attention_dropout_rate: Rate = 0.0
    drop_path_rate: Rate = 0.0
    num_classes: Annotated[int, Range(0, 1_000_000)] = 1000
    image_channels: Annotated[int, Range(1, 1024)] = 3
    image_size: Side = 224
    crop: Annotated[float, Range(0, 1, "(]")] = 0.9

    def __post_init__(self) -> None:
        check_types(self)
        stages = len(self.embed_dims)
        for name in ("depths", "num_heads", "mlp_ratios", "clusters", "clustering_periods", "clustering_kernel_sizes"):
            values = getattr(self, name)
            check(len(values) == stages, f"Expected one of {name} for each of the {stages} stages, got {values}. Correct it.")
        if self.teacher:
            found = self.teacher.depths
            check(len(found) == stages, f"Expected depths of the teacher for {stages} stages, got {found}. Correct them.")
        heads_divide = all(d % h == 0 for d, h in zip(self.embed_dims, self.num_heads, strict=True))
        check(heads_divide, f"Expected num_heads that divide embed_dims {self.embed_dims}, got {self.num_heads}. Correct them.")
        hidden = all(int(d * ratio) >= 1 for d, ratio in zip(self.embed_dims, self.mlp_ratios, strict=True))
        check(hidden, f"Expected mlp_ratios that give each MLP a hidden channel, got {self.mlp_ratios}. Raise them.")
        odd = all(size % 2 == 1 for size in self.clustering_kernel_sizes)
        check(odd, f"Expected odd clustering_kernel_sizes, got {self.clustering_kernel_sizes}. Correct them.")

    @property
    def num_stages(self) -> int:
        """The number of stages."""
        return len(self.embed_dims)

    def computes_assignment(self, stage: int, block: int) -> bool:
        """Returns whether block `block` of stage `stage` (both from 0) computes an assignment of its own."""
        return not self.teacher and self.assigning_block(stage, block) == block

    def assigning_block(self, stage: int, block: int) -> int | None:
        """Returns the block, of the same stage, whose assignment a block uses (0 with a teacher); None without clusters."""
        if self.clusters[stage] == 0:
            return None
        period = 0 if self.teacher else self.clustering_periods[stage]
        return block - block % period if period > 0 else 0

    @property
    def assignments(self) -> dict[str, int]:
        """The number of clusters of each assignment, by the block that computes it or, with a teacher, takes it first."""
        return {
            f"stage{stage + 1}/block{index}": self.clusters[stage]
            for stage, depth in enumerate(self.depths)
            for index in range(depth)
            if self.assigning_block(stage, index) == index
        }

    def drop_path_rates(self) -> tuple[tuple[float, ...], ...]:
        """Returns the rate of stochastic depth of each block, by stage."""
        total = sum(self.depths)
        rates = [self.drop_path_rate * i / max(total - 1, 1) for i in range(total)]
        starts = [sum(self.depths[:stage]) for stage in range(self.num_stages)]
        return tuple(tuple(rates[start : start + depth]) for start, depth in zip(starts, self.depths, strict=True))
