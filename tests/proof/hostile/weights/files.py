"""Files of weights with damaged bytes, and files that hold none."""

import io
import json
import random
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.proof.hostile.case import Case, copies, then, writes
from tests.proof.hostile.weights.forms import commands


def cases(world: Path, rng: random.Random) -> Iterator[Case]:
    """Yields the cases of this module."""
    yield from _damaged(world, rng)
    yield from _no_weights(rng)


def _flipped(data: bytes, at: int, bit: int) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 1 << bit
    return bytes(changed)


def _damaged(world: Path, rng: random.Random) -> Iterator[Case]:
    for index in range(6):
        part, number, bit = rng.random(), rng.random(), rng.randrange(8)

        def flip(part: float = part, number: float = number, bit: int = bit) -> None:
            data = (world / "classifier.pth").read_bytes()
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                entries = [entry for entry in archive.infolist() if "/data/" in entry.filename and entry.file_size > 64]
            entry = entries[int(part * len(entries))]
            names, extra = struct.unpack("<HH", data[entry.header_offset + 26 : entry.header_offset + 30])
            first = entry.header_offset + 30 + names + extra
            Path("w.pth").write_bytes(_flipped(data, first + int(number * entry.file_size), bit))

        command, run = commands("w.pth")[index % 3]
        yield Case(
            "bit flips in a .pth",
            f"{command}, tensor {part:.2f}, bit {bit}",
            then(copies(world, "a.png"), flip),
            run,
            ("w.pth",),
        )

    def mark() -> None:
        data = bytearray((world / "classifier.pth").read_bytes())
        entry = data.rindex(b"PK\x01\x02", 0, data.rindex(b"/data/0"))
        data[entry + 38] ^= 0x10  # in the directory of the archive: PyTorch takes the tensor for a folder, and reads nothing
        Path("w.pth").write_bytes(data)

    _, run = commands("w.pth")[1]
    right = "its content is whole, and read as the checksums say"
    yield Case("bit flips in a .pth", "convert, a tensor that is marked as a folder", mark, run, ("w.pth",), may_load=right)
    for source in ("classifier.safetensors", "classifier.pth", "legacy.pth"):
        for index in range(4):
            part = rng.random()
            place = f"cut.{source}"

            def cut(part: float = part, place: str = place, source: str = source) -> None:
                data = (world / source).read_bytes()
                Path(place).write_bytes(data[: int(part * len(data))])

            command, run = commands(place)[index % 3]
            yield Case(
                "truncated weights", f"{command} {source} cut at {part:.3f}", then(copies(world, "a.png"), cut), run, (place,)
            )


def _no_weights(rng: random.Random) -> Iterator[Case]:
    def header(entries: Any, length: int | None = None, body: bytes = bytes(64)) -> bytes:
        text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
        return struct.pack("<Q", len(text) if length is None else length) + text + body

    def archive(**files: bytes) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as made:
            for name, content in files.items():
                made.writestr(name.replace("__", "/"), content)
        return buffer.getvalue()

    entry = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    for name, content in (
        ("nothing", b""),
        ("a text", b"weights\n"),
        ("a page", b"<!DOCTYPE html><html></html>"),
        ("random bytes", rng.randbytes(5000)),
        ("zeros", bytes(5000)),
        ("HDF5", b"\x89HDF\r\n\x1a\n" + bytes(100)),
        ("an empty archive", archive()),
        ("an archive of texts", archive(a=b"b")),
        ("an archive with an empty pickle", archive(x__data__pkl=b"")),
        ("a pickle of a list", b"\x80\x02]."),
        ("a header that is too long", header({}, 1 << 60)),
        ("a header that is no JSON", header(b"{" + b"x" * 20)),
        ("a header with a list", header([1])),
        ("a header with nested lists", header(b'{"a":' + b"[" * 50_000)),
        ("offsets beyond the file", header({"head.weight": {**entry, "data_offsets": [0, 1 << 40]}})),
        ("negative offsets", header({"head.weight": {**entry, "data_offsets": [-16, 0]}})),
        ("offsets that overlap", header({"a": entry, "b": entry}, body=bytes(16))),
        ("a shape of 2**62", header({"a": {**entry, "shape": [1 << 62]}}, body=bytes(16))),
        ("a shape of texts", header({"a": {**entry, "shape": ["4"]}}, body=bytes(16))),
        ("an unknown type", header({"a": {**entry, "dtype": "F128"}}, body=bytes(16))),
        ("no tensors", header({}, body=b"")),
    ):
        command, run = commands("w.bin")[1]
        yield Case("files that hold no weights", f"{command}: {name}", writes("w.bin", content), run, ("w.bin",))
