"""The model of a state dict, from its tensors."""

import numpy as np
import pytest

from paca_jax.convert.architecture import find_recipe
from paca_jax.convert.names import match
from paca_jax.models import create_model
from paca_jax.models.variables import abstract_variables
from tests import golden


def blank(name):
    return {key: np.broadcast_to(np.float32(0), shape) for key, shape in golden.manifest(name).items()}


def blank_of(model):
    """Returns a state dict of zeros, which take no memory, with the names and shapes of a model."""
    state = {}
    for path, leaf in abstract_variables(model).items():
        found = match(path)
        state[found.key] = found.tensor.to_torch(np.broadcast_to(np.float32(0), leaf.shape))
    return state


@pytest.mark.parametrize("name", [*golden.OFFICIAL, *golden.SEGMENTORS, *golden.DETECTORS])
def test_every_official_model_is_known_by_its_tensors(name):
    recipe = find_recipe(blank(name))
    assert recipe == {"name": name, "num_classes": create_model(name).config.num_classes}


@pytest.mark.parametrize("name", golden.OPTIONS)
def test_options_are_found(name):
    recipe = find_recipe(blank(name))
    assert recipe["name"] == "pacavit_tiny_p2cconv_100_0"
    assert abstract_variables(create_model(**recipe)) == abstract_variables(golden.model(name))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("pacavit_nano", {"num_classes": 0, "image_channels": 1, "clusters": (5, 0, 3, 0)}),
        ("pacavit_nano", {"clustering_periods": (1, 0, 0, 0), "mlp_ratios": (1, 2, 3, 4), "depths": (2, 1, 3, 1)}),
        ("pacavit_nano", {"position_embedding": True, "image_size": 64, "layer_scale": 1.0, "num_classes": 7}),
        ("upernet_nano", {"num_classes": 4, "head_channels": 16, "clustering": "linear"}),
        ("mask_rcnn_nano", {"num_classes": 2, "head_channels": 8, "box_channels": 24}),
        ("pacahead_nano", {"num_classes": 9, "head_channels": 24, "cluster_norm": False}),
    ],
)
def test_other_sizes_are_found(name, options):
    model = create_model(name, **options)
    recipe = find_recipe(blank_of(model))
    assert create_model(**recipe) == model


def test_a_hint_decides_between_equal_models_and_no_others():
    state = blank_of(create_model("pacahead_small"))
    assert find_recipe(state)["name"] == "pacahead_small"
    assert find_recipe(state, "pacahead_small_p2cconv_49_0")["name"] == "pacahead_small_p2cconv_49_0"
    assert find_recipe(state, "upernet_small")["name"] == "pacahead_small"


@pytest.mark.parametrize("state", [{}, {"layer1.0.conv1.weight": np.zeros((4, 4, 3, 3))}, {"head.weight": np.zeros((2, 3))}])
def test_other_tensors_are_of_no_known_model(state):
    assert find_recipe(state) is None
