"""The official ImageNet checkpoints: their addresses, and a local cache that remembers their checksums."""

import os
from pathlib import Path

import pooch

from paca_jax.cache import cache_folder
from paca_jax.errors import UserError
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


def pretrained_address(name: str) -> str:
    """Returns where the official ImageNet-1k weights of a model are published.

    The addresses follow one pattern. (The official page links `pacavit_small_p2cconv_100` to the file of `..._100_49`: a slip.)

    Raises:
        UserError: if the model's weights are not published.
    """
    if name not in PUBLISHED:
        known = "there is no such model" if name not in list_models() else "its weights are not published"
        raise UserError(f"No pretrained weights for {name!r}: {known}; published are {', '.join(PUBLISHED)}.")
    return f"{BASE_ADDRESS}IMNET_224_{name}.pth"


def fetch_pretrained(name: str, cache: str | os.PathLike[str] | None = None) -> Path:
    """Returns the file of a model's official ImageNet-1k weights, downloaded once.

    The file's SHA-256 is written beside it when it first comes and compared at every later use. A file that was put there by
    hand is taken as it is and its checksum written likewise.

    Args:
        name: an official name, one of `PUBLISHED`.
        cache: the folder to keep it in. Default: `cache_folder`.

    Raises:
        UserError: if the weights are not published or cannot be reached, or the file is not the one that came first.
    """
    address = pretrained_address(name)
    folder = Path(cache) if cache else cache_folder()
    path = folder / address.rsplit("/", 1)[1]
    record = path.with_name(f"{path.name}.sha256")
    recorded = record.read_text().strip() if record.is_file() else None
    if not path.is_file():
        _download(address, path)
    found = pooch.file_hash(str(path), alg="sha256")
    if recorded is None:
        _record(record, found)
    elif found != recorded:
        raise UserError(
            f"{path} has the SHA-256 {found}, but {recorded} was recorded when it first came; delete the file to fetch it "
            f"again, or delete {record.name} beside it if the change is meant."
        )
    return path


def _download(address: str, path: Path) -> None:
    try:
        pooch.retrieve(address, known_hash=None, fname=path.name, path=path.parent)
    except OSError as error:  # every failure of the network, of the server or of the disk
        raise UserError(
            f"Could not download {address} ({type(error).__name__}); check the network, or put the file by hand at {path}."
        ) from error


def _record(record: Path, checksum: str) -> None:
    temporary = record.with_name(f"{record.name}.{os.getpid()}")
    temporary.write_text(checksum + "\n")
    temporary.replace(record)
