"""The backbone, its clustering and attention, the teacher, segmentors and detectors."""

from paca_jax.models.clustering import Removal
from paca_jax.models.config import PaCaConfig, TeacherConfig
from paca_jax.models.detector import Detector
from paca_jax.models.heads import DetectorConfig, SegmentorConfig
from paca_jax.models.registry import backbone_name, create_model, list_models, model_config, name_within
from paca_jax.models.segmentor import Segmentor
from paca_jax.models.vit import PaCaViT

__all__ = [
    "Detector",
    "DetectorConfig",
    "PaCaConfig",
    "PaCaViT",
    "Removal",
    "Segmentor",
    "SegmentorConfig",
    "TeacherConfig",
    "backbone_name",
    "create_model",
    "list_models",
    "model_config",
    "name_within",
]
