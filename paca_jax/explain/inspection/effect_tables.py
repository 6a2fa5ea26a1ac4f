"""The effects of a model's clusters as tables for people."""

from collections.abc import Mapping
from typing import Any

from paca_jax.explain.inspection.effect_report import TOP, WORDS
from paca_jax.explain.inspection.markdown import cell, table

# By the kind of the model: the answer of which a curve shows the confidence, and the columns of the tables of pictures.
_CONFIDENCE = {
    "classifier": "probability of the predicted class",
    "segmentor": "probability of the predicted classes (geometric mean over the image)",
    "detector": "mean score of the objects that are found with all clusters",
}
_COLUMNS = {
    "classifier": ("without", "drop in nats", "probability", "logits that change most"),
    "segmentor": ("without", "drop in nats", "probability", "classes that change most, in percent of the image"),
    "detector": ("without", "drop", "mean score", "objects whose scores change most, in percent"),
}
_LEGEND = """\
Areas are those under its curve while clusters are removed (deletion) or put back (insertion). An order that knows what clusters
do has less deletion and more insertion than random orders; a little of that is expected, for the order comes from the same
picture.

Drops are what it loses without one cluster, {unit}: the strongest cluster of each picture, chosen after the fact; the one that
is the strongest in all other pictures; and a random one. A cluster with a purpose in all pictures shows in the second.
"""


def effect_tables(report: Mapping[str, Any]) -> str:
    """Returns the tables of a report of `effect_report` in Markdown: the blocks, and each picture's strongest clusters."""
    kind = report["model"]
    unit = "in scores" if kind == "detector" else "in nats of its logarithm"
    return "\n".join(
        [
            "# What the clusters do",
            "",
            f"Means over pictures of the {_CONFIDENCE[kind]}.",
            "",
            _LEGEND.format(unit=unit),
            *_block_tables(report["blocks"]),
            *(line for picture, answer in report["pictures"].items() for line in _picture_lines(kind, picture, answer)),
            "",
        ]
    )


def _block_tables(blocks: Mapping[str, Any]) -> list[str]:
    areas = [
        (block, str(found["clusters"]), *(f"{area:.3f}" for area in found["areas"].values())) for block, found in blocks.items()
    ]
    drops = [
        (
            block,
            *(f"{value:.3f}" for value in found["confidences"].values()),
            *("" if drop is None else f"{drop:+.4f}" for drop in found["drops"].values()),
        )
        for block, found in blocks.items()
    ]
    return [
        *table(("area of", "clusters", "deletion", "at random", "insertion", "at random"), areas),
        "",
        *table(("drop of", "with all", "without any", "strongest", "strongest elsewhere", "random"), drops),
    ]


def _picture_lines(kind: str, picture: str, answer: Mapping[str, Any]) -> list[str]:
    """Returns the section of a picture: its answer, and the clusters of each block with the largest drops."""
    confidence, values, one = WORDS[kind]
    if kind == "classifier":
        text = f"{answer['name']}, {answer[confidence]:.1%}"
    else:
        listed = ", ".join(f"{each['name']} {each[one]:.1%}" for each in answer[values]) or "no object"
        text = f"{listed}; {_COLUMNS[kind][2]} {answer[confidence]:.1%}"
    rows = [
        (
            f"{block} #{entry['cluster']}",
            f"{entry['drop']:+.3f}",
            f"{entry[confidence]:.1%}",
            ", ".join(_change(kind, each) for each in entry[values]),
        )
        for block, found in answer["blocks"].items()
        for entry in found["clusters"][:TOP]
    ]
    return ["", f"## {cell(picture)}", "", cell(text), "", *table(_COLUMNS[kind], rows)]


def _change(kind: str, changed: Mapping[str, Any]) -> str:
    scale = 1 if kind == "classifier" else 100
    return f"{changed['name']} {changed['change'] * scale:+.2f}"
