"""The members of zip files of `torch.save`, tested before any of them is taken for what it says it is."""

import io
import os
import struct
import sys
import zipfile
import zlib

import numpy as np

from paca_jax.errors import UserError

_MOST_COMPRESSED = 10  # times the size of an archive, of all that is in it; PyTorch itself does not compress
_MOST_MEMBERS = 1_000_000
_LONGEST_PICKLE = 100_000_000  # bytes, as safetensors allows for a header; tensors are not in it


def no_state_dict(path: str | os.PathLike[str], kind: str) -> UserError:
    """Returns the error about a file that holds an object of another kind than a mapping."""
    return UserError(f"{path} holds no state dict but a {kind}. Save the model's state_dict().")


class Archive:
    """The members of a file, whose checksums are right: views of the file, where they are not compressed.

    Attributes:
        pickle: the pickle of the saved object.
    """

    def __init__(self, path: str | os.PathLike[str], data: bytes):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            _check_entries(entries, len(data))
            names = [entry.filename for entry in entries]
            main = next((name for name in names if name.endswith("/data.pkl")), None)
            if main is None:
                raise ValueError("an archive without data.pkl")
            self._folder = main.removesuffix("data.pkl")
            if f"{self._folder}constants.pkl" in names:
                raise no_state_dict(path, "TorchScript program")
            self._members = {entry.filename: _read(archive, entry, data) for entry in entries}
        self.pickle = self._members[main].tobytes()
        if len(self.pickle) > _LONGEST_PICKLE:
            raise ValueError(f"a data.pkl of {len(self.pickle):,} bytes")
        order = bytes(self._members.get(f"{self._folder}byteorder", b"little")).decode()
        if order not in ("little", "big"):
            raise ValueError(f"a byte order of {order!r}")
        self._swapped = order != sys.byteorder
        self._native: dict[tuple[str, int], memoryview] = {}

    def storage(self, key: str, width: int = 1) -> memoryview:
        """Returns the bytes of a storage, numbers of this width in the order of this machine: always the same object."""
        data = self._members[f"{self._folder}data/{key}"]
        if not self._swapped or width == 1:
            return data
        if (key, width) not in self._native:
            whole = data[: len(data) // width * width]
            self._native[key, width] = memoryview(np.frombuffer(whole, f"u{width}").byteswap().tobytes())
        return self._native[key, width]


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, data: bytes) -> memoryview:
    with archive.open(entry) as member:  # which checks its header
        if entry.compress_type == zipfile.ZIP_DEFLATED:
            return memoryview(member.read(entry.file_size))  # without the length a wrong one is unpacked to its end
    lengths = struct.unpack_from("<HH", data, entry.header_offset + 26)  # of the name and what follows it in the header
    first = entry.header_offset + 30 + sum(lengths)
    content = memoryview(data)[first : first + entry.file_size]
    if entry.compress_size != entry.file_size or zlib.crc32(content) != entry.CRC:
        raise zipfile.BadZipFile(f"Bad CRC-32 for file {entry.filename!r}")
    return content


def _check_entries(entries: list[zipfile.ZipInfo], length: int) -> None:
    size = sum(entry.file_size for entry in entries)
    if size > _MOST_COMPRESSED * length:
        raise ValueError(f"it unpacks to {size:,} bytes")
    if len(entries) > _MOST_MEMBERS:
        raise ValueError(f"an archive with {len(entries):,} members")
    if len(entries) != len({entry.filename for entry in entries}):
        raise ValueError("an archive with two members of one name")
    for entry in entries:  # bzip2 and LZMA are unpacked without a limit
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError("an archive that is compressed in another way than by deflate")
