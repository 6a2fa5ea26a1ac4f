"""The backbone, its clustering and attention, the teacher, and the heads of segmentors."""

from paca_jax.models.config import PaCaConfig, TeacherConfig
from paca_jax.models.heads import SegmentorConfig
from paca_jax.models.registry import backbone_name, create_model, list_models, model_config, name_within
from paca_jax.models.segmentor import Segmentor
from paca_jax.models.vit import PaCaViT

__all__ = [
    "PaCaConfig",
    "PaCaViT",
    "Segmentor",
    "SegmentorConfig",
    "TeacherConfig",
    "backbone_name",
    "create_model",
    "list_models",
    "model_config",
    "name_within",
]
