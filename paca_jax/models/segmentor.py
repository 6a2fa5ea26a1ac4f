"""A segmentor: the backbone with a head that predicts a class for every pixel."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from paca_jax.models.clustering import Removals
from paca_jax.models.heads import FCNHead, PaCaHead, SegmentorConfig, UPerNetHead
from paca_jax.models.model import Images, Model
from paca_jax.models.vit import PaCaViT, chosen_blocks


class Segmentor(Model):
    """A PaCa-ViT with the PaCa head, or with UPerNet and an auxiliary FCN head.

    Attributes:
        config: the configuration of the model.
        dtype: the type to compute in; parameters are float32, and softmaxes and norms reduce in float32.
        remat: whether the backward pass recomputes each block of the backbone instead of keeping its intermediate results.
        split_rows: whether the rows of the maps are split over the `model` axis of the mesh between blocks.

    Images are normalized (see `paca_jax.preprocess`) and of any height and width. With `train=True`, pass
    `mutable=["batch_stats"]`, and also `rngs={"dropout": key}` if a dropout rate is positive.
    """

    config: SegmentorConfig
    dtype: DTypeLike = jnp.float32
    remat: bool = False
    split_rows: bool = False

    def setup(self) -> None:
        """Creates the parts; their names are those of the parameters."""
        self.backbone = PaCaViT(self.config.backbone, self.dtype, self.remat, self.split_rows)
        if self.config.head == "paca":
            self.head: nn.Module = PaCaHead(self.config, self.dtype)
        else:
            self.head = UPerNetHead(self.config, self.dtype)
            self.auxiliary_head = FCNHead(self.config, self.dtype)

    def __call__(self, images: Images, train: bool = False, removals: Removals | None = None) -> Float[Array, "B H4 W4 K"]:
        """Returns class logits at stride 4, in float32; `removals` are clusters of the backbone, as for `PaCaViT`."""
        return self.with_auxiliary(images, train, removals=removals)[0]

    def with_auxiliary(
        self,
        images: Images,
        train: bool = False,
        train_backbone: bool | None = None,
        removals: Removals | None = None,
    ) -> tuple[Float[Array, "B H4 W4 K"], Float[Array, "B _Hi _Wi K"]]:
        """Returns the class logits, and the auxiliary logits that only the training loss uses.

        The latter are the clustering logits of the PaCa head (stride 4) or, with UPerNet, those of the FCN head (stride 16).

        Args:
            images: the normalized images.
            train: whether dropout and stochastic depth are active and BatchNorm uses the statistics of the batch.
            train_backbone: the same for the backbone only; None for the value of `train`.
            removals: clusters of the backbone to answer without, as for `PaCaViT`.
        """
        features = self.backbone.features(images, train if train_backbone is None else train_backbone, removals)
        outputs = self.head(features, train)
        if self.config.head == "paca":
            return outputs.logits, outputs.clustering
        return outputs, self.auxiliary_head(features, train)

    def features(
        self, images: Images, train: bool = False, removals: Removals | None = None
    ) -> list[Float[Array, "B _Hi _Wi _Ci"]]:
        """Returns the normalized map of each stage, at strides 4, 8, 16 and 32."""
        return self.backbone.features(images, train, removals)

    def clusters(self, images: Images) -> dict[str, Float[Array, "B _M _Hi _Wi"]]:
        """Returns the backbone's assignments, as `PaCaViT.clusters` does, and the PaCa head's as "head", one per class."""
        outputs = self.backbone.outputs(images)
        if self.config.head != "paca":
            return outputs.clusters
        return outputs.clusters | {"head": self.head(outputs.features, False).clusters}

    def attention(
        self, images: Images, blocks: Sequence[str] | None = None, removals: Removals | None = None
    ) -> dict[str, Float[Array, "B _heads _Hi _Wi _T"]]:
        """Returns the backbone's attention weights, as `PaCaViT.attention` does, and those of the PaCa head as "head"."""
        chosen = chosen_blocks(self.config.backbone, blocks, ("head",) if self.config.head == "paca" else ())
        outputs = self.backbone.outputs(images, blocks=chosen, removals=removals)
        if "head" not in chosen:
            return outputs.attention
        return outputs.attention | {"head": self.head(outputs.features, False).weights[:, None]}
