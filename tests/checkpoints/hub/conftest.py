"""A Hub on this machine, and small models of each task."""

import pytest

from paca_jax.checkpoints import write_state_dict
from paca_jax.convert import to_torch
from paca_jax.models import create_model
from tests import golden
from tests.checkpoints.hub.fake_hub import TOKEN, FakeHub

BACKBONE = {
    "embed_dims": (8, 8, 16, 16),
    "depths": (1, 1, 1, 1),
    "num_heads": (1, 1, 2, 2),
    "mlp_ratios": (1, 1, 1, 1),
    "clusters": (4, 4, 0, 0),
}
RECIPES = {
    "classifier": {"name": "pacavit_nano", "num_classes": 3, "image_size": 48, **BACKBONE},
    "segmentor": {
        "name": "pacahead_nano",
        "num_classes": 3,
        "head_channels": 16,
        "short_side": 64,
        "long_side": 96,
        **BACKBONE,
    },
    "detector": {
        "name": "mask_rcnn_nano",
        "num_classes": 3,
        "head_channels": 16,
        "box_channels": 16,
        "short_side": 64,
        "long_side": 96,
        "candidates": 20,
        "proposals": 10,
        "detections": 5,
        **BACKBONE,
    },
}
NAMES = ("cat", "dog | wolf", "Käfer")


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """Returns, for each kind of model, a file of weights, the model and its variables."""
    folder, made = tmp_path_factory.mktemp("written"), {}
    for kind, recipe in RECIPES.items():
        model = create_model(**recipe)
        variables = golden.random_variables(model)
        write_state_dict(folder / f"{kind}.safetensors", to_torch(variables, model), recipe, NAMES)
        made[kind] = folder / f"{kind}.safetensors", model, variables
    return made


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Starts a Hub, which this process is logged in to, with an empty cache."""
    huggingface_hub = pytest.importorskip("huggingface_hub")
    constants, server = pytest.importorskip("huggingface_hub.constants"), FakeHub()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub_cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no_token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    huggingface_hub.close_session()
    yield server
    huggingface_hub.close_session()
    server.close()
