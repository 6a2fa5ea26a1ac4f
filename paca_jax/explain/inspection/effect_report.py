"""The effects of a classifier's clusters as values for JSON, and as tables for people."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from paca_jax.errors import UserError, check, one_line
from paca_jax.explain.checks import checked_names
from paca_jax.explain.inspection.cluster_effects import BlockEffects, RemovalCurves

# The number of classes whose logits a cluster's entry has, and of clusters in a table.
TOP = 5


def effect_report(
    blocks: Mapping[str, BlockEffects], pictures: Sequence[str], class_names: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Returns effects as values that JSON has.

    Args:
        blocks: the effects by the block that computes the assignment.
        pictures: the names of the B pictures, all different.
        class_names: the names of the K classes.

    Returns:
        Under "blocks", for each block, the areas under the curves, averaged over pictures, and those of random orders. Under
        "pictures", for each picture, the `name` and `probability` of the predicted class, and by block its curves and its
        clusters, those with the largest drop first: the `drop` of the predicted class's log-probability in nats, the
        `probability` without the cluster, and the `logits` that change most, with the `name` of the class and the `change`.

    Raises:
        UserError: if there are no effects, the names are not as many or not different, or an output is not finite.
    """
    names = checked_names(class_names)
    check(bool(blocks), "Expected the effects of at least one block, got none. Choose a model with clusters.")
    check(len(set(pictures)) == len(pictures), "Expected different names of pictures, got one twice. Leave it out.")
    for effects, _ in blocks.values():
        if effects.logits.shape != (len(pictures), len(names)):
            wanted = f"{len(pictures)} pictures and {len(names)} classes"
            raise UserError(f"Expected effects for {wanted}, got logits of shape {effects.logits.shape}. Pass a name for each.")
        if not (np.isfinite(effects.logits).all() and np.isfinite(effects.changes).all()):
            raise UserError("Expected finite outputs of the model, got NaN or infinity. Take other weights.")
    answers: dict[str, dict[str, Any]] = {}
    for index, picture in enumerate(pictures):
        effects, curves = next(iter(blocks.values()))
        name = names[int(effects.logits[index].argmax())]
        answers[picture] = {"name": name, "probability": float(curves.deletion[index, 0]), "blocks": {}}
    for block, (effects, curves) in blocks.items():
        drops = effects.drops
        for index, answer in enumerate(answers.values()):
            answer["blocks"][block] = {
                "deletion": curves.deletion[index].tolist(),
                "insertion": curves.insertion[index].tolist(),
                "clusters": _clusters(drops[index], effects.changes[index], answer["probability"], names),
            }
    return {"blocks": {block: _areas(curves) for block, (_, curves) in blocks.items()}, "pictures": answers}


def _areas(curves: RemovalCurves) -> dict[str, Any]:
    named = ("deletion", "random_deletion", "insertion", "random_insertion")
    return {
        "clusters": int(curves.counts[-1]),
        "counts": curves.counts.tolist(),
        "areas": {name: float(np.mean(curves.area(getattr(curves, name)))) for name in named},
    }


def _clusters(
    drops: Float[np.ndarray, "M"], changes: Float[np.ndarray, "M K"], probability: float, names: Sequence[str]
) -> list[dict[str, Any]]:
    """Returns the entries of the clusters of a picture, those with the largest drop first."""
    return [
        {
            "cluster": int(cluster),
            "drop": float(drops[cluster]),
            "probability": probability * float(np.exp(-drops[cluster])),
            "logits": _largest(changes[cluster], names),
        }
        for cluster in np.argsort(-drops, kind="stable")
    ]


def _largest(changes: Float[np.ndarray, "K"], names: Sequence[str]) -> list[dict[str, Any]]:
    """Returns the classes that change most."""
    order = np.argsort(-np.abs(changes), kind="stable")[:TOP]
    return [{"name": names[index], "change": float(changes[index])} for index in order]


def effect_tables(report: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the tables of a report in Markdown: the blocks, and the clusters with the largest drop for each picture."""
    lines = [
        "# What the clusters do",
        "",
        "Areas under the probability of the predicted class while clusters are removed (deletion) or put back (insertion), "
        "averaged over pictures. An order that knows what clusters do has less deletion and more insertion than random orders; "
        "a little of that is expected, for the order comes from the same picture.",
        "",
        *_table(
            ("block", "clusters", "deletion", "at random", "insertion", "at random"),
            [
                (block, str(found["clusters"]), *(f"{area:.3f}" for area in found["areas"].values()))
                for block, found in report["blocks"].items()
            ],
        ),
    ]
    for picture, answer in report["pictures"].items():
        lines += ["", f"## {_cell(picture)}", "", f"{_cell(answer['name'])}, {answer['probability']:.1%}", ""]
        rows = [
            (
                f"{block} #{entry['cluster']}",
                f"{entry['drop']:+.3f}",
                f"{entry['probability']:.1%}",
                ", ".join(f"{each['name']} {each['change']:+.2f}" for each in entry["logits"]),
            )
            for block, found in answer["blocks"].items()
            for entry in found["clusters"][:TOP]
        ]
        lines += _table(("without", "drop in nats", "probability", "logits that change most"), rows)
    return "\n".join(lines) + "\n"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(map(_cell, row))} |" for row in (header, (":--",) * len(header), *rows)]


def _cell(text: str) -> str:
    """Returns a text that stays in one cell of a table."""
    return one_line(text).replace("|", "\\|")
