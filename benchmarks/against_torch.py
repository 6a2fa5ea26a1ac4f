"""Times a model against the same model in the official PyTorch code, in alternating steps.

    python -m benchmarks.against_torch --official FOLDER [--model NAME ...] [--batch N ...] [--image-size N ...]
        [--dtype bfloat16] [--torch eager channels_last compiled] [--rounds 10] [--steps N] [--json FILE]

FOLDER is a checkout of https://github.com/iVMCL/PaCaViT; its code needs torch, timm 0.9, mmengine, mmcv and einops. Inference
is the forward pass; training is cross-entropy, gradient and AdamW. Each code runs in its own process. A round runs one step of
each in turn (on a GPU ten, which are queued as in a run), so that other load on the machine affects them equally; the ratio is
computed per round, and above 1 ours is faster. The settings of PyTorch are `eager`, `channels_last` (the layout of images and
weights) and `compiled` (channels-last with torch.compile); its AdamW is fused, and bfloat16 runs under autocast. Both run on
the GPU if JAX finds one, with TensorFloat-32 for float32, and otherwise on the CPU with their default numbers of threads
(OMP_NUM_THREADS sets PyTorch's). Ours keeps freed memory, as `main.py` does.
"""

import copy
import dataclasses
import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax

from benchmarks.apart import Calls, apart
from benchmarks.measure import add_json, device_name, interleaved, publish, quartiles, spread, table
from benchmarks.official import build_official
from benchmarks.programs import (
    CLASSES,
    FORWARD,
    LEARNING_RATE,
    TRAINING,
    VIT,
    WEIGHT_DECAY,
    Case,
    Program,
    add_cases,
    add_steps,
    cases,
    programs,
    steps_at_once,
)
from paca_jax.command_line import Parser, command_line
from paca_jax.errors import UserError
from paca_jax.memory import keep_freed_memory

OURS = "paca_jax"
SETTINGS = ("eager", "channels_last", "compiled")


def torch_calls(case: Case, network: Any, setting: str, steps: int = 1) -> dict[str, Callable[[], None]]:
    """Returns the forward pass and the training step of a PyTorch network, as functions without arguments.

    Args:
        case: the input and its type.
        network: a `torch.nn.Module`, which is not changed.
        setting: one of `SETTINGS`.
        steps: the steps of a call, which are queued.
    """
    torch = importlib.import_module("torch")
    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    torch.set_float32_matmul_precision("high" if device == "cuda" else "highest")
    torch.backends.cudnn.benchmark = True
    layout = torch.contiguous_format if setting == "eager" else torch.channels_last
    images = torch.randn(case.batch, 3, case.image_size, case.image_size).to(device, memory_format=layout)
    labels = torch.randint(CLASSES, (case.batch,)).to(device)
    inferring, learning = (copy.deepcopy(network).to(device, memory_format=layout).train(train) for train in (False, True))
    optimizer = torch.optim.AdamW(learning.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)
    infer, learn = (torch.compile(one) if setting == "compiled" else one for one in (inferring, learning))
    autocast = torch.autocast(device, torch.bfloat16, enabled=case.dtype == "bfloat16")

    def several(step: Callable[[], None]) -> Callable[[], None]:
        def call() -> None:
            for _ in range(steps):
                step()
            if device == "cuda":
                torch.cuda.synchronize()

        return call

    def forward() -> None:
        with torch.inference_mode(), autocast:
            infer(images)

    def training() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast:
            loss = torch.nn.functional.cross_entropy(learn(images), labels)
        loss.backward()
        optimizer.step()

    return {FORWARD: several(forward), TRAINING: several(training)}


