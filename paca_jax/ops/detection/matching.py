"""Which ground truth a box answers for in training, and which boxes a loss is computed on."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

IGNORED = -1
BACKGROUND = 0


def assign_boxes(
    iou: Float[Array, "G N"],
    gt_valid: Bool[Array, "G"],
    valid: Bool[Array, "N"],
    *,
    positive: float,
    negative: float,
    min_positive: float,
    low_quality: bool = True,
) -> Int[Array, "N"]:
    """Assigns each box to a ground truth, to the background or to nobody, as mmdet's `MaxIoUAssigner` does.

    A box belongs to the ground truth that it overlaps most (the first of equals) where that overlap reaches `positive`, and to
    the background where it is below `negative`. Then every ground truth takes the boxes that overlap it most, all of equals,
    whatever they belonged to; of two that want one box, the later has it. Crowds are no ground truth: leave them out of
    `gt_valid`.

    Args:
        iou: overlaps of ground truths with boxes (`box_iou`).
        gt_valid: which ground truths exist.
        valid: which boxes exist; the others are ignored and nobody's best.
        positive: the least overlap of a ground truth's box.
        negative: what the background's largest overlap is below.
        min_positive: the least overlap at which a ground truth takes the boxes that overlap it most.
        low_quality: whether ground truths take boxes that do not reach `positive` at all.

    Returns:
        1 + the index of the ground truth, 0 for the background, -1 for nobody.
    """
    # Maxima are compared with the very numbers that they were taken from: a compiler may otherwise compute the overlaps twice.
    iou = jax.lax.optimization_barrier(jnp.where(gt_valid[:, None] & valid, iou, -1.0))
    largest = jnp.max(iou, axis=0, initial=-1.0)
    assigned = jnp.where(largest < negative, BACKGROUND, IGNORED)
    if len(iou):
        assigned = jnp.where(largest >= positive, jnp.argmax(iou, axis=0) + 1, assigned)
    if low_quality:
        best = jnp.max(iou, axis=1, keepdims=True, initial=-1.0)
        taken = (iou == best) & (best >= min_positive)
        taker = jnp.max(jnp.where(taken, jnp.arange(1, len(iou) + 1)[:, None], 0), axis=0, initial=0)
        assigned = jnp.where(taker > 0, taker, assigned)
    return jnp.where(valid, assigned, IGNORED).astype(jnp.int32)


def sample(
    rng: Array, positive: Bool[Array, "N"], negative: Bool[Array, "N"], count: int, positive_fraction: float
) -> tuple[Int[Array, "S"], Bool[Array, "S"], Bool[Array, "S"]]:
    """Draws `count` boxes at random without replacement; positives come first, negatives fill up what they leave.

    Args:
        rng: decides everything.
        positive: the boxes of some ground truth.
        negative: the background's boxes.
        count: S, how many to draw.
        positive_fraction: the largest fraction of positives among them.

    Returns:
        The indices of the drawn boxes, which of the entries were drawn (there may be too few boxes), and which are positive.
    """
    if not len(positive):
        return jnp.zeros(count, jnp.int32), jnp.zeros(count, bool), jnp.zeros(count, bool)
    priorities = jax.random.uniform(rng, positive.shape)
    most = min(int(count * positive_fraction), len(positive))
    positives, positive_indices = jax.lax.top_k(jnp.where(positive, priorities, -1), most)
    negatives, negative_indices = jax.lax.top_k(jnp.where(negative, priorities, -1), min(count, len(negative)))
    positive_count, negative_count = jnp.sum(positives >= 0), jnp.sum(negatives >= 0)
    entries = jnp.arange(count)
    is_positive = entries < positive_count
    from_positives = positive_indices.at[entries].get(mode="fill", fill_value=0)
    from_negatives = negative_indices.at[entries - positive_count].get(mode="fill", fill_value=0)
    indices = jnp.where(is_positive, from_positives, from_negatives)
    valid = entries < positive_count + negative_count
    return jnp.where(valid, indices, 0), valid, is_positive
