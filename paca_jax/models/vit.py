"""PaCa-ViT: a pyramid of stages whose patches attend to learned clusters."""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from paca_jax import ops
from paca_jax.models.block import Assignment, Block
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
        train: bool,
    ) -> tuple[Float[Array, "B H W C"], dict[int, Assignment]]:
        """Returns the stage's features, and the assignments it used: {index of the first block that used it: assignment}."""
        used = {} if assignment is None else {0: assignment}
        block = nn.remat(Block, static_argnums=(3,)) if self.remat else Block
        for index in range(self.config.depths[self.stage]):
            module = block(self.config, self.stage, index, self.dtype, name=f"block{index}")
            with ops.in_block(f"stage{self.stage + 1}/block{index}"):
                x, assignment = module(x, assignment, train)
            x = constrain_patches(x, self.split_rows)
            if assignment is not None and self.config.computes_assignment(self.stage, index):
                used[index] = assignment
        if teacher_map is not None:
            x = x + teacher_map
        return LayerNorm(name="norm")(x), used


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

    def __call__(self, images: Images, train: bool = False) -> Float[Array, "B K"]:
        """Returns class logits in float32; with `num_classes=0` the pooled features of the last stage."""
        return self.outputs(images, train).logits

    def features(self, images: Images, train: bool = False) -> list[Float[Array, "B _Hi _Wi _Ci"]]:
        """Returns each stage's normalized map, at strides 4, 8, 16 and 32."""
        return self.outputs(images, train).features

    def clusters(self, images: Images) -> dict[str, Float[Array, "B _M _Hi _Wi"]]:
        """Returns the assignments, {"stage1/block0": ...}, of the blocks that compute one (a teacher's: the first block's).

        Each cluster's map sums to one over the image.
        """
        return self.outputs(images).clusters

    @nn.compact
    def outputs(self, images: Images, train: bool = False) -> Outputs:
        """Returns logits, features and clusters at once."""
        config = self.config
        check_images(images, config.image_channels)
        x = Stem(config.embed_dims[0], self.dtype, name="stem")(jnp.asarray(images, self.dtype))
        x = constrain_patches(x, self.split_rows)

        assignments: list[Assignment | None] = [None] * config.num_stages
        teacher_maps: list[Array | None] = [None] * config.num_stages
        if config.teacher:
            assignments, teacher_maps[:] = Teacher(config, config.teacher, self.dtype, name="teacher")(x, train)

        features, clusters = [], {}
        for stage in range(config.num_stages):
            if stage > 0:
                x = Transition(config.embed_dims[stage], self.dtype, name=f"transition{stage}")(x)
            module = Stage(config, stage, self.dtype, self.remat, self.split_rows, name=f"stage{stage + 1}")
            x, used = module(x, assignments[stage], teacher_maps[stage], train)
            features.append(x)
            for index, assignment in used.items():
                clusters[f"stage{stage + 1}/block{index}"] = assignment.reshape(*assignment.shape[:2], *x.shape[1:3])

        logits = jnp.mean(x, axis=(1, 2))
        if config.num_classes > 0:
            logits = Dense(config.num_classes, dtype=self.dtype, name="head")(logits)
        return Outputs(logits.astype(jnp.float32), features, clusters)
