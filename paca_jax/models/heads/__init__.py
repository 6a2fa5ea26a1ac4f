"""What turns the backbone's features into maps of classes."""

from paca_jax.models.heads.config import SegmentorConfig
from paca_jax.models.heads.paca import PaCaHead
from paca_jax.models.heads.upernet import FCNHead, UPerNetHead

__all__ = ["FCNHead", "PaCaHead", "SegmentorConfig", "UPerNetHead"]
