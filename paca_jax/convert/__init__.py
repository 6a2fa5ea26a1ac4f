"""Official PyTorch names and layouts, both ways."""

from paca_jax.convert.state_dict import from_torch, to_torch

__all__ = ["from_torch", "to_torch"]
