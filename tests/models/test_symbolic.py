"""Models trace with dimensions that only the caller of an exported program knows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paca_jax.models import TeacherConfig, create_model
from tests import golden
from tests.shapes import unchecked

SMALL = {"depths": (1, 1, 1, 1), "implementation": "xla"}
# A model of each kind, and the shape of its images.
MODELS = {
    "convolution clustering": ("pacavit_nano", {}, "b, h, w, 3"),
    "MLP clustering": ("pacavit_nano", {"clustering": "mlp"}, "b, h, w, 3"),
    "linear clustering": ("pacavit_nano", {"clustering": "linear"}, "b, h, w, 3"),
    "teacher": ("pacavit_nano", {"clusters": (8, 8, 8, 8), "teacher": TeacherConfig((1, 1, 1, 1))}, "b, h, w, 3"),
    "position embedding": ("pacavit_nano", {"position_embedding": True}, "b, h, w, 3"),
    "other norms": ("pacavit_nano", {"post_norm": True, "sub_norm": True, "mlp_depthwise": False}, "b, h, w, 3"),
    "PaCa head": ("pacahead_nano", {"head_channels": 16}, "b, h, w, 3"),
    "UPerNet": ("upernet_nano", {"head_channels": 16}, "b, h, w, 3"),
    "Mask R-CNN": ("mask_rcnn_nano", {"head_channels": 16, "box_channels": 16, "candidates": 20}, "b, 64, 96, 3"),
}


def export(name, options, shape):
    """Returns the model, its variables, and its exported program."""
    model = create_model(name, num_classes=5, **SMALL, **options)
    variables = golden.random_variables(model)
    images = jax.ShapeDtypeStruct(jax.export.symbolic_shape(shape), jnp.float32)
    with unchecked():  # jaxtyping broadcasts no symbolic dimensions
        return model, variables, jax.export.export(jax.jit(lambda images: model.apply(variables, images)))(images)


@pytest.mark.parametrize(("name", "options", "shape"), MODELS.values(), ids=MODELS.keys())
def test_every_kind_of_model_traces_with_symbolic_dimensions(name, options, shape):
    outputs = export(name, options, shape)[-1].out_avals
    assert all(str(output.shape[0]) == "b" for output in outputs)


@pytest.mark.parametrize("kind", ["convolution clustering", "position embedding", "teacher", "UPerNet"])
def test_its_program_is_the_model(kind):
    model, variables, program = export(*MODELS[kind])
    images = np.random.default_rng(0).standard_normal((2, 57, 83, 3)).astype(np.float32)
    np.testing.assert_allclose(program.call(images), jax.jit(model.apply)(variables, images), atol=1e-4)
