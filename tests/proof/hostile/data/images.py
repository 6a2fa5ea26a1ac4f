"""Pictures: damaged, huge, thin, of no size, and files that are no regular ones."""

import random
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import paca_jax
from tests.data.tiny import encode
from tests.proof.hostile.case import PHOTOS, Case, copies, nothing, predict, then, train, writes
from tests.proof.hostile.world import CLASSIFIER, DETECTOR, SEGMENTOR


def cases(world: Path, rng: random.Random) -> Iterator[Case]:
    """Yields the cases of this module."""
    yield from _damaged(world, rng)
    yield from _thin(world)
    yield from _no_size()


def preprocessed(picture: Any, recipe: dict[str, Any] = CLASSIFIER) -> Callable[[], Any]:
    def call() -> None:
        found = paca_jax.preprocess(picture() if callable(picture) else picture, paca_jax.create_model(**recipe))
        if not np.isfinite(found).all():
            raise AssertionError("numbers that are not finite")

    return call


def read_photos() -> None:
    """Makes every example of the folder `photos`, those to train on as training does."""
    train_set, eval_set = (paca_jax.data.open_dataset("folder", split, "photos") for split in ("train", "validation"))
    size, steps = 3, 3
    transform = paca_jax.data.TrainTransform(224, 3, crop_scale=(0.08, 1.0))
    for _ in paca_jax.data.train_batches(train_set, transform, batch_size=size, seed=0, start_step=0, num_steps=steps):
        pass
    for _ in paca_jax.data.eval_batches(eval_set, paca_jax.data.EvalTransform(224, 3, 0.9), batch_size=size):
        pass


def png_of(width: int, height: int, data: bytes, bits: int = 8, color: int = 2) -> bytes:
    """Returns a PNG file with this header and these compressed rows."""
    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(data)), (b"IEND", b""))
    made = [struct.pack(">I", len(c)) + kind + c + struct.pack(">I", zlib.crc32(kind + c)) for kind, c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(made)


def _damaged(world: Path, rng: random.Random) -> Iterator[Case]:
    pixels = np.random.default_rng(1).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    intact = {kind: encode(pixels, kind) for kind in ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "PPM")}
    files: dict[str, bytes] = {}
    for kind, data in intact.items():
        files[f"{kind} cut"] = data[: int(len(data) * rng.uniform(0.05, 0.8))]
    for kind in ("PNG", "WEBP"):
        at = rng.randrange(len(intact[kind]) // 2)
        files[f"{kind} with its first {at} bytes at random"] = rng.randbytes(at) + intact[kind][at:]
    damaged = bytearray(intact["PNG"])
    at = rng.randrange(60, len(damaged) - 60)
    damaged[at] ^= 1 << rng.randrange(8)
    files[f"PNG with a flipped bit at {at}"] = bytes(damaged)
    files |= {
        "nothing": b"",
        "a text": b"a picture\n",
        "a page": b"<html></html>",
        "random bytes": rng.randbytes(3000),
        "a JPEG header": b"\xff\xd8\xff",
        "a PNG header": b"\x89PNG\r\n\x1a\n",
        "a PNG of no width": png_of(0, 5, b""),
        "a PNG of no height": png_of(5, 0, b""),
        "a PNG of 2**31 x 2**31 pixels": png_of(2**31 - 1, 2**31 - 1, b""),
        "a PNG that is a bomb": png_of(60_000, 60_000, bytes(10**6)),
        "a PNG without rows": png_of(40, 40, b""),
        "a BMP of 2**30 pixels a side": b"BM"
        + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 1 << 30, 1 << 30, 1, 24, 0, 0, 0, 0, 0, 0),
        "a TIFF whose directory is itself": struct.pack("<2sHI", b"II", 42, 8)
        + struct.pack("<HHHII", 1, 256, 4, 1, 5)
        + struct.pack("<I", 8),
        "a TIFF of 32-bit floats": encode(np.ones((5, 5), np.float32), "TIFF"),
        "an SVG": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        "a PDF": b"%PDF-1.4\n%%EOF",
        "a NumPy file": b"\x93NUMPY\x01\x00",
        "an EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
        "a PPM of texts": b"P6 a b c\n",
        "a PPM of negative size": b"P6 -5 5 255\n" + bytes(75),
    }
    for index, (name, data) in enumerate(files.items()):
        if index % 3 == 0:
            make = then(writes("p.png", data), copies(world, "classifier.safetensors"))
            yield Case("damaged pictures", f"predict: {name}", make, predict("classifier.safetensors", "p.png"), ("p.png",))
        elif index % 3 == 1:
            yield Case(
                "damaged pictures", f"preprocess a path: {name}", writes("p.png", data), preprocessed("p.png"), ("p.png",)
            )
        else:
            yield Case("damaged pictures", f"preprocess bytes: {name}", nothing, preprocessed(data), ("image", "picture"))
    for name, data in [*files.items()][:6]:
        make = then(copies(world, "photos"), *(writes(f"photos/bee/{index}.png", data) for index in range(3)))
        yield Case("damaged pictures", f"train: {name}", make, train(on=PHOTOS), ("photos/bee/",))


def _thin(world: Path) -> Iterator[Case]:
    reason = "a thin picture is cropped before it is resized"
    wide, high = (lambda: Image.new("RGB", (65_500, 1)), lambda: Image.new("RGB", (1, 65_500)))
    large = {"name": "pacavit_tiny_p2cconv_100_0"}
    for shape, make in (("1 x 65,500", wide), ("65,500 x 1", high)):
        yield Case(
            "thin pictures",
            f"{shape}, a classifier of 224 pixels",
            nothing,
            preprocessed(make, large),
            ("picture", "image", "pixels"),
            may_load=reason,
        )
        yield Case(
            "thin pictures",
            f"{shape}, a small classifier",
            nothing,
            preprocessed(make),
            ("picture", "image", "pixels"),
            may_load=reason,
        )
        for name, other in (("segmentor", SEGMENTOR), ("detector", DETECTOR)):
            yield Case(
                "thin pictures",
                f"{shape}, a {name}",
                nothing,
                preprocessed(make, other),
                ("picture", "image", "pixels"),
                may_load="its long side is limited",
            )
    saved = then(
        copies(world, "photos", "a.png", "classifier.safetensors"),
        lambda: wide().save("photos/ant/9.png"),
        lambda: high().save("photos/bee/9.png"),
    )
    yield Case("thin pictures", "in a folder of photos", saved, read_photos, ("photos",), may_load=reason)
    yield Case(
        "thin pictures", "predicted", saved, predict("classifier.safetensors", "photos/ant/9.png"), ("9.png",), may_load=reason
    )


def _no_size() -> Iterator[Case]:
    names = ("picture", "image", "array", "size", "pixel")
    for shape in ((0, 5, 3), (5, 0, 3), (0, 0, 1), (5, 5, 0)):
        yield Case("pictures of no size", f"an array of {shape}", nothing, preprocessed(np.zeros(shape, np.uint8)), names)
    for size in ((0, 5), (5, 0), (0, 0)):
        for mode in ("RGB", "P", "I;16"):
            yield Case(
                "pictures of no size",
                f"Pillow's {mode} of {size}",
                nothing,
                preprocessed(lambda size=size, mode=mode: Image.new(mode, size)),
                names,
            )
