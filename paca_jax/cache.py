"""The user's cache folder, and compiled programs in it."""

import os
from pathlib import Path

import jax
import pooch

CACHE_VARIABLE = "PACA_JAX_CACHE"


def cache_folder() -> Path:
    """Returns the environment variable PACA_JAX_CACHE, else the folder of this library in the user's cache."""
    return Path(os.environ.get(CACHE_VARIABLE) or pooch.os_cache("paca-jax"))


def keep_compiled_programs() -> None:
    """Lets a process that is started again find what took a second or more to compile, in `compiled` of the cache folder.

    JAX's own setting goes first (JAX_COMPILATION_CACHE_DIR).
    """
    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "compiled"))
