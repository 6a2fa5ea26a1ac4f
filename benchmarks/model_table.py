"""Prints the parameters and multiply-adds of every model next to the published figures.

    python -m benchmarks.model_table [--json PATH]

Ours are exact counts at the model's native image size; the published ones are from the README of the official repository
(ImageNet-1k, 224 pixels). Nothing is trained or timed: accuracies are the published ones only.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks.count import multiply_adds
from benchmarks.measure import table
from paca_jax.command_line import Parser, command_line
from paca_jax.models import PaCaConfig, create_model, list_models


class Published(NamedTuple):
    """Figures from the official README.

    Attributes:
        parameters: the parameters in millions.
        gflops: the multiply-adds in billions.
        top1: the ImageNet-1k accuracy in percent.
    """

    parameters: float
    gflops: float
    top1: float


PUBLISHED = {
    "pacavit_tiny_p2cconv_100_0": Published(12.2, 3.2, 80.9),
    "pacavit_small_p2cconv_100_0": Published(22.0, 5.5, 83.08),
    "pacavit_base_p2cconv_100_0": Published(46.9, 9.5, 83.96),
    "pacavit_small_p2cmlp_100_0": Published(22.6, 5.9, 83.13),
    "pacavit_small_p2cconv_2_0": Published(22.0, 4.7, 82.28),
    "pacavit_small_p2cconv_49_0": Published(22.0, 5.0, 82.95),
    "pacavit_small_p2cconv_49_100": Published(22.2, 5.3, 82.98),
    "pacavit_small_p2cconv_100_49": Published(22.2, 5.3, 82.87),
    "pacavit_small_p2cconv_100": Published(22.3, 5.6, 83.05),
    "pacavit_small_p2cconv_100_blockwise": Published(24.1, 6.1, 82.93),
    "pacavit_convmixer_small_100": Published(21.1, 5.4, 83.17),
    "pacavit_convmixer_base_100": Published(46.7, 9.7, 84.22),
}

NOTE = (
    "GFLOPs are multiply-adds (10^9) of matrix products and convolutions at the model's native size (224 pixels; 32 for nano). "
    "They agree with the published ones within 0.06, and within 0.12 for the models with a teacher: fvcore, the tool of the "
    "official script, leaves out the teacher's depthwise convolutions (padding 'same') and counts 5 for each element of a "
    "LayerNorm. Run on the official code it gives 5.44 and 9.73 for the models with a teacher and 4.67 for [2, 2, 2, 0]. The "
    "official code of the base model with a teacher has 47.66M parameters, not the published 46.7M."
)


def list_classifiers() -> list[str]:
    """Returns the models in the table."""
    return [name for name in list_models() if name.startswith("pacavit_")]


def count_model(name: str) -> dict[str, Any]:
    """Returns the row of one model: its name, clusters, image size, parameters, multiply-adds and the published figures."""
    model = create_model(name)
    config = model.config
    images = jax.ShapeDtypeStruct((1, config.image_size, config.image_size, config.image_channels), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    published = PUBLISHED.get(name)
    return {
        "model": name,
        "clusters": describe_clusters(config),
        "image_size": config.image_size,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(variables["params"])),
        "multiply_adds": multiply_adds(model.apply, variables, images),
        "published": None if published is None else published._asdict(),
    }


def describe_clusters(config: PaCaConfig) -> str:
    """Returns a short description of the clusters of each stage and the source of the assignments."""
    numbers = "[" + ", ".join(map(str, config.clusters)) + "]"
    if config.teacher:
        return f"{numbers} teacher"
    return f"{numbers} {config.clustering}" + (", every block" if set(config.clustering_periods) == {1} else "")


def markdown(rows: list[dict[str, Any]]) -> str:
    """Returns the rows as a Markdown table with a note below."""
    lines = []
    for row in rows:
        ours = (f"{row['parameters']:,}", f"{row['multiply_adds'] / 1e9:.{2 if row['multiply_adds'] > 1e8 else 4}f}")
        theirs = ("-", "-", "-")
        if row["published"]:
            published = Published(**row["published"])
            theirs = (f"{published.parameters}M", f"{published.gflops}", f"{published.top1:g}")
        lines.append((f"`{row['model']}`", row["clusters"], *ours, *theirs))
    numbers = ("parameters", "GFLOPs", "published parameters", "published GFLOPs", "published top-1")
    return f"{table(('model', 'clusters'), numbers, lines)}\n\n{NOTE}"


def main() -> None:
    """Prints the table of all classifiers and writes the JSON file."""
    parser = Parser(description="Parameters and multiply-adds of every classifier.")
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write the rows as JSON")
    arguments = parser.parse_args()
    rows = [count_model(name) for name in list_classifiers()]
    print(markdown(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps({"note": NOTE, "models": rows}, indent=2) + "\n")


if __name__ == "__main__":
    with command_line():
        main()
