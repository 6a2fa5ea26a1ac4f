"""Weights in a repository of the Hugging Face Hub, downloaded into the cache of its client."""

import logging
import os
import re
from pathlib import Path
from typing import Any

from paca_jax.checkpoints.files import CONFIG, IN_FOLDERS
from paca_jax.checkpoints.hub.client import REPOSITORY, UnreachableError, hub_errors, import_client
from paca_jax.errors import UserError
from paca_jax.files import read_json

logger = logging.getLogger(__name__)

_SCHEME = "hf://"
_ADDRESS = re.compile(rf"{_SCHEME}(?P<repository>{REPOSITORY})(@(?P<revision>\w[\w./-]*))?", re.ASCII | re.IGNORECASE)
_INDEX_SUFFIX = ".index.json"


def is_hub_address(source: str) -> bool:
    """Returns whether a source of weights is the address of a repository that `fetch_hub` downloads."""
    return source.lower().startswith(_SCHEME)


def fetch_hub(address: str) -> Path:
    """Returns the folder of a repository of the Hugging Face Hub, with its weights and its `config.json`.

    Downloads what is not in the cache of `huggingface_hub`: of safetensors and PyTorch's files only the first kind that is
    there, and nothing else. If the Hub cannot be reached, takes what was downloaded earlier, and logs that.

    Args:
        address: `hf://OWNER/NAME`, or `hf://OWNER/NAME@REVISION` for another branch, a tag or a commit.

    Raises:
        UserError: if it is no such address, there is no such repository or revision or no access to it, it has no weights, the
            Hub cannot be reached and nothing is in the cache, or `huggingface_hub` is not installed.
    """
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise UserError(f"Expected hf://OWNER/NAME or hf://OWNER/NAME@REVISION, got {address!r}. Correct the address.")
    repository, revision = found["repository"], found["revision"]
    try:
        with hub_errors(repository, revision):
            return _download(address, repository, revision)
    except UnreachableError as error:
        cached = _cached(repository, revision)
        if cached is None:
            raise
        logger.warning("%s Takes the copy of %s in the cache, at %s.", error, address, cached)
        return cached


def _download(address: str, repository: str, revision: str | None) -> Path:
    hub = import_client()
    timeout = hub.constants.HF_HUB_ETAG_TIMEOUT
    siblings = hub.HfApi().model_info(repository, revision=revision, timeout=timeout).siblings or []
    names = {sibling.rfilename for sibling in siblings}
    weights = next((name for name in IN_FOLDERS if name in names), None)
    if weights is None:
        listed = ", ".join(sorted(names)[:5]) or "no files"
        raise UserError(
            f"Expected weights in {address}, one of {', '.join(IN_FOLDERS)}, got {listed}. Choose another repository."
        )
    # By its revision, which the cache then knows; the other files are of the same commit, whatever is pushed meanwhile.
    first = Path(hub.hf_hub_download(repository, weights, revision=revision))
    folder = first.parent
    others = [CONFIG] if CONFIG in names else []
    if weights.endswith(_INDEX_SUFFIX):
        others += _parts(first)
    for name in others:
        hub.hf_hub_download(repository, name, revision=folder.name)
    return folder


def _parts(index: Path) -> list[str]:
    """Returns the names of the files that an index lists; those that its reader refuses are left out."""
    places: Any = read_json(index).get("weight_map")
    names = {place for place in places.values() if isinstance(place, str)} if isinstance(places, dict) else set()
    return sorted(
        name for name in names if name == os.path.basename(name) and name not in ("", ".", "..") and name.isprintable()
    )


def _cached(repository: str, revision: str | None) -> Path | None:
    """Returns the folder of a repository in the cache, if weights of it were downloaded earlier."""
    hub = import_client()
    for name in IN_FOLDERS:
        found = hub.try_to_load_from_cache(repository, name, revision=revision)
        if isinstance(found, str):
            return Path(found).parent
    return None
