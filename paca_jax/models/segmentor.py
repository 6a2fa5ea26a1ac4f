"""A segmentor: the backbone with a head that gives a class to every pixel."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from paca_jax.models.heads import FCNHead, PaCaHead, SegmentorConfig, UPerNetHead
from paca_jax.models.vit import PaCaViT


class Segmentor(nn.Module):
    """A PaCa-ViT under the PaCa head, or under UPerNet with an FCN head beside it.

    Attributes:
        config: what the model is made of.
        dtype: the type to compute in; parameters are float32, and softmaxes and norms reduce in float32.
        remat: whether a gradient computes each block of the backbone anew rather than keep what happens within it.
        split_rows: whether, between blocks, the rows of the maps are split over the mesh's `model` axis.

    Images are normalized (see `paca_jax.preprocess`), of any height and width. With `train=True` give
    `mutable=["batch_stats"]`, and `rngs={"dropout": key}` where a rate is positive.
    """

    config: SegmentorConfig
    dtype: DTypeLike = jnp.float32
    remat: bool = False
    split_rows: bool = False

    def setup(self) -> None:
        """Makes the parts; their names are those of the parameters."""
        self.backbone = PaCaViT(self.config.backbone, self.dtype, self.remat, self.split_rows)
        if self.config.head == "paca":
            self.head: nn.Module = PaCaHead(self.config, self.dtype)
        else:
            self.head = UPerNetHead(self.config, self.dtype)
            self.auxiliary_head = FCNHead(self.config, self.dtype)

    def __call__(self, images: Float[Array, "B H W C"], train: bool = False) -> Float[Array, "B H/4 W/4 K"]:
        """Returns class logits at stride 4, in float32."""
        return self.with_auxiliary(images, train)[0]

    def with_auxiliary(
        self, images: Float[Array, "B H W C"], train: bool = False, train_backbone: bool | None = None
    ) -> tuple[Float[Array, "B H/4 W/4 K"], Float[Array, "B Hi Wi K"]]:
        """Returns the class logits, and those that only the training loss looks at.

        The latter are the PaCa head's clustering logits (stride 4), or the FCN head's beside UPerNet (stride 16).

        Args:
            images: normalized.
            train: whether dropout and stochastic depth act, and BatchNorm takes the batch's statistics.
            train_backbone: the same for the backbone alone; None for `train`.
        """
        features = self.backbone.features(images, train if train_backbone is None else train_backbone)
        outputs = self.head(features, train)
        if self.config.head == "paca":
            return outputs.logits, outputs.clustering
        return outputs, self.auxiliary_head(features, train)

    def features(self, images: Float[Array, "B H W C"], train: bool = False) -> list[Float[Array, "B Hi Wi Ci"]]:
        """Returns each stage's normalized map, at strides 4, 8, 16 and 32."""
        return self.backbone.features(images, train)

    def clusters(self, images: Float[Array, "B H W C"]) -> dict[str, Float[Array, "B M Hi Wi"]]:
        """Returns the backbone's assignments as `PaCaViT.clusters` does, and the PaCa head's as "head": one cluster a class."""
        outputs = self.backbone.outputs(images)
        if self.config.head != "paca":
            return outputs.clusters
        return outputs.clusters | {"head": self.head(outputs.features, False).clusters}
