"""The training loss of detectors: targets of region proposals, boxes and masks, and the losses on them."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree

from paca_jax import ops
from paca_jax.models import Detector
from paca_jax.models.detector import BOX_STDS, RPN_STDS, level_anchors
from paca_jax.tasks.base import LossOutput

_assign_anchors = functools.partial(ops.assign_boxes, positive=0.7, negative=0.3, min_positive=0.3)
_assign_regions = functools.partial(ops.assign_boxes, positive=0.5, negative=0.5, min_positive=0.5)
_RPN_POSITIVES, _BOX_POSITIVES = 0.5, 0.25

# A sum and its divisor.
Part = tuple[Float[Array, ""], Float[Array, ""]]


class Objects(NamedTuple):
    """The objects of an image.

    Attributes:
        boxes: in pixels.
        labels: their classes.
        valid: False for padding.
    """

    boxes: Float[Array, "G 4"]
    labels: Int[Array, "G"]
    valid: Bool[Array, "G"]


class AnchorTargets(NamedTuple):
    """The sampled anchors of an image.

    Attributes:
        indices: their places among all anchors.
        valid: False for padding.
        positive: whether an anchor is assigned to an object.
        deltas: from the anchor to its object; meaningless unless positive.
    """

    indices: Int[Array, "S"]
    valid: Bool[Array, "S"]
    positive: Bool[Array, "S"]
    deltas: Float[Array, "S 4"]


class RegionTargets(NamedTuple):
    """The sampled regions of an image, positive ones first.

    Attributes:
        boxes: in pixels.
        valid: False for padding.
        positive: whether a region is assigned to an object.
        labels: the classes of the objects; the number of classes stands for background.
        deltas: from the region to its object; meaningless unless positive.
        objects: the index of the object; 0 if there is none.
    """

    boxes: Float[Array, "S 4"]
    valid: Bool[Array, "S"]
    positive: Bool[Array, "S"]
    labels: Int[Array, "S"]
    deltas: Float[Array, "S 4"]
    objects: Int[Array, "S"]


def anchor_targets(rng: Array, anchors: Float[Array, "N 4"], objects: Objects, samples: int) -> AnchorTargets:
    """Samples the anchors of one image for the loss of the region proposals; at most half of them are positive."""
    everywhere = jnp.ones(len(anchors), bool)
    assigned = _assign_anchors(ops.box_iou(objects.boxes, anchors), objects.valid, everywhere)
    indices, valid, positive = ops.sample(rng, assigned > 0, assigned == 0, samples, _RPN_POSITIVES)
    wanted = objects.boxes[jnp.maximum(assigned[indices] - 1, 0)]
    return AnchorTargets(indices, valid, positive, ops.encode_boxes(anchors[indices], wanted, RPN_STDS))


def region_targets(
    rng: Array, boxes: Float[Array, "P 4"], valid: Bool[Array, "P"], objects: Objects, samples: int, num_classes: int
) -> RegionTargets:
    """Samples the regions of one image for the loss of the box head; at most a quarter of them are positive.

    Args:
        rng: of the sampling.
        boxes: the proposals; the objects' own boxes are added in front of them.
        valid: which proposals are not padding.
        objects: the objects of the image.
        samples: the number of regions.
        num_classes: the number of classes, which is also the label of the background.
    """
    boxes = jnp.concatenate([objects.boxes, boxes])
    valid = jnp.concatenate([objects.valid, valid])
    assigned = _assign_regions(ops.box_iou(objects.boxes, boxes), objects.valid, valid)
    indices, drawn, positive = ops.sample(rng, assigned > 0, assigned == 0, samples, _BOX_POSITIVES)
    held = jnp.maximum(assigned[indices] - 1, 0)
    labels = jnp.where(positive, objects.labels[held], num_classes)
    deltas = ops.encode_boxes(boxes[indices], objects.boxes[held], BOX_STDS)
    return RegionTargets(boxes[indices], drawn, positive, labels, deltas, held)


def rpn_losses(scores: Float[Array, "B S"], deltas: Float[Array, "B S 4"], targets: AnchorTargets) -> dict[str, Part]:
    """Returns the losses of the region proposals at the sampled anchors; both are divided by the number of anchors."""
    count = jnp.sum(targets.valid, dtype=jnp.float32)
    entropies = optax.sigmoid_binary_cross_entropy(scores, targets.positive.astype(jnp.float32))
    distances = jnp.sum(jnp.abs(deltas - targets.deltas), axis=-1)
    return {
        "rpn_score_loss": (jnp.sum(entropies * targets.valid), count),
        "rpn_box_loss": (jnp.sum(jnp.where(targets.positive, distances, 0)), count),
    }


def box_losses(logits: Float[Array, "B S K+1"], deltas: Float[Array, "B S K 4"], targets: RegionTargets) -> dict[str, Part]:
    """Returns the losses and the accuracy of the box head at the sampled regions, divided by the number of regions."""
    count = jnp.sum(targets.valid, dtype=jnp.float32)
    own = targets.labels[..., None] == jnp.arange(logits.shape[-1])
    entropies = jax.nn.logsumexp(logits, axis=-1) - jnp.sum(jnp.where(own, logits, 0), axis=-1)
    predicted = jnp.sum(jnp.where(own[..., :-1, None], deltas, 0), axis=-2)
    distances = jnp.sum(jnp.abs(predicted - targets.deltas), axis=-1)
    right = jnp.argmax(logits, axis=-1) == targets.labels
    return {
        "class_loss": (jnp.sum(entropies * targets.valid), count),
        "box_loss": (jnp.sum(jnp.where(targets.positive, distances, 0)), count),
        "accuracy": (jnp.sum(right & targets.valid, dtype=jnp.float32), count),
    }


def mask_loss(
    logits: Float[Array, "B S 28 28 K"], labels: Int[Array, "B S"], wanted: Bool[Array, "B S 28 28"], valid: Bool[Array, "B S"]
) -> Part:
    """Returns the loss of the mask head: the mean cross-entropy over the bins of the mask of a region's own class."""
    own = labels[:, :, None, None, None] == jnp.arange(logits.shape[-1])
    predicted = jnp.sum(jnp.where(own, logits, 0), axis=-1)
    entropies = jnp.mean(optax.sigmoid_binary_cross_entropy(predicted, wanted.astype(jnp.float32)), axis=(2, 3))
    return jnp.sum(jnp.where(valid, entropies, 0)), jnp.sum(valid, dtype=jnp.float32)


