"""PaCa-ViT: a pyramid of stages whose patches attend to learned clusters."""

from collections.abc import Container, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from paca_jax import ops
from paca_jax.errors import UserError, nearest
from paca_jax.models.block import Assignment, Block, Weights
from paca_jax.models.clustering import Removals, check_removals
from paca_jax.models.config import PaCaConfig
from paca_jax.models.layers import Dense, LayerNorm, Stem, Transition
from paca_jax.models.model import Images, Model, check_images
from paca_jax.models.teacher import Teacher
from paca_jax.sharding import constrain_patches


class Outputs(NamedTuple):
    """What a forward pass gives: see the methods of `PaCaViT` of the same names."""

    logits: Float[Array, "B K"]
    features: list[Float[Array, "B _Hi _Wi _Ci"]]
    clusters: dict[str, Float[Array, "B _M _Hi _Wi"]]
    attention: dict[str, Float[Array, "B _heads _Hi _Wi _T"]]


class Stage(nn.Module):
    """Blocks of one width, then a LayerNorm."""

    config: PaCaConfig
    stage: int
    dtype: DTypeLike = jnp.float32
    remat: bool = False
    split_rows: bool = False

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B H W C"],
        assignment: Assignment | None,
        teacher_map: Float[Array, "B H W C"] | None,
        removals: Removals,
        train: bool,
        weighed: Container[int],
    ) -> tuple[Float[Array, "B H W C"], dict[int, Assignment], dict[int, Weights]]:
        """Returns the stage's features, its assignments, and attention weights.

        Both are by the index of a block: an assignment by the first that used it, weights of the blocks in `weighed`.
        """
        used = {} if assignment is None else {0: assignment}
        attention = {}
        block = nn.remat(Block, static_argnums=(4, 5)) if self.remat else Block
        for index in range(self.config.depths[self.stage]):
            module = block(self.config, self.stage, index, self.dtype, name=f"block{index}")
            removal = removals.get(f"stage{self.stage + 1}/block{self.config.assigning_block(self.stage, index)}")
            with ops.in_block(f"stage{self.stage + 1}/block{index}"):
                x, assignment, weights = module(x, assignment, removal, train, index in weighed)
            x = constrain_patches(x, self.split_rows)
            if assignment is not None and self.config.computes_assignment(self.stage, index):
                used[index] = assignment
            if weights is not None:
                attention[index] = weights
        if teacher_map is not None:
            x = x + teacher_map
        return LayerNorm(name="norm")(x), used, attention


