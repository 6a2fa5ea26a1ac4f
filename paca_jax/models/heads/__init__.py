"""The heads that turn features of the backbone into class maps, or into boxes and masks."""

from paca_jax.models.heads.config import DetectorConfig, SegmentorConfig
from paca_jax.models.heads.fpn import FeaturePyramid
from paca_jax.models.heads.paca import PaCaHead
from paca_jax.models.heads.rcnn import BoxHead, MaskHead, RegionProposals
from paca_jax.models.heads.upernet import FCNHead, UPerNetHead

__all__ = [
    "BoxHead",
    "DetectorConfig",
    "FCNHead",
    "FeaturePyramid",
    "MaskHead",
    "PaCaHead",
    "RegionProposals",
    "SegmentorConfig",
    "UPerNetHead",
]
