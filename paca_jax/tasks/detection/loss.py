"""The training loss of detectors: what region proposals, boxes and masks should be, and how far from it they are."""

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

# A sum, and by what to divide it.
Part = tuple[Float[Array, ""], Float[Array, ""]]


class Objects(NamedTuple):
    """The objects of an image.

    Attributes:
        boxes: in pixels.
        labels: their classes.
        valid: which entries there are.
    """

    boxes: Float[Array, "G 4"]
    labels: Int[Array, "G"]
    valid: Bool[Array, "G"]


class AnchorTargets(NamedTuple):
    """Sampled anchors of an image: which, which of them exist, which hold objects, and the deltas to those."""

    indices: Int[Array, "S"]
    valid: Bool[Array, "S"]
    positive: Bool[Array, "S"]
    deltas: Float[Array, "S 4"]


class RegionTargets(NamedTuple):
    """Sampled regions of an image, those that hold objects first.

    Attributes:
        boxes: in pixels.
        valid: which entries there are.
        positive: which hold objects.
        labels: their classes; the number of classes for background.
        deltas: to their objects.
        objects: which object each holds; 0 where it holds none.
    """

    boxes: Float[Array, "S 4"]
    valid: Bool[Array, "S"]
    positive: Bool[Array, "S"]
    labels: Int[Array, "S"]
    deltas: Float[Array, "S 4"]
    objects: Int[Array, "S"]


def anchor_targets(rng: Array, anchors: Float[Array, "N 4"], objects: Objects, samples: int) -> AnchorTargets:
    """Draws the anchors of one image that the loss of the region proposals is taken on, half of them positive at most."""
    everywhere = jnp.ones(len(anchors), bool)
    assigned = _assign_anchors(ops.box_iou(objects.boxes, anchors), objects.valid, everywhere)
    indices, valid, positive = ops.sample(rng, assigned > 0, assigned == 0, samples, _RPN_POSITIVES)
    wanted = objects.boxes[jnp.maximum(assigned[indices] - 1, 0)]
    return AnchorTargets(indices, valid, positive, ops.encode_boxes(anchors[indices], wanted, RPN_STDS))


def region_targets(
    rng: Array, boxes: Float[Array, "P 4"], valid: Bool[Array, "P"], objects: Objects, samples: int, num_classes: int
) -> RegionTargets:
    """Draws the regions of one image that the box head's loss is taken on, a quarter of them positive at most.

    Args:
        rng: decides the draw.
        boxes: proposals; the objects' own boxes are put before them.
        valid: which proposals there are.
        objects: the image's.
        samples: how many to draw.
        num_classes: classes; this number is the background's label.
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
    """Returns the losses of the region proposals at the sampled anchors; both are divided by the number of these."""
    count = jnp.sum(targets.valid, dtype=jnp.float32)
    entropies = optax.sigmoid_binary_cross_entropy(scores, targets.positive.astype(jnp.float32))
    distances = jnp.sum(jnp.abs(deltas - targets.deltas), axis=-1)
    return {
        "rpn_score_loss": (jnp.sum(entropies * targets.valid), count),
        "rpn_box_loss": (jnp.sum(jnp.where(targets.positive, distances, 0)), count),
    }


def box_losses(logits: Float[Array, "B S K+1"], deltas: Float[Array, "B S K 4"], targets: RegionTargets) -> dict[str, Part]:
    """Returns the losses of the box head at the sampled regions; both are divided by the number of these."""
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
    """Returns the loss of the mask head: the mean cross-entropy over the bins of a region's own class."""
    own = labels[:, :, None, None, None] == jnp.arange(logits.shape[-1])
    predicted = jnp.sum(jnp.where(own, logits, 0), axis=-1)
    entropies = jnp.mean(optax.sigmoid_binary_cross_entropy(predicted, wanted.astype(jnp.float32)), axis=(2, 3))
    return jnp.sum(jnp.where(valid, entropies, 0)), jnp.sum(valid, dtype=jnp.float32)


def detection_loss(
    model: Detector, variables: dict[str, PyTree], batch: dict[str, Array], rng: jax.Array, train: bool = True
) -> LossOutput:
    """Returns the five losses of Mask R-CNN, each divided by what it is taken on in the whole batch, and added up.

    Args:
        model: the detector.
        variables: the model's.
        batch: `image` (B, H, W, C), normalized and 0 beyond `size` (B, 2); `boxes` (B, G, 4), `labels` (B, G),
            `object_valid` (B, G) and `bitmaps` (B, G, H, W) of the objects; `valid` (B,): the images that count.
        rng: of stochastic depth and of the samples.
        train: whether stochastic depth acts and the teacher's BatchNorm takes the statistics of the batch.
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
    """Runs the networks of a bound model, and compares them with what they should have said."""
    config = model.config
    counts = batch["valid"] > 0
    objects = Objects(batch["boxes"], batch["labels"], batch["object_valid"] & counts[:, None])
    pyramid = model.pyramid(batch["image"], train)
    scores, deltas = model.region_scores(pyramid)

    anchors = jnp.concatenate(level_anchors(pyramid))
    of_anchors = jax.vmap(lambda rng, of_image: anchor_targets(rng, anchors, of_image, config.rpn_samples))(
        anchor_rngs, objects
    )
    of_anchors = of_anchors._replace(valid=of_anchors.valid & counts[:, None])
    sampled_scores = jnp.take_along_axis(jnp.concatenate(scores, axis=1), of_anchors.indices, axis=1)
    sampled_deltas = jnp.take_along_axis(jnp.concatenate(deltas, axis=1), of_anchors.indices[..., None], axis=1)
    losses = rpn_losses(sampled_scores, sampled_deltas, of_anchors)

    fixed = jax.lax.stop_gradient((scores, deltas))
    proposals = model.propose(pyramid, *fixed, batch["size"], config.train_candidates)
    regions = jax.vmap(region_targets, in_axes=(0, 0, 0, 0, None, None))(
        region_rngs, proposals.boxes, proposals.valid, objects, config.box_samples, config.num_classes
    )
    regions = jax.lax.stop_gradient(regions._replace(valid=regions.valid & counts[:, None]))
    logits, box_deltas = model.classify(pyramid, regions.boxes, regions.valid)
    losses |= box_losses(logits, box_deltas, regions)

    few = jax.tree.map(lambda x: x[:, : config.mask_samples], regions)
    holding = few.positive & few.valid
    wanted = jax.vmap(ops.mask_targets)(batch["bitmaps"], few.boxes, few.objects)
    masks = model.draw(pyramid, few.boxes, holding)
    return losses | {"mask_loss": mask_loss(masks, few.labels, wanted, holding)}