def measure(case: Case, folder: Path, settings: Sequence[str], rounds: int, steps: int) -> list[dict[str, Any]]:
    """Times both codes.

    Returns:
        For each program and code, `seconds` (quartiles) and `images_per_second`; for PyTorch also `ratio`: our images per
        second divided by its own, as quartiles over the rounds.

    Raises:
        UserError: if the official model cannot be built or differs from ours in size.
    """
    if case.model == VIT:
        raise UserError(f"Expected a model of the official code, got {VIT!r}. Choose a name that starts with pacavit_.")
    rows = []
    with ExitStack() as processes:
        calls = processes.enter_context(apart(official_calls, case, folder, settings, steps))
        calls |= processes.enter_context(apart(our_calls, case, steps))
        for name in (FORWARD, TRAINING):
            durations = interleaved({code: calls[code, name] for code in (OURS, *settings)}, rounds)
            of_a_step = {code: [value / steps for value in values] for code, values in durations.items()}
            for row in compare(of_a_step, case.batch):
                rows.append({**dataclasses.asdict(case), "program": name, "rounds": rounds, "steps": steps, **row})
    return rows


def our_calls(case: Case, steps: int) -> Calls:
    """Returns the programs of our code, by code and program."""
    keep_freed_memory()
    return {(OURS, name): program.compile().runner(steps) for name, program in programs(case).items()}


def official_calls(case: Case, folder: Path, settings: Sequence[str], steps: int) -> Calls:
    """Returns the programs of the official code, by setting and program.

    Raises:
        UserError: if the model cannot be built or differs from ours in size.
    """
    network = build_official(folder, case.model, case.build().config)
    _check_same_size(programs(case)[FORWARD], network)
    made = {setting: torch_calls(case, network, setting, steps) for setting in settings}
    return {(setting, name): call for setting, calls in made.items() for name, call in calls.items()}


def compare(durations: Mapping[str, Sequence[float]], batch: int) -> list[dict[str, Any]]:
    """Returns the results for the durations of each code, in seconds per round."""
    rows = []
    for code, values in durations.items():
        seconds = quartiles(values)
        ratios = [their / our for their, our in zip(values, durations[OURS], strict=True)]
        rows.append(
            {
                "code": code,
                "seconds": seconds._asdict(),
                "images_per_second": batch / seconds.median,
                "ratio": None if code == OURS else quartiles(ratios)._asdict(),
            }
        )
    return rows


def _check_same_size(forward: Program, network: Any) -> None:
    variables, _ = jax.eval_shape(forward.start)
    ours = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    theirs = sum(parameter.numel() for parameter in network.parameters())
    if ours != theirs:
        raise UserError(
            f"Expected equal models, got {ours:,} parameters and the official code's {theirs:,}. Choose another model."
        )


def markdown(rows: list[dict[str, Any]]) -> str:
    """Returns the rows as a table."""
    return table(
        ("model", "program", "code"),
        ("batch", "pixels", "ms (quartiles)", "images/s", "ratio of ours (quartiles)"),
        (
            (
                f"`{row['model']}`",
                row["program"],
                row["code"] if row["code"] == OURS else f"PyTorch, {row['code']}",
                f"{row['batch']}",
                f"{row['image_size']}",
                spread(row["seconds"], 1e3, 1),
                f"{row['images_per_second']:.1f}",
                spread(row["ratio"], 1, 2) if row["ratio"] else "",
            )
            for row in rows
        ),
    )


def main() -> None:
    """Prints the table and writes the JSON file."""
    parser = Parser(description=__doc__)
    parser.add_argument("--official", type=Path, required=True, metavar="FOLDER", help="a checkout of the official code")
    add_cases(parser, model="pacavit_tiny_p2cconv_100_0", batch=8, dtype="float32")
    parser.add_argument("--torch", nargs="+", choices=SETTINGS, default=SETTINGS[:2], help="default: eager channels_last")
    parser.add_argument("--rounds", type=int, default=10, help="timed rounds, by default 10")
    add_steps(parser)
    add_json(parser)
    args = parser.parse_args()
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # otherwise JAX allocates most of a GPU's memory
    steps = steps_at_once(args)
    rows = [row for case in cases(args) for row in measure(case, args.official, args.torch, args.rounds, steps)]
    publish(markdown(rows), rows, args.json, device_name())


if __name__ == "__main__":
    with command_line():
        main()
