"""PaCa-ViT, patch-to-cluster attention, in JAX and Flax."""

from paca_jax.version import __version__

__all__ = ["__version__"]
