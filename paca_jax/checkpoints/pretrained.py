"""Weights from the network: the official ImageNet checkpoints, any address, and a local cache that records checksums."""

import hashlib
import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from etils import epath

from paca_jax.cache import cache_folder
from paca_jax.errors import UserError, nearest
from paca_jax.files import read_file, write_file
from paca_jax.models import list_models

BASE_ADDRESS = "https://github.com/iVMCL/PaCaViT/releases/download/pacavit/"

PUBLISHED = (
    "pacavit_tiny_p2cconv_100_0",
    "pacavit_small_p2cconv_100_0",
    "pacavit_base_p2cconv_100_0",
    "pacavit_small_p2cmlp_100_0",
    "pacavit_small_p2cconv_2_0",
    "pacavit_small_p2cconv_49_0",
    "pacavit_small_p2cconv_49_100",
    "pacavit_small_p2cconv_100_49",
    "pacavit_small_p2cconv_100",
    "pacavit_small_p2cconv_100_blockwise",
    "pacavit_convmixer_small_100",
    "pacavit_convmixer_base_100",
)


def is_official_name(source: str) -> bool:
    """Returns whether a source of weights is the name of a model; a file or folder of that name is preferred."""
    return source in list_models() and not epath.Path(source).exists()


def pretrained_address(name: str) -> str:
    """Returns the address of a model's official ImageNet-1k weights.

    The addresses follow one pattern. (The official page links `pacavit_small_p2cconv_100` to the file of `..._100_49`, a
    mistake.)

    Raises:
        UserError: if the model's weights are not published.
    """
    if name not in PUBLISHED:
        known = "there is no such model" if name not in list_models() else "its weights are not published"
        raise UserError(
            f"There are no pretrained weights for {name!r}: {known}. Published weights: {nearest(name, PUBLISHED)}."
        )
    return f"{BASE_ADDRESS}IMNET_224_{name}.pth"


def fetch_pretrained(name: str, cache: str | os.PathLike[str] | None = None) -> Path:
    """Returns the file of a model's official ImageNet-1k weights, downloaded once.

    The file's SHA-256 is recorded beside it at its first use and compared at every later one. A file that was put there by hand
    is accepted as it is, and its checksum is recorded in the same way.

    Args:
        name: an official name, one of `PUBLISHED`.
        cache: the folder to keep it in. Default: `cache_folder`.

    Raises:
        UserError: if the weights are not published or cannot be downloaded, or the file has changed since its first use.
    """
    address = pretrained_address(name)
    return _fetch(address, (Path(cache) if cache else cache_folder()) / address.rsplit("/", 1)[1])


def is_url(source: str) -> bool:
    """Returns whether a source of weights is an address that `fetch_url` downloads."""
    return source.lower().startswith(("http://", "https://"))


def fetch_url(address: str) -> Path:
    """Returns the file of weights at an http or https address, downloaded once and checked as in `fetch_pretrained`.

    Raises:
        UserError: if it cannot be downloaded, is no file of weights, or has changed since its first use.
    """
    try:
        name = unquote(urlsplit(address).path).rpartition("/")[2]
    except ValueError:  # of brackets that do not match
        name = ""
    if name in ("", ".", "..") or not name.isprintable():
        raise UserError(f"Expected the address of a file of weights, got {address!r}. Give that of the file itself.")
    official = address == f"{BASE_ADDRESS}{name}"
    own = Path() if official else Path("downloads", hashlib.sha256(address.encode()).hexdigest()[:16])
    return _fetch(address, cache_folder() / own / name)


def _fetch(address: str, path: Path) -> Path:
    record = path.with_name(f"{path.name}.sha256")
    recorded = read_file(record).decode(errors="replace").strip() if record.exists() else None
    if not path.is_file():
        _download(address, path)
        _refuse_page(address, path)
    import pooch  # which takes long to import, as below

    found = pooch.file_hash(str(path), alg="sha256")
    if recorded is None:
        write_file(record, found + "\n")
    elif found != recorded:
        raise UserError(
            f"Expected the SHA-256 {recorded} of {path}, recorded at its first use, got {found}. "
            f"Delete the file to fetch it again, or delete {record.name} beside it if the change is intended."
        )
    return path


def _download(address: str, path: Path) -> None:
    import pooch

    try:
        pooch.retrieve(address, known_hash=None, fname=path.name, path=path.parent)
    except OSError as error:  # every failure of the network, of the server or of the disk
        raise UserError(
            f"Could not download {address} ({type(error).__name__}). Check the network, or put the file by hand at {path}."
        ) from error


def _refuse_page(address: str, path: Path) -> None:
    """Deletes a page that came in place of a file."""
    with path.open("rb") as file:
        start = file.read(256).lstrip().lower()
    if start.startswith((b"<!doctype", b"<html")):
        path.unlink()
        raise UserError(f"Expected a file of weights at {address}, got a web page. Give the address of the file itself.")
