"""The effects of a model's clusters as values for JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from paca_jax.errors import UserError, check
from paca_jax.explain.checks import checked_names
from paca_jax.explain.inspection.block_effects import BlockEffects
from paca_jax.explain.inspection.cluster_effects import ClusterEffects, RemovalCurves

# The number of changed values in the entry of a cluster.
TOP = 5
# By the kind of the model: the key of its confidence, of the values of an answer, and of one value.
WORDS: Mapping[str, tuple[str, str, str]] = {
    "classifier": ("probability", "logits", "logit"),
    "segmentor": ("probability", "classes", "fraction"),
    "detector": ("score", "objects", "score"),
}


def effect_report(blocks: Mapping[str, BlockEffects], pictures: Sequence[str], class_names: Sequence[str]) -> dict[str, Any]:
    """Returns effects as values that JSON has.

    The words are those of the kind of the model:

    - of a classifier, the `name` and `probability` of the predicted class, and the `logits` that change most;
    - of a segmentor, the `classes` with the `fraction` of the image that they cover, the `probability` of the predicted
      classes, and the `classes` whose fractions change most;
    - of a detector, the `objects` with `box` and `score`, the mean `score`, and the `objects` whose scores change most.

    Drops are in nats, for a detector in scores; see `ClusterEffects`.

    Args:
        blocks: the effects by the block that computes the assignment.
        pictures: the names of the B pictures, all different.
        class_names: the names of the model's classes.

    Returns:
        Under "model", its kind. Under "blocks", for each block means over pictures: the `areas` under the curves and those of
        random orders; the `drops` without one cluster, the `strongest` of each picture, the `strongest_elsewhere`, chosen by
        all other pictures (None for one picture), and a `random` one; and the `confidences` with all clusters and without any.
        Under "pictures", for each picture its answer, and by block its curves and its clusters, those with the largest drop
        first.

    Raises:
        UserError: if there are no effects, or the names are not as many or not different.
    """
    names = checked_names(class_names)
    check(bool(blocks), "Expected the effects of at least one block, got none. Choose a model with clusters.")
    check(len(set(pictures)) == len(pictures), "Expected different names of pictures, got one twice. Leave it out.")
    for effects, _ in blocks.values():
        _check_counts(effects, pictures, names)
    first = next(iter(blocks.values())).effects
    answers = {picture: {**_answer(first, index, names), "blocks": {}} for index, picture in enumerate(pictures)}
    for block, (effects, curves) in blocks.items():
        for index, answer in enumerate(answers.values()):
            answer["blocks"][block] = {
                "deletion": curves.deletion[index].tolist(),
                "insertion": curves.insertion[index].tolist(),
                "clusters": [_cluster(effects, index, cluster, names) for cluster in effects.order[index].tolist()],
            }
    return {"model": first.kind, "blocks": {block: _means(*each) for block, each in blocks.items()}, "pictures": answers}


def _check_counts(effects: ClusterEffects, pictures: Sequence[str], names: Sequence[str]) -> None:
    images, values = effects.values.shape
    if images != len(pictures) or (effects.kind != "detector" and values != len(names)) or effects.labels.max() >= len(names):
        found = f"{images} pictures" + ("" if effects.kind == "detector" else f" and {values} classes")
        raise UserError(
            f"Expected a name for each picture and class of the effects, got those of {found} with {len(pictures)} and "
            f"{len(names)} names. Pass a name for each."
        )


def _means(effects: ClusterEffects, curves: RemovalCurves) -> dict[str, Any]:
    """Returns what all pictures have in common."""
    drops, elsewhere = effects.drops, None
    if len(drops) > 1:
        elsewhere = float(np.take_along_axis(drops, effects.order_elsewhere[:, :1], axis=1).mean())
    named = ("deletion", "random_deletion", "insertion", "random_insertion")
    return {
        "clusters": int(curves.counts[-1]),
        "counts": curves.counts.tolist(),
        "areas": {name: float(np.mean(curves.area(getattr(curves, name)))) for name in named},
        "drops": {
            "strongest": float(drops.max(1).mean()),
            "strongest_elsewhere": elsewhere,
            "random": float(drops.mean()),
        },
        "confidences": {"with_all": float(curves.deletion[:, 0].mean()), "without_any": float(curves.deletion[:, -1].mean())},
    }


def _answer(effects: ClusterEffects, index: int, names: Sequence[str]) -> dict[str, Any]:
    """Returns the answer to a picture with all clusters."""
    confidence, values, one = WORDS[effects.kind]
    sure = {confidence: float(effects.confidences[index])}
    if effects.kind == "classifier":
        return {"name": names[int(effects.values[index].argmax())], **sure}
    rows = [
        {"name": names[effects.labels[index, row]], one: float(effects.values[index, row])}
        | ({} if effects.boxes is None else {"box": effects.boxes[index, row].tolist()})
        for row in np.argsort(-effects.values[index], kind="stable").tolist()
        if effects.values[index, row] > 0
    ]
    return {values: rows, **sure}


def _cluster(effects: ClusterEffects, index: int, cluster: int, names: Sequence[str]) -> dict[str, Any]:
    """Returns the entry of one cluster of a picture."""
    confidence, values, _ = WORDS[effects.kind]
    drop, before = float(effects.drops[index, cluster]), float(effects.confidences[index])
    changes = effects.changes[index, cluster]
    order = [row for row in np.argsort(-np.abs(changes), kind="stable").tolist() if effects.labels[index, row] >= 0]
    return {
        "cluster": cluster,
        "drop": drop,
        confidence: before - drop if effects.kind == "detector" else before * float(np.exp(-drop)),
        values: [_change(effects, index, row, float(changes[row]), names) for row in order[:TOP]],
    }


def _change(effects: ClusterEffects, index: int, row: int, change: float, names: Sequence[str]) -> dict[str, Any]:
    """Returns one changed value; objects are numbered from 1 in the order of their scores, for several may have one class."""
    number = {"object": row + 1} if effects.kind == "detector" else {}
    return {**number, "name": names[effects.labels[index, row]], "change": change}
