"""Official PyTorch checkpoints: their names, their layout, their files, their addresses."""

from paca_jax.convert.files import read_state_dict, write_state_dict
from paca_jax.convert.pretrained import fetch_pretrained
from paca_jax.convert.torch_format import Conversion, convert_state_dict, departures, from_torch, to_torch

__all__ = [
    "Conversion",
    "convert_state_dict",
    "departures",
    "fetch_pretrained",
    "from_torch",
    "read_state_dict",
    "to_torch",
    "write_state_dict",
]
