"""Weights from anywhere: workdirs, files, official models; the checkpoints of a run."""

from paca_jax.checkpoints.files import read_state_dict, write_state_dict
from paca_jax.checkpoints.hub.folder import write_hub_folder
from paca_jax.checkpoints.loading import class_names, load
from paca_jax.checkpoints.pretrained import fetch_pretrained

__all__ = ["class_names", "fetch_pretrained", "load", "read_state_dict", "write_hub_folder", "write_state_dict"]
