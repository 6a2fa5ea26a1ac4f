"""The model that a state dict belongs to, known from the names and shapes of its tensors."""

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from paca_jax.convert.names import BACKBONE
from paca_jax.models import PaCaConfig, SegmentorConfig, TeacherConfig, list_models, model_config
from paca_jax.models.config import CLUSTERINGS

Shapes = Mapping[str, tuple[int, ...]]

# The last layer of each clustering, in the order of `CLUSTERINGS`.
_LAST_LAYERS = (4, 2, 0)
_STEM = "patch_embed.proj.0.weight"
_CLASSIFIER, _DETECTOR = "classifier", "detector"


def find_recipe(state: Mapping[str, np.ndarray], hint: str | None = None) -> dict[str, Any] | None:
    """Returns the arguments of `create_model` for a state dict, or None if no named model has such tensors.

    Tensors do not say everything: the number of heads and the MLP's shortcut are those of the named model with the same widths,
    and the size of images is too, unless there are position embeddings.

    Args:
        state: {name: array} by the official code's names, without a prefix.
        hint: the name to prefer where several models have the same tensors.
    """
    shapes = _shapes(state)
    if "stage1.0.mlp.fc1.weight" not in shapes or _STEM not in shapes:
        return None
    try:
        return _find(shapes, hint)
    except (LookupError, ValueError, ZeroDivisionError):  # a tensor that every model has is missing, or of another rank
        return None


def _find(shapes: Shapes, hint: str | None) -> dict[str, Any] | None:
    kind, head = _head(shapes)
    backbone, teacher = _backbone(shapes), _teacher(shapes)
    found: dict[str, dict[str, Any]] = {}
    for name in list_models():
        config = model_config(name)
        own = config if isinstance(config, PaCaConfig) else config.backbone
        if _kind(config) == kind and own.embed_dims == backbone["embed_dims"] and own.teacher == teacher:
            of_head = {key: value for key, value in head.items() if getattr(config, key) != value}
            found[name] = of_head | _differences(backbone, own)
    if not found:
        return None
    fewest = min(len(overrides) for overrides in found.values())
    best = [name for name, overrides in found.items() if len(overrides) == fewest]
    name = hint if hint in best else best[0]
    return {"name": name, "num_classes": head["num_classes"], **found[name]}


def find_sizes(state: Mapping[str, np.ndarray], name: str) -> dict[str, Any]:
    """Returns the number of classes and of image channels of a state dict, as far as the named model takes them from it."""
    shapes = _shapes(state)
    kind, head = _head(shapes)
    sizes = {"image_channels": shapes[_STEM][1]} if len(shapes.get(_STEM, ())) == 4 else {}
    starts_backbone = kind == _CLASSIFIER and not isinstance(model_config(name), PaCaConfig)
    return sizes if starts_backbone else sizes | {"num_classes": head["num_classes"]}


def _shapes(state: Mapping[str, np.ndarray]) -> Shapes:
    """Returns the shapes of all but scalars, so that each has a first and a last axis."""
    return {key.removeprefix(f"{BACKBONE}."): np.shape(array) for key, array in state.items() if np.ndim(array)}


def _kind(config: Any) -> str:
    if isinstance(config, SegmentorConfig):
        return config.head
    return _CLASSIFIER if isinstance(config, PaCaConfig) else _DETECTOR


def _head(shapes: Shapes) -> tuple[str, dict[str, Any]]:
    """Returns the kind of a model, and the options of its head."""
    if "decode_head.conv_seg.weight" in shapes:
        upernet = "decode_head.bottleneck.conv.weight"
        kind, widest = ("upernet", upernet) if upernet in shapes else ("paca", "decode_head.convs.0.conv.weight")
        options = {"num_classes": "decode_head.conv_seg.weight", "head_channels": widest}
    elif "roi_head.bbox_head.fc_cls.weight" in shapes:
        kind = _DETECTOR
        first = {"head_channels": "neck.lateral_convs.0.conv.weight", "box_channels": "roi_head.bbox_head.shared_fcs.0.weight"}
        classes = shapes["roi_head.bbox_head.fc_cls.weight"][0] - 1  # the last one is the background
        return kind, {"num_classes": classes, **{key: shapes[name][0] for key, name in first.items() if name in shapes}}
    else:
        return _CLASSIFIER, {"num_classes": shapes.get("head.weight", (0,))[0]}
    return kind, {key: shapes[name][0] for key, name in options.items() if name in shapes}