def detection_loss(
    model: Detector, variables: dict[str, PyTree], batch: dict[str, Array], rng: jax.Array, train: bool = True
) -> LossOutput:
    """Returns the sum of the five losses of Mask R-CNN, each averaged over its samples in the whole batch.

    Args:
        model: the detector.
        variables: the model's variables.
        batch: `image` (B, H, W, C), normalized and 0 beyond `size` (B, 2); `boxes` (B, G, 4), `labels` (B, G),
            `object_valid` (B, G) and `bitmaps` (B, G, H, W) of the objects; and `valid` (B,).
        rng: for stochastic depth and sampling.
        train: whether stochastic depth is on, and the teacher's BatchNorm uses the statistics of the batch.
    """
    dropout_rng, anchor_rng, region_rng = jax.random.split(rng, 3)
    outputs, updates = model.apply(
        variables,
        batch,
        jax.random.split(anchor_rng, len(batch["image"])),
        jax.random.split(region_rng, len(batch["image"])),
        train,
        rngs={"dropout": dropout_rng},
        mutable=["batch_stats"],
        method=_losses,
    )
    losses = {name: part for name, part in outputs.items() if name.endswith("_loss")}
    total = sum((part / jnp.maximum(count, 1) for part, count in losses.values()), jnp.zeros(()))
    return LossOutput(total, jnp.ones(()), updates.get("batch_stats", {}), outputs)


def _losses(model: Any, batch: dict[str, Array], anchor_rngs: Array, region_rngs: Array, train: bool) -> dict[str, Part]:
    """Runs a bound model up to each of its heads, and returns the losses of their outputs."""
    config = model.config
    valid = batch["valid"] > 0
    objects = Objects(batch["boxes"], batch["labels"], batch["object_valid"] & valid[:, None])
    pyramid = model.pyramid(batch["image"], train)
    scores, deltas = model.region_scores(pyramid)

    anchors = jnp.concatenate(level_anchors(pyramid))
    of_anchors = jax.vmap(lambda rng, of_image: anchor_targets(rng, anchors, of_image, config.rpn_samples))(
        anchor_rngs, objects
    )
    of_anchors = of_anchors._replace(valid=of_anchors.valid & valid[:, None])
    sampled_scores = jnp.take_along_axis(jnp.concatenate(scores, axis=1), of_anchors.indices, axis=1)
    sampled_deltas = jnp.take_along_axis(jnp.concatenate(deltas, axis=1), of_anchors.indices[..., None], axis=1)
    losses = rpn_losses(sampled_scores, sampled_deltas, of_anchors)

    fixed = jax.lax.stop_gradient((scores, deltas))
    proposals = model.propose(pyramid, *fixed, batch["size"], config.train_candidates)
    regions = jax.vmap(region_targets, in_axes=(0, 0, 0, 0, None, None))(
        region_rngs, proposals.boxes, proposals.valid, objects, config.box_samples, config.num_classes
    )
    regions = jax.lax.stop_gradient(regions._replace(valid=regions.valid & valid[:, None]))
    logits, box_deltas = model.classify(pyramid, regions.boxes, regions.valid)
    losses |= box_losses(logits, box_deltas, regions)

    few = jax.tree.map(lambda x: x[:, : config.mask_samples], regions)
    holding = few.positive & few.valid
    wanted = jax.vmap(ops.mask_targets)(batch["bitmaps"], few.boxes, few.objects)
    masks = model.draw(pyramid, few.boxes, holding)
    return losses | {"mask_loss": mask_loss(masks, few.labels, wanted, holding)}
