"""PaCa-ViT, patch-to-cluster attention, in JAX and Flax.

model, variables = paca_jax.load("pacavit_tiny_p2cconv_100_0", pretrained=True)
image = paca_jax.preprocess("photo.jpg", model)
logits = jax.jit(model.apply)(variables, image[None])
"""

from paca_jax import convert, explain
from paca_jax.checkpoints.loading import load
from paca_jax.data import IMAGENET_CLASSES, IMAGENET_SYNSETS, preprocess
from paca_jax.errors import UserError
from paca_jax.models import create_model, list_models
from paca_jax.version import __version__

__all__ = [
    "IMAGENET_CLASSES",
    "IMAGENET_SYNSETS",
    "UserError",
    "__version__",
    "convert",
    "create_model",
    "explain",
    "list_models",
    "load",
    "preprocess",
]
