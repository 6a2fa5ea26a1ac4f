"""Times the input pipeline of ImageNet's training recipe, and beside it the usual one of PyTorch.

    python -m benchmarks.input [--images 2000] [--workers 0 1 2] [--json FILE]

Both read the same folder of JPEG files of ImageNet's usual size, decode them, cut a random resized crop (bicubic, 224 pixels),
flip it and apply RandAugment (two operations, magnitude 9) with Pillow, and stack batches. Ours are bytes, which the training
step normalises on the device; those of PyTorch are normalised float32 tensors, as its users make them. The pipelines run in
turn, in several rounds; start-up does not count. With 0 workers ours uses threads, PyTorch the main process.

Images a core-second are images divided by the processor time of all processes, so other programs on the machine matter less.
"""

import argparse
import functools
import importlib
import json
import math
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import psutil
from PIL import Image

from paca_jax.data import MEAN, STD, TrainTransform, open_dataset, train_batches
from paca_jax.data.randaugment import OPERATIONS

WIDTH, HEIGHT, QUALITY, CLASSES = 500, 375, 90, 10
SIZE, OPERATIONS_DRAWN, MAGNITUDE, MAGNITUDE_STD = 224, 2, 9.0, 0.5

# (workers, steps) -> an iterator over batches.
Pipeline = Callable[[int, int], Iterator[Any]]


def write_images(folder: Path, count: int) -> int:
    """Fills a folder of class folders with photograph-like JPEG files: shapes, texture and grain of decreasing strength.

    Returns:
        The mean size of a file in bytes.
    """
    rng = np.random.default_rng(0)
    sizes = []
    for index in range(count):
        pixels = np.full((HEIGHT, WIDTH, 3), 128.0, np.float32)
        for cells, strength in ((3, 80.0), (12, 45.0), (50, 28.0), (190, 20.0), (WIDTH, 22.0)):
            noise = rng.integers(0, 256, (math.ceil(cells * 0.75), cells, 3), dtype=np.uint8)
            noise[:, :, 1:] = noise[:, :, 1:] // 4 + 3 * (noise[:, :, :1] // 4)  # colours vary less than brightness
            layer = np.asarray(Image.fromarray(noise).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), np.float32)
            pixels += (layer / 127.5 - 1) * strength
        path = folder / f"class{index % CLASSES}" / f"{index:06}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=QUALITY)
        sizes.append(path.stat().st_size)
    return round(statistics.mean(sizes))


def ours(folder: Path, batch: int, workers: int, steps: int) -> Iterator[Any]:
    """Returns the batches of this library."""
    transform = TrainTransform(
        SIZE, rand_operations=OPERATIONS_DRAWN, rand_magnitude=MAGNITUDE, rand_magnitude_std=MAGNITUDE_STD
    )
    dataset = open_dataset("folder", "all", str(folder))
    return train_batches(dataset, transform, batch_size=batch, seed=0, start_step=0, num_steps=steps, num_workers=workers)


class TorchStyle:
    """A data set as PyTorch users write it: (path, label) pairs, and an item is a normalised tensor and its label."""

    def __init__(self, folder: Path) -> None:
        classes = sorted(folder.iterdir())
        self.samples = [(str(path), label) for label, name in enumerate(classes) for path in sorted(name.iterdir())]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        torch = importlib.import_module("torch")
        path, label = self.samples[index]
        with open(path, "rb") as file:
            image = Image.open(file).convert("RGB")
        image = self._random_resized_crop(image)
        if random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        for name in random.choices(list(OPERATIONS), k=OPERATIONS_DRAWN):
            if random.random() < 0.5:
                strength = min(max(random.gauss(MAGNITUDE, MAGNITUDE_STD), 0.0), 10.0) / 10
                apply, argument, directed = OPERATIONS[name]
                image = apply(image, argument(-strength if directed and random.random() < 0.5 else strength))
        tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().to(torch.float32).div_(255)
        return tensor.sub_(torch.tensor(MEAN)[:, None, None]).div_(torch.tensor(STD)[:, None, None]), label

    def _random_resized_crop(self, image: Image.Image) -> Image.Image:
        width, height = image.size
        left, top, w, h = 0, 0, width, height
        for _ in range(10):
            area = width * height * random.uniform(0.08, 1.0)
            ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if w <= width and h <= height:
                left, top = random.randint(0, width - w), random.randint(0, height - h)
                break
        return image.crop((left, top, left + w, top + h)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)


