"""`implementation="xla"`: one plain program for every platform, of every model."""

import jax
import jax.numpy as jnp
import pytest

from paca_jax.models import Detector, Segmentor, create_model, list_models

SHALLOW = {"depths": (1, 1, 1, 1), "implementation": "xla"}
# One size of every backbone, and every head on one of them: operations choose their forms by kind, not by size.
NAMES = [
    name for name in list_models() if name.startswith(("pacavit_small_", "pacavit_convmixer_tiny_")) or name.endswith("_nano")
]
BOXES, VALID = jnp.array([[[4.0, 4.0, 40.0, 40.0]]]), jnp.ones((1, 1), bool)


def _losses(model, images):
    """Returns what a training loss is made of."""
    pyramid = model.pyramid(images, True)
    return model.region_scores(pyramid), model.classify(pyramid, BOXES, VALID), model.draw(pyramid, BOXES, VALID)


@pytest.mark.parametrize("name", NAMES)
def test_forward_and_gradient_hold_one_form_of_each_operation(name):
    model, images = create_model(name, **SHALLOW), jnp.zeros((1, 64, 64, 3))
    options = {"train": True, "rngs": {"dropout": jax.random.key(0)}, "mutable": ["batch_stats"]}
    if isinstance(model, Detector):
        options = {"mutable": ["batch_stats"], "rngs": options["rngs"], "method": _losses}
    elif isinstance(model, Segmentor):
        options["method"] = "with_auxiliary"

    def loss(variables):
        outputs, _ = model.apply(variables, images, **options)
        return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(outputs))

    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    program = str(jax.make_jaxpr(lambda v: (model.apply(v, images), jax.grad(loss, allow_int=True)(v)))(variables))
    for word in ("platform_index", "inlineable", "pallas_call"):
        assert word not in program, word
