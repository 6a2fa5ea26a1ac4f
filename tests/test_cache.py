"""Compiled programs that a later process finds."""

import sys

from tests import runs

CODE = """
import jax, jax.numpy as jnp
from paca_jax.cache import keep_compiled_programs

keep_compiled_programs()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_log_compiles", True)
print(jax.jit(lambda x: jnp.sin(x) * 3)(jnp.ones(5))[0])
"""


def run(**variables):
    kept = {name: value for name, value in runs.environment().items() if name != "JAX_COMPILATION_CACHE_DIR"}
    done = runs.run([sys.executable, "-c", CODE], kept | variables)
    assert done.returncode == 0, done.stderr
    return done


def test_a_later_process_finds_what_was_compiled(tmp_path):
    first = run(PACA_JAX_CACHE=str(tmp_path))
    assert "Persistent compilation cache hit" not in first.stderr
    assert list((tmp_path / "compiled").glob("jit__lambda*"))
    second = run(PACA_JAX_CACHE=str(tmp_path))
    assert "Persistent compilation cache hit for 'jit__lambda" in second.stderr
    assert second.stdout == first.stdout


def test_the_setting_of_jax_goes_first(tmp_path):
    run(PACA_JAX_CACHE=str(tmp_path / "ours"), JAX_COMPILATION_CACHE_DIR=str(tmp_path / "theirs"))
    assert not (tmp_path / "ours").exists()
    assert list((tmp_path / "theirs").glob("jit__lambda*"))
