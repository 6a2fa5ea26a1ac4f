"""The shapes of public functions are checked while the tests run (see `tests.shapes`)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from paca_jax import convert, ops
from paca_jax.data.transforms.resampling import bilinear
from paca_jax.models import create_model


def test_a_wrong_shape_is_refused_in_operations():
    with pytest.raises(TypeCheckError, match="gather_clusters"):
        ops.gather_clusters(jnp.zeros((2, 3, 4)), jnp.zeros((2, 5, 6)))


def test_a_wrong_shape_is_refused_in_models():
    model = create_model("pacavit_nano")
    with pytest.raises(TypeCheckError, match="images"):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((32, 32, 3)))


def test_a_wrong_type_is_refused_in_conversion():
    with pytest.raises(TypeCheckError, match="to_torch"):
        convert.to_torch([np.zeros(3)], create_model("pacavit_nano"))


def test_a_wrong_shape_is_refused_in_transforms_on_the_host():
    with pytest.raises(TypeCheckError, match="bilinear"):
        bilinear(np.zeros((4, 4), np.float32), (2, 2), (0, 0, 2, 2))
