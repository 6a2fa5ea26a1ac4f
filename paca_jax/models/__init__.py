"""The backbone, its clustering and attention, and the teacher."""

from paca_jax.models.config import PaCaConfig, TeacherConfig
from paca_jax.models.registry import create_model, list_models, model_config
from paca_jax.models.vit import PaCaViT

__all__ = ["PaCaConfig", "PaCaViT", "TeacherConfig", "create_model", "list_models", "model_config"]