def torch_style(folder: Path, batch: int, workers: int, steps: int) -> Iterator[Any]:
    """Returns the batches of PyTorch's DataLoader."""
    torch = importlib.import_module("torch")
    torch.set_num_threads(1)
    dataset = TorchStyle(folder)
    sampler = torch.utils.data.RandomSampler(dataset, num_samples=steps * batch)
    context = "spawn" if workers else None
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=batch, sampler=sampler, num_workers=workers, multiprocessing_context=context
    )
    return iter(loader)


def cpu_seconds() -> float:
    """Returns the processor time that this process and its living children have used."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def rates(pipeline: Pipeline, workers: int, batch: int, steps: int) -> tuple[float, float]:
    """Returns images per second and images per core-second, over `steps` batches that follow on those of the start."""
    ahead = 3 * max(workers, 1)  # at the start, and left over at the end so that no worker runs out of work
    batches = pipeline(workers, ahead + steps + ahead)
    for _ in range(ahead):
        next(batches)
    start, cpu_start = time.perf_counter(), cpu_seconds()
    for _ in range(steps):
        next(batches)
    seconds, cpu = time.perf_counter() - start, cpu_seconds() - cpu_start
    for _ in batches:
        pass
    return batch * steps / seconds, batch * steps / cpu


def markdown(rows: list[dict[str, Any]]) -> str:
    """Returns the rows as a table; the ratio is ours over PyTorch's, in images per second and per core-second."""
    lines = [
        "| workers | pipeline | images/s | images/core-second | ratio | ratio per core-second |",
        "|--:|:--|--:|--:|--:|--:|",
    ]
    columns = ("images_per_second", "images_per_core_second")
    for row in rows:
        values = " | ".join(f"{row[column]:.1f}" for column in columns)
        other = next(r for r in rows if r["workers"] == row["workers"] and r["pipeline"] != row["pipeline"])
        ratios = " | ".join(f"{row[column] / other[column]:.2f}" if row["pipeline"] == "paca_jax" else "" for column in columns)
        lines.append(f"| {row['workers']} | {row['pipeline']} | {values} | {ratios} |")
    return "\n".join(lines)


def measure(images: int, workers: list[int], batch: int, rounds: int) -> dict[str, Any]:
    """Times both pipelines with each number of workers, in turn.

    Returns:
        The settings and `rows`: workers, pipeline and the medians of the rounds.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        mean_bytes = write_images(folder, images)
        pipelines: dict[str, Pipeline] = {
            "paca_jax": functools.partial(ours, folder, batch),
            "PyTorch DataLoader": functools.partial(torch_style, folder, batch),
        }
        results: dict[tuple[int, str], list[tuple[float, float]]] = {}
        for _ in range(rounds):
            for count in workers:
                for key, pipeline in pipelines.items():
                    results.setdefault((count, key), []).append(rates(pipeline, count, batch, images // batch))
    rows = []
    for (count, key), measured in results.items():
        per_second, per_core_second = (statistics.median(values) for values in zip(*measured, strict=True))
        rows.append(
            {"workers": count, "pipeline": key, "images_per_second": per_second, "images_per_core_second": per_core_second}
        )
    return {
        "images": images,
        "mean_bytes": mean_bytes,
        "batch": batch,
        "rounds": rounds,
        "cores": os.cpu_count(),
        "pillow": PIL.__version__,
        "torch": importlib.import_module("torch").__version__,
        "rows": rows,
    }


def main() -> None:
    """Prints the table, and writes it as JSON where asked."""
    parser = argparse.ArgumentParser(description="Images a second of the input pipeline, beside PyTorch's usual one.")
    parser.add_argument("--images", type=int, default=2000, help="images of the data set, read once in a round")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2], help="numbers of worker processes to time")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3, help="rounds that the medians are of")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures as JSON")
    arguments = parser.parse_args()
    if arguments.images < arguments.batch:
        parser.error(
            f"Expected at least as many images as a batch has, {arguments.batch}, got {arguments.images}; raise --images."
        )
    result = measure(arguments.images, arguments.workers, arguments.batch, arguments.rounds)
    print(
        f"{result['images']} JPEG files of {WIDTH} x {HEIGHT} pixels, {result['mean_bytes'] / 1000:.0f} kB on average; batches "
        f"of {result['batch']}; {result['cores']} cores; Pillow {result['pillow']}, PyTorch {result['torch']}\n"
    )
    print(markdown(result["rows"]))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