class PaCaViT(Model):
    """Patch-to-Cluster attention Vision Transformer (Grainger et al., CVPR 2023).

    Attributes:
        config: what the model is made of.
        dtype: the type to compute in; parameters are float32, and softmaxes and norms reduce in float32.
        remat: whether the gradient recomputes each block instead of keeping its intermediate results.
        split_rows: whether, between blocks, the rows of the maps are split over the mesh's `model` axis.

    Images are normalized (see `paca_jax.preprocess`), of any height and width; a side of n pixels has ceil(n / 4), ceil(n / 8),
    ... patches. With `train=True` give `rngs={"dropout": key}` where a rate is positive, and `mutable=["batch_stats"]` where
    there is a teacher.
    """

    config: PaCaConfig
    dtype: DTypeLike = jnp.float32
    remat: bool = False
    split_rows: bool = False

    def __call__(self, images: Images, train: bool = False, removals: Removals | None = None) -> Float[Array, "B K"]:
        """Returns class logits in float32; with `num_classes=0` the pooled features of the last stage.

        Args:
            images: the normalized images.
            train: whether dropout and stochastic depth are active and BatchNorm uses the statistics of the batch.
            removals: clusters to answer without, {"stage1/block0": Removal(kept), ...}, by the keys of `clusters`.

        Raises:
            UserError: if `images` are no such batch, or there are no such clusters to remove.
        """
        return self.outputs(images, train, removals=removals).logits

    def features(
        self, images: Images, train: bool = False, removals: Removals | None = None
    ) -> list[Float[Array, "B _Hi _Wi _Ci"]]:
        """Returns each stage's normalized map, at strides 4, 8, 16 and 32; the arguments are those of a call."""
        return self.outputs(images, train, removals=removals).features

    def clusters(self, images: Images) -> dict[str, Float[Array, "B _M _Hi _Wi"]]:
        """Returns the assignments, {"stage1/block0": ...}, of the blocks that compute one (a teacher's: the first block's).

        Each cluster's map sums to one over the image.
        """
        return self.outputs(images).clusters

    def attention(
        self, images: Images, blocks: Sequence[str] | None = None, removals: Removals | None = None
    ) -> dict[str, Float[Array, "B _heads _Hi _Wi _T"]]:
        """Returns attention weights, {"stage1/block0": (B, heads, H, W, M), ...}; each patch's sum to one over the clusters.

        They are computed by the plain formula from the model's own projections, whatever the implementation of the attention.
        A block of plain attention gives (B, heads, H, W, H W), which is quadratic in the patches, and only if it is named.

        Args:
            images: the normalized images.
            blocks: stages and blocks, such as ("stage3", "stage4/block0"); None for every block with clusters.
            removals: clusters to leave out, as for a call; nothing reads them, so their weights are 0.

        Raises:
            UserError: if there is no such stage or block, or there are no such clusters to remove.
        """
        return self.outputs(images, blocks=chosen_blocks(self.config, blocks), removals=removals).attention

    @nn.compact
    def outputs(
        self, images: Images, train: bool = False, blocks: Sequence[str] = (), removals: Removals | None = None
    ) -> Outputs:
        """Returns logits, features, clusters, and the attention weights of some blocks, at once."""
        config, removals = self.config, removals or {}
        check_images(images, config.image_channels)
        check_removals(config, removals, images.shape[0])
        x = Stem(config.embed_dims[0], self.dtype, name="stem")(jnp.asarray(images, self.dtype))
        x = constrain_patches(x, self.split_rows)

        assignments: list[Assignment | None] = [None] * config.num_stages
        teacher_maps: list[Array | None] = [None] * config.num_stages
        if config.teacher:
            assignments, teacher_maps[:] = Teacher(config, config.teacher, self.dtype, name="teacher")(x, train)

        features, clusters, attention = [], {}, {}
        for stage in range(config.num_stages):
            if stage > 0:
                x = Transition(config.embed_dims[stage], self.dtype, name=f"transition{stage}")(x)
            name = f"stage{stage + 1}"
            module = Stage(config, stage, self.dtype, self.remat, self.split_rows, name=name)
            weighed = [index for index in range(config.depths[stage]) if f"{name}/block{index}" in blocks]
            x, used, weights = module(x, assignments[stage], teacher_maps[stage], removals, train, weighed)
            features.append(x)
            for index, assignment in used.items():
                clusters[f"{name}/block{index}"] = assignment.reshape(*assignment.shape[:2], *x.shape[1:3])
            for index, each in weights.items():
                attention[f"{name}/block{index}"] = each.reshape(*each.shape[:2], *x.shape[1:3], -1)

        logits = jnp.mean(x, axis=(1, 2))
        if config.num_classes > 0:
            logits = Dense(config.num_classes, dtype=self.dtype, name="head")(logits)
        return Outputs(logits.astype(jnp.float32), features, clusters, attention)


def chosen_blocks(config: PaCaConfig, blocks: Sequence[str] | None, others: Sequence[str] = ()) -> list[str]:
    """Returns the names of blocks whose attention weights are asked for, in the order of the model.

    Args:
        config: the configuration of the backbone.
        blocks: stages and blocks; None for every block with clusters.
        others: further places of attention over clusters.

    Raises:
        UserError: if there is no such stage or block.
    """
    names = [f"stage{stage + 1}/block{index}" for stage, depth in enumerate(config.depths) for index in range(depth)]
    names += others
    stages = [f"stage{stage + 1}" for stage in range(config.num_stages)]
    if blocks is None:
        with_clusters = [stage for stage, count in zip(stages, config.clusters, strict=True) if count]
        return [name for name in names if name.partition("/")[0] in [*with_clusters, *others]]
    if isinstance(blocks, str) or not isinstance(blocks, Sequence) or not all(isinstance(name, str) for name in blocks):
        raise UserError(f"Expected blocks as a tuple of names, got {blocks!r}. Pass one such as ('stage1/block0',).")
    for name in blocks:
        if name not in names and name not in stages:
            raise UserError(
                f"Expected a stage or a block, got {name!r}; {nearest(name, [*stages, *names])}. Choose one of them."
            )
    return [name for name in names if name in blocks or name.partition("/")[0] in blocks]
