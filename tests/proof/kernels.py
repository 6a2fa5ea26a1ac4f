"""Compiles every kernel for every kind of TPU: whether the vector memory that it is said to need is enough.

A kernel may use no more memory than `Kernel.memory` says. A row that holds shows that the kernel compiles, and that the bytes
by which its tiling was chosen are an upper bound. Shapes are those of the stages of the published models at the image sizes of
the configs, with 1 to 128 images a chip. Kernels that differ in nothing but the number of steps are compiled once.
"""

import itertools
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp

from benchmarks.kernels import compile_only_chip
from paca_jax import ops
from paca_jax.models import model_config
from paca_jax.ops.attention import tpu as attention
from paca_jax.ops.attention.tpu_steps import AttentionShape
from paca_jax.ops.clustering import tpu as clustering
from paca_jax.ops.mlp import tpu as mlp
from paca_jax.ops.norm import tpu as norm
from paca_jax.ops.pallas.cores import Core, target_core
from paca_jax.ops.pallas.kernel import Fit, Kernel
from paca_jax.sharding import make_mesh
from tests.runs import environment_for_tpus

TOPOLOGIES = ("v4:1x1x1", "v5e:1x1", "v5p:1x1x1", "v6e:1x1", "tpu7x:1x1x1")
MODELS = ("pacavit_small_p2cconv_100_0", "pacavit_base_p2cconv_100_0")
# Image sizes in pixels, and the clusters of a stage: classification at two sizes, segmentation, detection.
SIZES = (((224, 224), 100), ((384, 384), 100), ((512, 512), 200), ((800, 1344), 100))
IMAGES = (128, 16, 1)
MOST_PATCHES = 2**22  # of a chip's images, at the first stage


def stages() -> Iterator[tuple[jax.ShapeDtypeStruct, int, int, tuple[int, ...]]]:
    """Yields the maps of each stage, its hidden channels, its attention heads, and its clusters (0: plain attention)."""
    for images, dtype, name, (size, clusters) in itertools.product(IMAGES, ("bfloat16", "float32"), MODELS, SIZES):
        config, (height, width) = model_config(name), size
        if images * height * width // 16 > MOST_PATCHES:
            continue
        for stage, (channels, heads) in enumerate(zip(config.embed_dims, config.num_heads, strict=True)):
            shape = (images, height // 4 >> stage, width // 4 >> stage, channels)
            attended = (clusters, 0) if stage == len(config.embed_dims) - 1 else (clusters,)
            yield jax.ShapeDtypeStruct(shape, dtype), int(config.mlp_ratios[stage] * channels), heads, attended


def fits(core: Core) -> Iterator[tuple[str, Fit]]:
    """Yields what every operation of every stage takes, with a description of its arrays."""
    for x, hidden, heads, attentions in stages():
        images, height, width, channels = x.shape
        patches = jax.ShapeDtypeStruct((images, height * width, channels), x.dtype)
        where = f"{images} x {height} x {width} x {channels}, {x.dtype}"
        yield f"{where}, hidden {hidden}", mlp.fit(x, mlp_weights(channels, hidden), core)
        clusters = attentions[0]
        yield f"{where}, {clusters} clusters", clustering.fit(x, clustering_weights(channels, clusters), core)
        yield where, norm.fit(patches, core)
        for attended in attentions:
            shape = AttentionShape(images, height * width, attended or height * width, channels, heads, x.dtype)
            described = f"{where}, {attended or 'plain'}{' clusters' if attended else ''}, {heads} heads"
            yield from ((described, fit) for fit in attention.fit(shape, core, gathers=bool(attended)) if fit is not None)


def mlp_weights(channels: int, hidden: int) -> ops.MlpWeights:
    """Returns the shapes of the parameters of an MLP."""
    shapes = ((channels, hidden), (hidden,), (3, 3, 1, hidden), (hidden,), (hidden, channels), (channels,))
    return ops.MlpWeights(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes))


def clustering_weights(channels: int, clusters: int) -> ops.ClusteringWeights:
    """Returns the shapes of the parameters of a clustering."""
    shapes = ((7, 7, 1, channels), (channels,), (channels, channels), (channels,), (channels, clusters))
    return ops.ClusteringWeights(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes))


