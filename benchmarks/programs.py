"""The programs that benchmarks compile and run: the forward pass and the training step (AdamW) of a classifier."""

import argparse
import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from benchmarks.vit import ViT
from paca_jax.errors import UserError
from paca_jax.models import PaCaConfig, create_model, model_config
from paca_jax.sharding import make_mesh

CLASSES = 1000
LEARNING_RATE, WEIGHT_DECAY = 1e-3, 0.05
VIT, VIT_SIZE = "vit_small_patch16", 224
FORWARD, TRAINING = "forward", "training"


@dataclasses.dataclass(frozen=True)
class Case:
    """A classifier and its input.

    Attributes:
        model: a model of the library, or `vit_small_patch16` for ViT-S/16.
        batch: the number of images per step.
        image_size: the side of the float32 images in pixels.
        dtype: the type to compute in.
        clusters: the clusters of each stage, 0 for plain attention; by default those of the model.
        remat: whether the backward pass recomputes blocks.
    """

    model: str
    batch: int
    image_size: int
    dtype: str
    clusters: tuple[int, ...] | None = None
    remat: bool = False

    def build(self) -> nn.Module:
        """Returns the classifier.

        Raises:
            UserError: if the library has no such model, or the clusters do not fit.
        """
        if self.model == VIT:
            return ViT(dtype=jnp.dtype(self.dtype))
        overrides = {} if self.clusters is None else {"clusters": self.clusters}
        return create_model(self.model, CLASSES, self.dtype, remat=self.remat, image_size=self.image_size, **overrides)


@dataclasses.dataclass(frozen=True)
class Program:
    """A function to compile.

    Attributes:
        function: takes the arguments and returns a tuple that begins with the new state.
        start: returns the initial arguments.
        states: the number of leading arguments that are the state; they are donated.
    """

    function: Callable[..., tuple[Any, ...]]
    start: Callable[[], tuple[Any, ...]]
    states: int

    def trace(self, device: jax.Device) -> jax.stages.Traced:
        """Traces the program for a device, possibly a compile-only one."""
        mesh = make_mesh(devices=[device])
        place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        arguments = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), jax.eval_shape(self.start))
        with jax.set_mesh(mesh):
            return jax.jit(self.function, donate_argnums=tuple(range(self.states))).trace(*arguments)

    def compile(self, device: jax.Device | None = None) -> "Compiled":
        """Traces and compiles the program for a device, by default the first one."""
        began = time.perf_counter()
        traced = self.trace(device or jax.devices()[0])
        seen = time.perf_counter()
        compiled = traced.lower().compile()
        return Compiled(self, traced, compiled, seen - began, time.perf_counter() - seen)


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A compiled program.

    Attributes:
        program: the program.
        traced: the traced program.
        executable: the compiled program.
        trace_seconds: the time of tracing.
        compile_seconds: the time of lowering and compiling.
    """

    program: Program
    traced: jax.stages.Traced
    executable: jax.stages.Compiled
    trace_seconds: float
    compile_seconds: float

    def costs(self) -> dict[str, Any]:
        """Returns the seconds of tracing and compiling, and the bytes of temporaries and in total."""
        stats: Any = self.executable.memory_analysis()
        held = stats.argument_size_in_bytes + stats.output_size_in_bytes - stats.alias_size_in_bytes
        return {
            "trace_seconds": self.trace_seconds,
            "compile_seconds": self.compile_seconds,
            "temporary_bytes": stats.temp_size_in_bytes,
            "total_bytes": held + stats.temp_size_in_bytes,
        }

    def runner(self, steps: int = 1) -> Callable[[], None]:
        """Returns a call that queues some steps and waits for their end; each continues from the state of the previous one."""
        arguments = jax.jit(self.program.start)()

        def run() -> None:
            nonlocal arguments
            for _ in range(steps):
                results = self.executable(*arguments)
                arguments = (*results[: self.program.states], *arguments[self.program.states :])
            jax.block_until_ready(results)

        return run


def programs(case: Case) -> dict[str, Program]:
    """Returns the forward pass and the training step of a case: cross-entropy, its gradient, AdamW.

    In training, stochastic depth has the rate of the model.
    """
    model = case.build()
    optimizer = optax.adamw(LEARNING_RATE, weight_decay=WEIGHT_DECAY)

    def images() -> jax.Array:
        return jax.random.normal(jax.random.key(1), (case.batch, case.image_size, case.image_size, 3))

    def variables() -> Any:
        return model.init(jax.random.key(0), images()[:1])

    def start_training() -> tuple[Any, ...]:
        first = variables()
        labels = jax.random.randint(jax.random.key(2), (case.batch,), 0, CLASSES)
        return first, optimizer.init(first["params"]), images(), labels, jax.random.key(3)

    def forward(variables: Any, images: jax.Array) -> tuple[jax.Array]:
        return (model.apply(variables, images),)

    def training(
        variables: Any, moments: Any, images: jax.Array, labels: jax.Array, key: jax.Array
    ) -> tuple[Any, Any, jax.Array]:
        def loss(params: Any) -> tuple[jax.Array, Any]:
            logits, updates = model.apply(
                {**variables, "params": params}, images, train=True, rngs={"dropout": key}, mutable=["batch_stats"]
            )
            return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels)), updates

        (value, updates), gradient = jax.value_and_grad(loss, has_aux=True)(variables["params"])
        with jax.named_scope("update"):
            changes, moments = optimizer.update(gradient, moments, variables["params"])
            params = optax.apply_updates(variables["params"], changes)
        return {**variables, **updates, "params": params}, moments, value

    return {
        FORWARD: Program(forward, lambda: (variables(), images()), 0),
        TRAINING: Program(training, start_training, 2),
    }


def add_cases(parser: argparse.ArgumentParser, *, model: str, batch: int, dtype: str) -> None:
    """Adds the options that `cases` takes, with these defaults."""
    parser.add_argument("--model", nargs="+", default=[model], metavar="NAME", help=f"by default {model}")
    parser.add_argument(
        "--batch", type=int, nargs="+", default=[batch], metavar="N", help=f"images per step, by default {batch}"
    )
    parser.add_argument("--image-size", type=int, nargs="+", metavar="N", help="sides in pixels; by default the native one")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default=dtype, help=f"by default {dtype}")


def add_steps(parser: argparse.ArgumentParser) -> None:
    """Adds the option `--steps`."""
    parser.add_argument(
        "--steps",
        type=int,
        metavar="N",
        help="steps that a round queues before it waits; default: 1 on a CPU, 10 elsewhere",
    )


def steps_at_once(args: argparse.Namespace) -> int:
    """Returns the steps of a round: an accelerator computes one while its host prepares the next, as in a run."""
    return args.steps or (1 if jax.default_backend() == "cpu" else 10)


def cases(args: argparse.Namespace) -> Iterator[Case]:
    """Yields each model with each batch and each image size.

    Raises:
        UserError: if a model is not a classifier of the library.
    """
    for model, batch in itertools.product(args.model, args.batch):
        for size in args.image_size or [native_size(model)]:
            yield Case(model, batch, size, args.dtype)


def native_size(model: str) -> int:
    """Returns the native image side of a model in pixels.

    Raises:
        UserError: if the library has no classifier of that name.
    """
    if model == VIT:
        return VIT_SIZE
    config = model_config(model)
    if not isinstance(config, PaCaConfig):
        raise UserError(f"Expected a classifier, got {model!r}. Choose a name that starts with pacavit_, or {VIT}.")
    return config.image_size
