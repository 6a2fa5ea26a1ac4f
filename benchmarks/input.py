"""Times the input pipeline of the ImageNet recipe against the usual one of PyTorch.

    python -m benchmarks.input [--images 2000] [--workers 0 1 2] [--json FILE]

Both read the same folder of JPEG files of ImageNet's typical size, decode them, take a random resized crop (bicubic, 224
pixels), flip it, apply RandAugment (two operations, magnitude 9) with Pillow, and stack batches. Our batches are uint8 and
normalized on the device in the training step; those of PyTorch are normalized float32 tensors, as is usual there. The pipelines
run in turn, in several rounds; start-up does not count. With 0 workers ours uses threads, and PyTorch the main process.

Images per core-second are images divided by the CPU time of all processes, which other load on the machine affects less.
"""

import functools
import importlib
import math
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from benchmarks.measure import add_json, publish, table
from paca_jax.command_line import Parser, command_line
from paca_jax.data import TrainTransform, open_dataset, train_batches
from paca_jax.data.transforms.randaugment import OPERATIONS
from paca_jax.errors import UserError
from paca_jax.ops import MEAN, STD

WIDTH, HEIGHT, QUALITY, CLASSES = 500, 375, 90, 10
OURS = "paca_jax"
SIZE, OPERATIONS_DRAWN, MAGNITUDE, MAGNITUDE_STD = 224, 2, 9.0, 0.5

# (workers, steps) -> iterator over batches.
Pipeline = Callable[[int, int], Iterator[Any]]


def write_images(folder: Path, count: int) -> int:
    """Writes photograph-like JPEG files into class folders: noise at several scales, the coarsest strongest.

    Returns:
        The mean size of a file in bytes.
    """
    rng = np.random.default_rng(0)
    sizes = []
    for index in range(count):
        pixels = np.full((HEIGHT, WIDTH, 3), 128.0, np.float32)
        for cells, strength in ((3, 80.0), (12, 45.0), (50, 28.0), (190, 20.0), (WIDTH, 22.0)):
            noise = rng.integers(0, 256, (math.ceil(cells * 0.75), cells, 3), dtype=np.uint8)
            noise[:, :, 1:] = noise[:, :, 1:] // 4 + 3 * (noise[:, :, :1] // 4)  # colors vary less than brightness
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
    """A data set in the usual style of PyTorch: an item is a normalized tensor and its label."""

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
    """Returns the batches of the PyTorch DataLoader."""
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
    """Returns the CPU time that this process and its living children have used."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def rates(pipeline: Pipeline, workers: int, batch: int, steps: int) -> tuple[float, float]:
    """Returns images per second and images per core-second over `steps` batches, after those of start-up."""
    ahead = 3 * max(workers, 1)  # not timed, at the start and at the end, so that all workers are busy in between
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
    """Returns the rows as a table; ratios are ours over PyTorch's."""
    columns = ("images_per_second", "images_per_core_second")
    lines = []
    for row in rows:
        other = next(r for r in rows if r["workers"] == row["workers"] and r["pipeline"] != row["pipeline"])
        values = [f"{row[column]:.1f}" for column in columns]
        ratios = [f"{row[column] / other[column]:.2f}" if row["pipeline"] == OURS else "" for column in columns]
        lines.append([f"{row['workers']}", row["pipeline"], *values, *ratios])
    return table(("workers", "pipeline"), ("images/s", "images/core-second", "ratio", "ratio per core-second"), lines)


def measure(images: int, workers: list[int], batch: int, rounds: int) -> list[dict[str, Any]]:
    """Times both pipelines with each number of workers, in turn.

    Returns:
        Rows with workers, pipeline, the medians of the rounds, and the settings.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        read = {"images": images, "mean_bytes": write_images(folder, images), "batch": batch, "rounds": rounds}
        pipelines: dict[str, Pipeline] = {
            OURS: functools.partial(ours, folder, batch),
            "PyTorch DataLoader": functools.partial(torch_style, folder, batch),
        }
        results: dict[tuple[int, str], list[tuple[float, float]]] = {}
        for _ in range(rounds):
            for count in workers:
                for key, pipeline in pipelines.items():
                    results.setdefault((count, key), []).append(rates(pipeline, count, batch, images // batch))
    rows = []
    for (count, key), measured in results.items():
        medians = map(statistics.median, zip(*measured, strict=True))
        speed = dict(zip(("images_per_second", "images_per_core_second"), medians, strict=True))
        rows.append({"workers": count, "pipeline": key, **speed, **read})
    return rows


def main() -> None:
    """Prints the table and writes the JSON file."""
    parser = Parser(description=__doc__)
    parser.add_argument("--images", type=int, default=2000, help="images in the data set, read once per round")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2], help="numbers of worker processes to time")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3, help="rounds to take medians of")
    add_json(parser)
    args = parser.parse_args()
    if args.images < args.batch:
        raise UserError(f"Expected at least as many images as a batch has, {args.batch}, got {args.images}. Raise --images.")
    rows = measure(args.images, args.workers, args.batch, args.rounds)
    read = (
        f"{args.images} JPEG files of {WIDTH} x {HEIGHT} pixels, {rows[0]['mean_bytes'] / 1000:.0f} kB on average; "
        f"batches of {args.batch}"
    )
    publish(f"{read}\n\n{markdown(rows)}", rows, args.json)


if __name__ == "__main__":
    with command_line():
        main()