def compiles(kernel: Kernel, core: Core, device: jax.Device) -> str | None:
    """Compiles a kernel with no more vector memory than it is said to need; returns the compiler's message if that fails."""
    place = jax.sharding.SingleDeviceSharding(device)
    operands = [jax.ShapeDtypeStruct(block.array.shape, block.array.dtype, sharding=place) for block in kernel.operands]
    core = Core(kernel.memory, core.count)
    try:
        jax.jit(lambda *operands: kernel(core, *operands)).lower(*operands).compile()
    except jax.errors.JaxRuntimeError as error:
        return " ".join(str(error).split())
    return None


def compile_all(topology: str, file: Path) -> None:
    """Compiles for one kind of TPU and appends a row for each kernel to a file; those that are in it are skipped."""
    device, _ = compile_only_chip(topology)
    with jax.set_mesh(make_mesh(devices=[device])), file.open("a") as rows:
        core = target_core()
        done = {json.loads(line)["key"] for line in file.read_text().splitlines()}
        for described, fit in fits(core):
            for kernel in fit.kernels:
                row = {"topology": topology, "kernel": kernel.name, "arrays": described, "memory": kernel.memory}
                key = row["key"] = str((kernel.name, kernel.memory, core, _blocks(kernel)))
                if key in done:
                    continue
                done.add(key)
                began = time.monotonic()
                row["refused"] = fit.refusal()
                row["error"] = None if row["refused"] else compiles(kernel, core, device)
                rows.write(json.dumps({**row, "seconds": round(time.monotonic() - began, 1)}) + "\n")
                rows.flush()


def _blocks(kernel: Kernel) -> list[tuple[object, ...]]:
    blocks = [(block.spec.block_shape, str(block.array.dtype)) for block in (*kernel.operands, *kernel.results)]
    return [*blocks, *((memory.shape, str(memory.dtype)) for memory in kernel.scratch)]


def campaign(folder: Path) -> dict:
    """Compiles for every kind of TPU, two at a time, and returns the rows."""
    folder.mkdir(parents=True, exist_ok=True)

    def compile_apart(topology: str) -> list[dict]:
        file = folder / f"{topology}.jsonl"
        command = [sys.executable, "-m", "tests.proof.kernels", topology, str(file)]
        subprocess.run(command, env=environment_for_tpus(), check=True)
        return list(map(json.loads, file.read_text().splitlines()))

    with ThreadPoolExecutor(2) as pool:
        rows = list(itertools.chain.from_iterable(pool.map(compile_apart, TOPOLOGIES)))
    return {"holds": not any(row["error"] for row in rows), "rows": rows}


def as_table(result: dict) -> str:
    """Returns a Markdown table of kernels and arrays, with a column for each kind of TPU, and a list of what failed.

    A cell has the MiB of vector memory that were enough, the most for any number of images, or "xla" where no kernel fits.
    """
    cells: dict[tuple[str, str], dict[str, list[dict]]] = {}
    for row in result["rows"]:
        arrays = row["arrays"].partition(" x ")[2]
        cells.setdefault((row["kernel"], arrays), {}).setdefault(row["topology"], []).append(row)
    chips = " | ".join(topology.partition(":")[0] for topology in TOPOLOGIES)
    lines = [f"| kernel | arrays of an image | {chips} |", "|:--|:--|" + "--:|" * len(TOPOLOGIES)]
    lines += [
        f"| `{kernel}` | {arrays} | {' | '.join(_cell(found.get(topology, [])) for topology in TOPOLOGIES)} |"
        for (kernel, arrays), found in cells.items()
    ]
    compiled = Counter(row["topology"] for row in result["rows"] if not row["refused"])
    refused = Counter(row["topology"] for row in result["rows"] if row["refused"])
    counted = [f"- {topology}: {compiled[topology]} compiled, {refused[topology]} refused" for topology in TOPOLOGIES]
    failed = [
        f"- {row['topology']}, `{row['kernel']}`, {row['arrays']}: {row['error']}" for row in result["rows"] if row["error"]
    ]
    return "\n".join(["Kernels:", "", *counted, "", "Failed:", "", *(failed or ["- none"]), "", *lines]) + "\n"


def _cell(rows: list[dict]) -> str:
    if not rows:
        return ""
    if any(row["error"] for row in rows):
        return "failed"
    if any(row["refused"] for row in rows):
        return "xla"
    return f"{max(row['memory'] for row in rows) / 2**20:.1f}"


if __name__ == "__main__":
    compile_all(sys.argv[1], Path(sys.argv[2]))
