"""Times the implementations of operations on the default device of JAX, at the shapes of a model's stages.

    python -m benchmarks.operations [--model NAME] [--batch N] [--dtype bfloat16] [--rounds 10] [--json FILE]

Each row is an operation at one stage, alone: the depthwise convolution with GELU of the MLP and of clustering, LayerNorm, and
the attention of patches to clusters. Each implementation that takes the shape on this platform is timed, forward and with the
gradient. A round queues ten calls. The bytes are the fewest that the operation could move: operands and results, once each.
"""

import argparse
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax

from benchmarks.measure import add_json, device_name, interleaved, publish, quartiles, spread, table
from paca_jax import ops
from paca_jax.command_line import Parser, command_line
from paca_jax.errors import UserError
from paca_jax.models import PaCaConfig, model_config

_CALLS = 10


class Case(NamedTuple):
    """An operation at one stage.

    Attributes:
        operation: its name.
        maps: the height, width and channels of its maps.
        function: takes the implementation and the arrays.
        shapes: those of the arrays.
    """

    operation: str
    maps: tuple[int, int, int]
    function: Callable[..., jax.Array]
    shapes: tuple[tuple[int, ...], ...]


def add_stages(parser: argparse.ArgumentParser) -> None:
    """Adds the options `--model`, `--batch` and `--dtype`."""
    parser.add_argument("--model", default="pacavit_small_p2cconv_100_0", metavar="NAME", help="by default the small one")
    parser.add_argument("--batch", type=int, default=128, metavar="N", help="images, by default 128")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16", help="by default bfloat16")


def stage_cases(model: str, batch: int) -> Iterator[Case]:
    """Yields the operations of each stage of a classifier.

    Raises:
        UserError: if the library has no classifier of that name.
    """
    config = model_config(model)
    if not isinstance(config, PaCaConfig):
        raise UserError(f"Expected a classifier, got {model!r}. Choose a name that starts with pacavit_.")
    for stage, channels in enumerate(config.embed_dims):
        side = config.image_size // (4 * 2**stage)
        window, clusters = config.clustering_kernel_sizes[stage], config.clusters[stage]
        yield _depthwise(batch, (side, side, int(channels * config.mlp_ratios[stage])), 3, shortcut=True)
        yield _layer_norm(batch, (side, side, channels))
        if clusters:
            yield _depthwise(batch, (side, side, channels), window, shortcut=False)
            yield _attention(batch, (side, side, channels), clusters, config.num_heads[stage])


def _depthwise(batch: int, maps: tuple[int, int, int], side: int, shortcut: bool) -> Case:
    def function(implementation: ops.Implementation, x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
        return ops.depthwise_gelu(x, kernel, bias, shortcut, implementation)

    channels = maps[-1]
    return Case(f"depthwise {side}x{side}, GELU", maps, function, ((batch, *maps), (side, side, 1, channels), (channels,)))


def _layer_norm(batch: int, maps: tuple[int, int, int]) -> Case:
    def function(implementation: ops.Implementation, x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
        return ops.layer_norm(x, ops.NormWeights(scale, bias), implementation)

    return Case("layer norm", maps, function, ((batch, *maps), maps[-1:], maps[-1:]))


def _attention(batch: int, maps: tuple[int, int, int], clusters: int, heads: int) -> Case:
    def function(implementation: ops.Implementation, x: jax.Array, assignment: jax.Array, *layers: jax.Array) -> jax.Array:
        weights = ops.AttentionWeights(*layers)
        return ops.residual_attention(x, assignment, ops.ClusterWeights(), weights, heads, ops.Residual(), None, implementation)

    height, width, channels = maps
    patches = height * width
    layers = ((channels, channels), (channels,)) * 4
    return Case(f"attention to {clusters}", maps, function, ((batch, patches, channels), (batch, clusters, patches), *layers))


def measure(case: Case, implementation: str, dtype: str, gradient: bool, rounds: int) -> dict[str, Any] | None:
    """Returns `seconds` of a call (quartiles) and the fewest `bytes`, or None if the implementation does not take the case."""

    def run(*arrays: jax.Array) -> Any:
        if not gradient:
            return case.function(implementation, *arrays)
        y, pull = jax.vjp(lambda *arrays: case.function(implementation, *arrays), *arrays)
        return pull(y)

    arrays = [jax.random.normal(jax.random.key(k), shape, dtype) / 8 for k, shape in enumerate(case.shapes)]
    with ops.record_choices() as choices:
        try:
            lowered = jax.jit(run).lower(*arrays)
        except UserError:
            return None
    if implementation not in {choice.implementation for choice in choices}:
        return None  # the operation has no such form
    compiled = lowered.compile()

    def several() -> None:
        for _ in range(_CALLS):
            results = compiled(*arrays)
        jax.block_until_ready(results)

    seconds = quartiles([duration / _CALLS for duration in interleaved({"": several}, rounds)[""]])
    moved = sum(array.size * array.dtype.itemsize for array in (*arrays, *jax.tree.leaves(jax.eval_shape(run, *arrays))))
    return {"seconds": seconds._asdict(), "bytes": moved}


def markdown(rows: list[dict[str, Any]]) -> str:
    """Returns the rows as a table."""
    return table(
        ("operation", "maps", "implementation", "program"),
        ("us (quartiles)", "GB/s of the fewest bytes"),
        (
            (
                row["operation"],
                "x".join(map(str, row["maps"])),
                row["implementation"],
                "with gradient" if row["gradient"] else "forward",
                spread(row["seconds"], 1e6, 0),
                f"{row['bytes'] / row['seconds']['median'] / 1e9:.0f}",
            )
            for row in rows
        ),
    )


def main() -> None:
    """Prints the table and writes the JSON file."""
    parser = Parser(description=__doc__)
    add_stages(parser)
    parser.add_argument("--rounds", type=int, default=10, help="timed rounds, by default 10")
    add_json(parser)
    args = parser.parse_args()
    rows = []
    for case in stage_cases(args.model, args.batch):
        for implementation in ops.IMPLEMENTATIONS:
            for gradient in (False, True):
                found = measure(case, implementation, args.dtype, gradient, args.rounds)
                if found is not None:
                    case_row = {"operation": case.operation, "maps": case.maps, "implementation": implementation}
                    rows.append({**case_row, "gradient": gradient, **found})
    publish(markdown(rows), rows, args.json, device_name())


if __name__ == "__main__":
    with command_line():
        main()
