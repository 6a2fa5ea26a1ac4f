"""Wrong arguments of conversion are answered with one sentence."""

import pytest

from paca_jax import convert, load
from paca_jax.errors import UserError
from paca_jax.models import create_model
from tests.shapes import unchecked

NANO = create_model("pacavit_nano")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: convert.from_torch(NANO, {}), "a state dict as a dict, got PaCaViT.* the model second"),
        (lambda: convert.from_torch("weights.pth", NANO), "a state dict as a dict, got str"),
        (lambda: convert.to_torch(NANO, {}), "variables as a dict, got PaCaViT"),
        (lambda: convert.to_torch({"params": {}}, "pacavit_nano"), "a model of create_model or load, got str"),
        (lambda: load(None), "a path or a name to load from, got NoneType"),
        (lambda: load("x.safetensors", rgb_to_gray="yes"), "rgb_to_gray to be True or False, got 'yes'"),
        (lambda: load("x.safetensors", allow_nonfinite=1), "allow_nonfinite to be True or False, got 1"),
        (lambda: convert.from_torch({"a": 1}, NANO), "'a' hold no array"),
        (lambda: load(NANO), "a path or a name to load from, got PaCaViT"),
    ],
)
def test_arguments_have_their_types(call, message):
    with unchecked(), pytest.raises(UserError, match=message):
        call()
