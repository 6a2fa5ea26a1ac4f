"""Times the forward pass and the training gradient of a model, and where asked of the official PyTorch code's.

    python benchmarks/step_time.py --model pacavit_nano --batch 64 [--image-size 32] [--dtype float32] [--official FOLDER]

Times are of one call on one device: medians after a warm-up that compiles, the two codes called in turn. The gradient is that
of the cross-entropy with respect to every parameter, in training mode (stochastic depth at the model's rate, batch statistics);
there is no optimizer in it. The official model is timed as its code runs it, without torch.compile; bfloat16 is autocast there.
"""

import argparse
import importlib
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.official import build_official
from paca_jax.errors import UserError
from paca_jax.models import PaCaViT, create_model

CLASSES = 1000
PASSES = ("forward", "gradient")
Calls = dict[str, Callable[[], Any]]


def jax_calls(model: PaCaViT, images: np.ndarray, labels: np.ndarray) -> Calls:
    """Returns the two passes of our model, each to call without arguments; each returns when the device is done."""
    x, y = jnp.asarray(images), jnp.asarray(labels)
    variables = jax.jit(model.init)(jax.random.key(0), x[:1])
    rng = jax.random.key(1)

    @jax.jit
    def forward(variables: Any, x: jax.Array) -> Any:
        return model.apply(variables, x)

    @jax.jit
    def gradient(variables: Any, x: jax.Array, y: jax.Array, rng: jax.Array) -> Any:
        def loss(params: Any) -> tuple[jax.Array, Any]:
            logits, updates = model.apply(
                {**variables, "params": params}, x, train=True, rngs={"dropout": rng}, mutable=["batch_stats"]
            )
            return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1)), updates

        return jax.value_and_grad(loss, has_aux=True)(variables["params"])

    return {
        "forward": lambda: jax.block_until_ready(forward(variables, x)),
        "gradient": lambda: jax.block_until_ready(gradient(variables, x, y, rng)),
    }


def torch_calls(network: Any, images: np.ndarray, labels: np.ndarray, dtype: str) -> Calls:
    """Returns the two passes of the official model, as `jax_calls` does."""
    torch = importlib.import_module("torch")
    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    network = network.to(device)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().to(device)
    y = torch.from_numpy(labels).long().to(device)

    def finish() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    def forward() -> None:
        network.eval()
        with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16"):
            network(x)
        finish()

    def gradient() -> None:
        network.train()
        network.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16"):
            loss = torch.nn.functional.cross_entropy(network(x), y)
        loss.backward()
        finish()

    return {"forward": forward, "gradient": gradient}


def _check_same_size(model: PaCaViT, network: Any) -> None:
    config = model.config
    images = jax.ShapeDtypeStruct((1, config.image_size, config.image_size, config.image_channels), jnp.float32)
    ours = sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(model.init, jax.random.key(0), images)["params"]))
    theirs = sum(parameter.numel() for parameter in network.parameters())
    if ours != theirs:
        raise UserError(f"The two models differ: ours has {ours:,} parameters, the official code's {theirs:,}.")


def median_seconds(calls: Calls, repeats: int, warm_up: int = 2) -> dict[str, float]:
    """Returns each call's median duration in seconds over `repeats` rounds, after `warm_up` rounds that do not count.

    A round makes each call once, so that whatever else the machine does strikes them alike.
    """
    durations: dict[str, list[float]] = {name: [] for name in calls}
    for index in range(warm_up + repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if index >= warm_up:
                durations[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in durations.items()}


def markdown(rows: list[dict[str, Any]]) -> str:
    """Returns the rows as a table; the ratio is ours over the official code's, in images per second."""
    lines = ["| pass | code | ms | images/s | ratio |", "|:--|:--|--:|--:|--:|"]
    official = {row["pass"]: row["images_per_second"] for row in rows if row["code"] == "official PyTorch"}
    for row in rows:
        ours = row["code"] == "paca_jax" and row["pass"] in official
        ratio = f"{row['images_per_second'] / official[row['pass']]:.2f}" if ours else ""
        lines.append(f"| {row['pass']} | {row['code']} | {row['ms']:.1f} | {row['images_per_second']:.1f} | {ratio} |")
    return "\n".join(lines)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Times what was asked for.

    Returns:
        The settings and `rows`: pass, code, ms and images_per_second.

    Raises:
        UserError: if the model is unknown, or the official code cannot be built.
    """
    size = arguments.image_size
    overrides = {} if size is None else {"image_size": size}
    model = create_model(arguments.model, num_classes=CLASSES, dtype=arguments.dtype, **overrides)
    size = model.config.image_size
    rng = np.random.default_rng(0)
    images = rng.normal(size=(arguments.batch, size, size, 3)).astype(np.float32)
    labels = rng.integers(0, CLASSES, arguments.batch)
    calls = {"paca_jax": jax_calls(model, images, labels)}
    if arguments.official:
        network = build_official(arguments.official, arguments.model, model.config)
        _check_same_size(model, network)
        calls["official PyTorch"] = torch_calls(network, images, labels, arguments.dtype)
    rows = []
    for name in PASSES:
        medians = median_seconds({code: passes[name] for code, passes in calls.items()}, arguments.repeats)
        for code, seconds in medians.items():
            rows.append({"pass": name, "code": code, "ms": 1e3 * seconds, "images_per_second": arguments.batch / seconds})
    device = jax.devices()[0]
    return {
        "model": arguments.model,
        "batch": arguments.batch,
        "image_size": size,
        "dtype": arguments.dtype,
        "repeats": arguments.repeats,
        "device": device.device_kind,
        "jax": jax.__version__,
        "rows": rows,
    }


def main() -> None:
    """Prints the table, and writes it as JSON where asked."""
    parser = argparse.ArgumentParser(description="Time of a forward pass and of a training gradient.")
    parser.add_argument("--model", default="pacavit_nano")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--image-size", type=int, help="side in pixels; by default the model's own")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--repeats", type=int, default=10, help="how many calls the median is taken of")
    parser.add_argument("--official", type=Path, metavar="FOLDER", help="a checkout of the official PyTorch code")
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write the figures as JSON")
    arguments = parser.parse_args()
    try:
        result = measure(arguments)
    except UserError as error:
        parser.error(str(error))
    print(f"{result['model']}, batch {result['batch']}, {result['image_size']} pixels, {result['dtype']}, {result['device']}\n")
    print(markdown(result["rows"]))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
