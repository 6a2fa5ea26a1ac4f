"""The names of `import paca_jax`, which are imported at first use."""

import importlib

import pytest

import paca_jax
from tests.runs import run_code


def test_every_public_name_is_there_and_listed():
    for name in paca_jax.__all__:
        assert getattr(paca_jax, name) is not None
    assert set(paca_jax.__all__) <= set(dir(paca_jax))
    assert len(set(dir(paca_jax))) == len(dir(paca_jax))


def test_names_are_those_of_their_rooms():
    assert paca_jax.load is importlib.import_module("paca_jax.checkpoints.loading").load
    assert paca_jax.memory is importlib.import_module("paca_jax.memory")
    assert "pacavit_nano" in paca_jax.list_models()
    assert paca_jax.create_model("pacavit_nano").config.num_classes == 1000


def test_an_unknown_name_is_an_ordinary_attribute_error():
    with pytest.raises(AttributeError, match="module 'paca_jax' has no attribute 'laod'"):
        _ = paca_jax.laod
    with pytest.raises(ImportError, match="cannot import name 'laod' from 'paca_jax'"):
        exec("from paca_jax import laod")


def test_the_import_alone_loads_neither_jax_nor_numpy():
    heavy = ("jax", "flax", "numpy", "tensorflow", "clu", "orbax", "torch", "PIL")
    code = f"import sys, paca_jax; print([name for name in {heavy} if name in sys.modules])"
    assert run_code(code).strip() == "[]"


def test_the_names_without_training_load_nothing_of_it():
    heavy = ("tensorflow", "clu", "orbax", "torch", "grain")
    code = (
        "import sys, paca_jax; [getattr(paca_jax, name) for name in paca_jax.__all__]; "
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    assert run_code(code).strip() == "[]"
