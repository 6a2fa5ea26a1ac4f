"""PaCa-ViT, patch-to-cluster attention, in JAX and Flax.

model, variables = paca_jax.load("pacavit_tiny_p2cconv_100_0", pretrained=True)
image = paca_jax.preprocess("photo.jpg", model)
logits = jax.jit(model.apply)(variables, image[None])
"""

import importlib
from typing import TYPE_CHECKING, Any

from paca_jax.errors import UserError
from paca_jax.version import __version__

if TYPE_CHECKING:
    from paca_jax import convert, data, explain, export, memory, models, ops
    from paca_jax.checkpoints import class_names, load
    from paca_jax.data import IMAGENET_CLASSES, IMAGENET_SYNSETS, preprocess
    from paca_jax.models import create_model, list_models

__all__ = [
    "IMAGENET_CLASSES",
    "IMAGENET_SYNSETS",
    "UserError",
    "__version__",
    "class_names",
    "convert",
    "create_model",
    "data",
    "explain",
    "export",
    "list_models",
    "load",
    "memory",
    "models",
    "ops",
    "preprocess",
]

# Imported at first use, so that `import paca_jax` takes no time: the module of each name, and the modules that are names.
_HOMES = {
    "IMAGENET_CLASSES": "paca_jax.data",
    "IMAGENET_SYNSETS": "paca_jax.data",
    "class_names": "paca_jax.checkpoints",
    "create_model": "paca_jax.models",
    "list_models": "paca_jax.models",
    "load": "paca_jax.checkpoints",
    "preprocess": "paca_jax.data",
}
_MODULES = ("convert", "data", "explain", "export", "memory", "models", "ops")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"paca_jax.{name}")
    if name in _HOMES:
        value = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
