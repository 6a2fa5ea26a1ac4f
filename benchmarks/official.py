"""Models of the official PyTorch code, built from our configurations."""

import importlib
import sys
from pathlib import Path
from typing import Any

from paca_jax.errors import UserError
from paca_jax.models import PaCaConfig

_CLUSTERINGS = {"conv": "P2CConv2d", "mlp": "P2CMlp", "linear": "P2CLinear"}
_LAYER_NORM = {"type": "LN", "eps": 1e-6}


def build_official(folder: Path, name: str, config: PaCaConfig) -> Any:
    """Returns the official `torch.nn.Module` of a model with initial weights.

    Args:
        folder: a checkout of the official repository (https://github.com/iVMCL/PaCaViT).
        name: the name of the model; with a teacher, the official function of that name builds it.
        config: its configuration; without a teacher, the model is built from it, even if the official code has no name for it.

    Raises:
        UserError: if the folder is not such a checkout, or a package that the official code imports is missing.
    """
    if not (folder / "models" / "paca_vit.py").is_file():
        raise UserError(f"Expected a checkout of the official code with models/paca_vit.py, got {folder}. Pass its folder.")
    sys.path.insert(0, str(folder))
    try:
        module = importlib.import_module("models.paca_vit")
    except ImportError as error:
        raise UserError(
            f"Expected the packages of the official code, got: {error}. Install torch, timm 0.9, mmengine, mmcv and einops."
        ) from error
    if config.teacher:
        return getattr(module, name)(num_classes=config.num_classes, image_size=config.image_size)
    return module.PaCaViT(
        in_chans=config.image_channels,
        num_classes=config.num_classes,
        img_size=config.image_size,
        arch_cfg={
            "embed_dims": list(config.embed_dims),
            "num_heads": list(config.num_heads),
            "mlp_ratios": list(config.mlp_ratios),
            "depths": list(config.depths),
        },
        paca_cfg={
            "type": _CLUSTERINGS[config.clustering],
            "clusters": list(config.clusters),
            "onsite_clustering": list(config.clustering_periods),
            "clustering_kernel_size": list(config.clustering_kernel_sizes),
            "cluster_norm_cfg": _LAYER_NORM if config.cluster_norm else None,
            "cluster_pos_embed": config.cluster_position_embedding,
            "norm_cfg1": _LAYER_NORM,
            "norm_cfg2": _LAYER_NORM,
            "mlp_func": "Mlp",
            "with_dwconv_in_mlp": config.mlp_depthwise,
            "with_shortcut_in_mlp": config.mlp_shortcut,
        },
        drop_path_rate=config.drop_path_rate,
        layer_scale=config.layer_scale,
        post_norm=config.post_norm,
        sub_ln=config.sub_norm,
        with_pos_embed=config.position_embedding,
    )
