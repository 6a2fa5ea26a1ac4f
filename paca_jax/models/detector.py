"""A detector: the backbone with Mask R-CNN, with static shapes throughout."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from paca_jax import ops
from paca_jax.errors import UserError
from paca_jax.models.clustering import Removals
from paca_jax.models.heads import BoxHead, DetectorConfig, FeaturePyramid, MaskHead, RegionProposals
from paca_jax.models.heads.rcnn import BOX_SIDE, MASK_SIDE
from paca_jax.models.model import Images, Model, check_images
from paca_jax.models.vit import PaCaViT

STRIDES = (4, 8, 16, 32, 64)
RPN_STDS = (1.0, 1.0, 1.0, 1.0)
BOX_STDS = (0.1, 0.1, 0.2, 0.2)
PROPOSAL_NMS = 0.7
DETECTION_NMS = 0.5
# The number of highest scores, out of proposals times classes, that enter the final suppression.
_CANDIDATES = 4096


class Proposals(NamedTuple):
    """Regions of each image, in descending order of score.

    Attributes:
        boxes: boxes in pixels, clipped to the image.
        scores: sigmoids of the logits.
        valid: whether each entry is a proposal, not padding.
    """

    boxes: Float[Array, "B P 4"]
    scores: Float[Array, "B P"]
    valid: Bool[Array, "B P"]


class Detector(Model):
    """Mask R-CNN (He et al., ICCV 2017) with a feature pyramid on a PaCa-ViT.

    Attributes:
        config: the configuration of the model.
        dtype: the type to compute in; parameters, boxes, scores and losses are float32.
        remat: whether the backward pass recomputes each block of the backbone instead of keeping its intermediate results.
        split_rows: whether the rows of the maps are split over the `model` axis of the mesh between blocks.

    Images are normalized (see `paca_jax.preprocess`) and padded with zeros on the right and at the bottom. Boxes are
    (x1, y1, x2, y2) in pixels of the images.
    """

    config: DetectorConfig
    dtype: DTypeLike = jnp.float32
    remat: bool = False
    split_rows: bool = False

    def setup(self) -> None:
        """Creates the parts; their names are those of the parameters."""
        config = self.config
        self.backbone = PaCaViT(config.backbone, self.dtype, self.remat, self.split_rows)
        self.neck = FeaturePyramid(config.head_channels, self.dtype)
        self.rpn_head = RegionProposals(config.head_channels, self.dtype)
        self.box_head = BoxHead(config.num_classes, config.box_channels, self.dtype)
        self.mask_head = MaskHead(config.num_classes, config.head_channels, self.dtype)

    def __call__(
        self, images: Images, image_sizes: Int[Array, "B 2"] | None = None, removals: Removals | None = None
    ) -> dict[str, Array]:
        """Returns the detections of each image, in descending order of score.

        Args:
            images: the batch.
            image_sizes: the true height and width of each image; None if no image is padded.
            removals: clusters of the backbone to answer without, as for `PaCaViT`.

        Returns:
            `boxes` (B, N, 4), `scores` (B, N), `labels` (B, N), `masks` (B, N, 28, 28), probabilities in the frame of the box,
            and `valid` (B, N): whether each entry is a detection, not padding.
        """
        check_images(images, self.config.image_channels)
        if image_sizes is None:
            image_sizes = jnp.broadcast_to(jnp.array(images.shape[1:3], jnp.int32), (images.shape[0], 2))
        elif image_sizes.shape != (images.shape[0], 2):
            raise UserError(
                f"Expected image_sizes of shape ({images.shape[0]}, 2), a height and width for each image, got "
                f"{tuple(image_sizes.shape)}. Pass one for each."
            )
        pyramid = self.pyramid(images, removals=removals)
        proposals = self.propose(pyramid, *self.region_scores(pyramid), image_sizes, self.config.candidates)
        logits, deltas = self.classify(pyramid, proposals.boxes, proposals.valid)
        detect = functools.partial(_detect, count=self.config.detections, threshold=self.config.score_threshold)
        found = jax.vmap(detect)(proposals.boxes, proposals.valid, logits, deltas, image_sizes)
        masks = self.draw(pyramid, found["boxes"], found["valid"])
        own = jnp.take_along_axis(masks, found["labels"][:, :, None, None, None], axis=-1)[..., 0]
        return found | {"masks": jax.nn.sigmoid(own)}

    def pyramid(
        self, images: Images, train: bool = False, removals: Removals | None = None
    ) -> list[Float[Array, "B _Hi _Wi D"]]:
        """Returns the levels of the feature pyramid, at strides 4 to 64."""
        return self.neck(self.backbone.features(images, train, removals))

    def region_scores(
        self, pyramid: list[Float[Array, "B _Hi _Wi C"]]
    ) -> tuple[list[Float[Array, "B _Ni"]], list[Float[Array, "B _Ni 4"]]]:
        """Returns the logits and deltas of the anchors of each level."""
        return self.rpn_head(pyramid)

    def propose(
        self,
        pyramid: list[Float[Array, "B _Hi _Wi C"]],
        scores: list[Float[Array, "B _Ni"]],
        deltas: list[Float[Array, "B _Ni 4"]],
        image_sizes: Int[Array, "B 2"],
        candidates: int,
    ) -> Proposals:
        """Returns the region proposals: the best of each level after non-maximum suppression."""
        anchors = level_anchors(pyramid)
        boxes, kept_scores, levels = [], [], []
        for level, (score, delta) in enumerate(zip(scores, deltas, strict=True)):
            best, index = jax.lax.top_k(jax.nn.sigmoid(score), min(candidates, score.shape[1]))
            delta = jnp.take_along_axis(delta, index[..., None], axis=1)
            boxes.append(ops.decode_boxes(anchors[level][index], delta, RPN_STDS))
            kept_scores.append(best)
            levels.append(jnp.full(best.shape[1], level))
        suppress = functools.partial(_suppress, levels=jnp.concatenate(levels), count=self.config.proposals)
        return jax.vmap(suppress)(jnp.concatenate(boxes, 1), jnp.concatenate(kept_scores, 1), image_sizes)

    def classify(
        self, pyramid: list[Float[Array, "B _Hi _Wi C"]], boxes: Float[Array, "B N 4"], valid: Bool[Array, "B N"]
    ) -> tuple[Float[Array, "B N K1"], Float[Array, "B N K 4"]]:
        """Returns the class logits of the box head, the background last, and its deltas."""
        regions = ops.pyramid_roi_align(pyramid[:4], boxes, valid, BOX_SIDE).astype(self.dtype)
        outputs = self.box_head(regions.reshape(-1, *regions.shape[2:]))
        logits, deltas = (x.reshape(*valid.shape, *x.shape[1:]) for x in outputs)
        return logits, deltas

    def draw(
        self, pyramid: list[Float[Array, "B _Hi _Wi C"]], boxes: Float[Array, "B N 4"], valid: Bool[Array, "B N"]
    ) -> Float[Array, "B N 28 28 K"]:
        """Returns the logits of the mask head."""
        regions = ops.pyramid_roi_align(pyramid[:4], boxes, valid, MASK_SIDE).astype(self.dtype)
        masks = self.mask_head(regions.reshape(-1, *regions.shape[2:]))
        return masks.reshape(*valid.shape, *masks.shape[1:])

    def features(
        self, images: Images, train: bool = False, removals: Removals | None = None
    ) -> list[Float[Array, "B _Hi _Wi _Ci"]]:
        """Returns the normalized map of each stage, at strides 4, 8, 16 and 32."""
        return self.backbone.features(images, train, removals)

    def clusters(self, images: Images) -> dict[str, Float[Array, "B _M _Hi _Wi"]]:
        """Returns the assignments of the backbone, as `PaCaViT.clusters` does."""
        return self.backbone.clusters(images)

    def attention(
        self, images: Images, blocks: Sequence[str] | None = None, removals: Removals | None = None
    ) -> dict[str, Float[Array, "B _heads _Hi _Wi _T"]]:
        """Returns the attention weights of the backbone, as `PaCaViT.attention` does."""
        return self.backbone.attention(images, blocks, removals)


def level_anchors(pyramid: list[Float[Array, "B _Hi _Wi C"]]) -> list[Float[Array, "_Ni 4"]]:
    """Returns the anchors of each level of a pyramid."""
    return [ops.anchor_grid(x.shape[1], x.shape[2], stride) for x, stride in zip(pyramid, STRIDES, strict=True)]


def _suppress(
    boxes: Float[Array, "N 4"], scores: Float[Array, "N"], size: Int[Array, "2"], levels: Int[Array, "N"], count: int
) -> Proposals:
    """Returns the proposals of one image: clipped, not empty, and after suppression within each level."""
    boxes = ops.clip_boxes(boxes, size)
    index, valid = ops.batched_nms(boxes, scores, levels, ops.box_area(boxes) > 0, PROPOSAL_NMS, count)
    return Proposals(boxes[index], jnp.where(valid, scores[index], 0), valid)


def _detect(
    boxes: Float[Array, "P 4"],
    valid: Bool[Array, "P"],
    logits: Float[Array, "P K1"],
    deltas: Float[Array, "P K 4"],
    size: Int[Array, "2"],
    count: int,
    threshold: float,
) -> dict[str, Array]:
    """Returns the detections of one image without masks."""
    classes = deltas.shape[1]
    decoded = ops.clip_boxes(ops.decode_boxes(boxes[:, None], deltas, BOX_STDS), size)
    scores = jnp.where(valid[:, None], jax.nn.softmax(logits)[:, :-1], 0)
    best, flat = jax.lax.top_k(scores.reshape(-1), min(_CANDIDATES, scores.size))
    candidates, labels = decoded.reshape(-1, 4)[flat], flat % classes
    index, found = ops.batched_nms(candidates, best, labels, best > threshold, DETECTION_NMS, count)
    return {
        "boxes": candidates[index],
        "scores": jnp.where(found, best[index], 0),
        "labels": labels[index],
        "valid": found,
    }
