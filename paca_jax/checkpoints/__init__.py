"""Weights from anywhere: workdirs, files, official models; the checkpoints of a run."""

from paca_jax.checkpoints.files import read_state_dict, write_state_dict
from paca_jax.checkpoints.loading import load
from paca_jax.checkpoints.pretrained import fetch_pretrained

__all__ = ["fetch_pretrained", "load", "read_state_dict", "write_state_dict"]