def _backbone(shapes: Shapes) -> dict[str, Any]:
    """Returns the options of a backbone. In a value of each stage, None is what no tensor tells."""
    depths = _depths(shapes, r"stage(\d+)\.(\d+)\.")
    stages = range(1, len(depths) + 1)
    first = [f"stage{stage}.0." for stage in stages]
    widths = [shapes[f"{block}mlp.fc1.weight"] for block in first]
    pre, post = (f"stage1.0.norm1_{side}.weight" in shapes for side in ("before", "after"))
    options: dict[str, Any] = {
        "embed_dims": tuple(width for _, width in widths),
        "depths": depths,
        "mlp_ratios": tuple(hidden / width for hidden, width in widths),
        "image_channels": shapes[_STEM][1],
        "mlp_depthwise": "stage1.0.mlp.dwconv.dwconv.weight" in shapes,
        "layer_scale": "stage1.0.gamma1" in shapes,
        "norms": (pre, post),
        "position_embedding": "stage1.0.pos_embed" in shapes,
    }
    if options["position_embedding"]:
        options["image_size"] = 4 * math.isqrt(shapes["stage1.0.pos_embed"][1])
    return options | _clustering(shapes, depths)


def _clustering(shapes: Shapes, depths: tuple[int, ...]) -> dict[str, Any]:
    names = dict(zip(_LAST_LAYERS, CLUSTERINGS, strict=True))
    options: dict[str, Any] = {}
    clusters, periods, kernels = [], [], []
    for stage, depth in enumerate(depths, start=1):
        own = [block for block in range(depth) if f"stage{stage}.{block}.attn.clustering.clustering.0.weight" in shapes]
        layers = f"stage{stage}.0.attn.clustering.clustering."
        last = next((layer for layer in _LAST_LAYERS if f"{layers}{layer}.weight" in shapes), None)
        weight = f"paca_teacher.to_clusters{stage}.weight" if last is None else f"{layers}{last}.weight"
        clusters.append(shapes.get(weight, (0,))[0])
        periods.append(None if last is None or depth == 1 else next((block for block in own if block), 0))
        kernels.append(shapes[f"{layers}0.weight"][-1] if last == _LAST_LAYERS[0] else None)
        if last is not None:
            options["clustering"] = names[last]
        if clusters[-1]:
            options["cluster_norm"] = f"stage{stage}.0.attn.cluster_norm.weight" in shapes
            options["cluster_position_embedding"] = f"stage{stage}.0.attn.cluster_pos_enc" in shapes
    values: dict[str, list[Any]] = {"clusters": clusters, "clustering_periods": periods, "clustering_kernel_sizes": kernels}
    return options | {key: tuple(value) for key, value in values.items()}


def _teacher(shapes: Shapes) -> TeacherConfig | None:
    depthwise = shapes.get("paca_teacher.block1.0.0.fn.0.weight")
    if depthwise is None:
        return None
    return TeacherConfig(_depths(shapes, r"paca_teacher\.block(\d+)\.(\d+)\."), depthwise[-1])


def _depths(shapes: Shapes, pattern: str) -> tuple[int, ...]:
    """Returns how many blocks each stage has; `pattern` finds the numbers of a stage, from 1, and of a block, from 0."""
    found = [(int(match[1]), int(match[2])) for key in shapes if (match := re.match(pattern, key))]
    if max(map(max, found)) > len(shapes):
        raise ValueError("more stages or blocks than tensors")
    stages = range(1, 1 + max(stage for stage, _ in found))
    return tuple(1 + max((block for other, block in found if other == stage), default=-1) for stage in stages)


def _differences(found: Mapping[str, Any], config: PaCaConfig) -> dict[str, Any]:
    """Returns the options in which a backbone differs from a named one."""
    overrides: dict[str, Any] = {}
    for key, value in found.items():
        if key == "norms":
            if value != (config.sub_norm or not config.post_norm, config.sub_norm or config.post_norm):
                overrides |= {"sub_norm": all(value), "post_norm": not value[0]}
        elif key == "layer_scale":
            if value != (config.layer_scale is not None):
                overrides[key] = 1.0 if value else None  # only where a fresh model starts
        elif isinstance(value, tuple):
            known = tuple(own if part is None else part for part, own in zip(value, getattr(config, key), strict=True))
            overrides |= {} if known == getattr(config, key) else {key: known}
        elif value != getattr(config, key):
            overrides[key] = value
    return overrides
