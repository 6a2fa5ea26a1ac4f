"""The cache folder of the user, and the compiled programs in it."""

import os
from pathlib import Path

import jax

CACHE_VARIABLE = "PACA_JAX_CACHE"


def cache_folder() -> Path:
    """Returns the folder of the environment variable PACA_JAX_CACHE, by default this library's folder in the user's cache."""
    import pooch  # which takes long to import

    return Path(os.environ.get(CACHE_VARIABLE) or pooch.os_cache("paca-jax"))


def keep_compiled_programs() -> None:
    """Keeps programs that took a second or more to compile in `compiled` of the cache folder, for later processes.

    JAX's own setting (JAX_COMPILATION_CACHE_DIR) takes precedence.
    """
    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "compiled"))
