"""Official PyTorch names and layouts, both ways."""

from paca_jax.convert.torch_format import Conversion, convert_state_dict, departures, from_torch, to_torch

__all__ = ["Conversion", "convert_state_dict", "departures", "from_torch", "to_torch"]
