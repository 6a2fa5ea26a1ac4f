"""Shapes and types are checked while the tests run: every call of these rooms is held against its annotations."""

from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

CHECKED = ("paca_jax.ops", "paca_jax.models", "paca_jax.convert", "paca_jax.data.transforms")

# An int is a float, as in the numeric tower of PEP 484.
check = beartype(conf=BeartypeConf(is_pep484_tower=True))


def check_shapes() -> None:
    """Checks the modules of these rooms that are imported from now on."""
    install_import_hook(CHECKED, "tests.shapes.check")
