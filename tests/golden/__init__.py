"""The recorded outputs of the official implementation, and the models and weights that should reproduce them.

Recorded from iVMCL/PaCaViT (commit 4307018) in float32 on a CPU with PyTorch 2.13, in evaluation mode unless a name says
`train`, with the weights and images of `reference_weights.py`. `classification/NAME.manifest.json` contains the names and
shapes of a state dict, `classification/NAME.HxW.npz` outputs, losses and gradients, `training/NAME.npz` twelve steps of AdamW;
`segmentation/` and `detection/` contain the same for segmentors and detectors.
"""

import functools
import json
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from paca_jax.convert import to_torch
from paca_jax.models import PaCaViT, create_model
from tests.golden import reference_weights

FOLDER = Path(__file__).parent
CLASSIFICATION = FOLDER / "classification"
SEGMENTATION = FOLDER / "segmentation"
DETECTION = FOLDER / "detection"

# Three tiny models with options of the official code that no published model uses.
OPTIONS: dict[str, dict[str, Any]] = {
    "options_linear_period2_clusterpos_layerscale": {
        "clustering": "linear",
        "clusters": (49, 36, 25, 9),
        "clustering_periods": (0, 1, 2, 0),
        "cluster_position_embedding": True,
        "layer_scale": 0.5,
    },
    "options_postnorm_subln_posembed": {
        "clusters": (20, 20, 0, 0),
        "clustering_kernel_sizes": (5, 3, 7, 7),
        "post_norm": True,
        "sub_norm": True,
        "position_embedding": True,
    },
    "options_postnorm_plainmlp_nonorm": {
        "clustering": "mlp",
        "clusters": (10, 0, 30, 5),
        "cluster_norm": False,
        "post_norm": True,
        "mlp_depthwise": False,
    },
}

NANO: dict[str, Any] = {
    "embed_dims": (32, 64, 128, 160),
    "depths": (2, 2, 2, 1),
    "num_heads": (1, 2, 4, 5),
    "mlp_ratios": (4, 4, 3, 2),
    "clusters": (16, 8, 0, 0),
    "num_classes": 10,
}

# Numbers of parameters of the official models, as counted there.
PARAMETERS = {
    "pacavit_tiny_p2cconv_100_0": 12_200_680,
    "pacavit_small_p2cconv_100_0": 22_037_704,
    "pacavit_base_p2cconv_100_0": 46_911_304,
    "pacavit_small_p2cmlp_100_0": 22_637_268,
    "pacavit_convmixer_tiny_100": 12_483_672,
    "pacavit_convmixer_small_100": 21_075_064,
    "pacavit_convmixer_base_100": 47_659_192,
    "pacahead_tiny": 13_326_764,
    "pacahead_small": 23_163_788,
    "pacahead_base": 47_964_940,
    "mask_rcnn_tiny": 31_974_896,
    "mask_rcnn_small": 41_811_920,
    "mask_rcnn_base": 66_606_672,
    "upernet_tiny": 41_561_516,
    "upernet_small": 51_398_540,
    "upernet_base": 77_182_732,
}


def _named(folder: Path) -> list[str]:
    return sorted(path.name.removesuffix(".manifest.json") for path in folder.glob("*.manifest.json"))


CLASSIFIERS, SEGMENTORS, DETECTORS = _named(CLASSIFICATION), _named(SEGMENTATION), _named(DETECTION)
OFFICIAL = [name for name in CLASSIFIERS if name not in OPTIONS]


def model(name: str, **overrides: Any) -> Any:
    """Returns the model that a manifest was written from."""
    if name in OPTIONS:
        return create_model("pacavit_tiny_p2cconv_100_0", **(OPTIONS[name] | overrides))
    return create_model(name, **overrides)


def nano(**overrides: Any) -> PaCaViT:
    """Returns a small model for quick tests, whose sizes do not depend on the published `pacavit_nano`."""
    return create_model("pacavit_nano", **(NANO | overrides))


def manifest(name: str) -> dict[str, list[int]]:
    """Returns {key: shape} of the official state dict."""
    (path,) = FOLDER.glob(f"*/{name}.manifest.json")
    return json.loads(path.read_text())


def state_dict(name: str, salt: int = 0) -> dict[str, np.ndarray]:
    """Returns the generated weights of a model, in PyTorch's layout."""
    return reference_weights.state_dict(manifest(name), salt)


@functools.cache
def shapes(name: str) -> dict[str, Any]:
    """Returns the shapes and types of a model's variables."""
    return jax.eval_shape(model(name).init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))


def random_variables(model: nn.Module, seed: int = 0) -> dict[str, Any]:
    """Returns random variables, none of them trivial, drawn by NumPy (compiling `model.init` takes far longer)."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, model.config.image_channels)))

    def draw(keys: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> jax.Array:
        name, noise = keys[-1].key, rng.standard_normal(leaf.shape)
        if leaf.ndim >= 2:
            values = noise / np.sqrt(np.prod(leaf.shape[:-1]))
        else:
            values = {"scale": 1 + 0.1 * noise, "var": np.exp(0.3 * noise), "count": np.array(3)}.get(name, 0.1 * noise)
        return jnp.asarray(values, leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


class Differences:
    """Collects differences outside their tolerance, so that one run reports all of them."""

    def __init__(self) -> None:
        self.failures: list[str] = []

    def check(self, what: str, ours: Any, theirs: Any, tolerance: Any) -> None:
        """Compares one array."""
        difference = np.abs(np.asarray(ours, np.float64) - np.asarray(theirs, np.float64))
        if not np.all(difference <= tolerance):
            self.failures.append(f"{what}: off by {np.max(difference - tolerance):.2e} more than its tolerance")

    def check_norms(self, what: str, ours: dict[str, np.ndarray], names: Any, norms: Any, relative: float) -> None:
        """Compares the norms of named tensors, small ones by absolute difference."""
        for key, norm in zip(names, norms, strict=True):
            found = np.linalg.norm(ours[str(key)].astype(np.float64))
            self.check(f"{what} of {key}", found, norm, relative * max(norm, 1e-3))


def random_weights(model: nn.Module) -> tuple[nn.Module, dict[str, Any], dict[str, np.ndarray]]:
    """Returns the model, random variables for it, and their state dict."""
    variables = random_variables(model)
    return model, variables, to_torch(variables, model)


def images(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Returns the generated images for the shape (B, C, H, W) of a reference, as (B, H, W, C)."""
    return np.ascontiguousarray(reference_weights.images(seed, shape).transpose(0, 2, 3, 1))
