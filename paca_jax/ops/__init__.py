"""Pure array functions: no parameters, no modules, no state."""

from paca_jax.ops.attention.api import residual_attention
from paca_jax.ops.attention.reference import (
    AttentionWeights,
    ClusterWeights,
    attend,
    attention_weights,
    average_clusters,
    gather_clusters,
    patch_attention,
)
from paca_jax.ops.augmentation import mix, random_erasing
from paca_jax.ops.cast.api import cast_weights
from paca_jax.ops.clustering.api import conv_clustering
from paca_jax.ops.clustering.reference import ClusteringWeights, assign_patches
from paca_jax.ops.depthwise.api import binomial_blur, depthwise_conv, depthwise_gelu
from paca_jax.ops.detection.anchors import anchor_grid
from paca_jax.ops.detection.boxes import box_area, box_iou, clip_boxes, decode_boxes, encode_boxes
from paca_jax.ops.detection.masks import mask_targets, paste_masks
from paca_jax.ops.detection.matching import assign_boxes, sample
from paca_jax.ops.detection.nms import batched_nms, nms
from paca_jax.ops.detection.roi_align import pyramid_level, pyramid_roi_align, roi_align
from paca_jax.ops.implementation import (
    IMPLEMENTATIONS,
    Choice,
    Implementation,
    check_implementation,
    describe_choices,
    in_block,
    interpret_kernels,
    record_choices,
    use_implementation,
)
from paca_jax.ops.mlp.api import residual_mlp
from paca_jax.ops.mlp.reference import MlpWeights
from paca_jax.ops.nn.convolution import conv
from paca_jax.ops.nn.dense import dense
from paca_jax.ops.nn.gelu import gelu
from paca_jax.ops.nn.materialize import materialize
from paca_jax.ops.nn.pixels import MEAN, STD, normalize, normalize_inside
from paca_jax.ops.nn.resize import adaptive_average_pool, resize_bilinear, resize_matrix, resize_nearest
from paca_jax.ops.nn.softmax import softmax
from paca_jax.ops.norm.api import layer_norm
from paca_jax.ops.norm.reference import LAYER_NORM_EPSILON, NormWeights
from paca_jax.ops.residual import Residual

__all__ = [
    "IMPLEMENTATIONS",
    "LAYER_NORM_EPSILON",
    "MEAN",
    "STD",
    "AttentionWeights",
    "Choice",
    "ClusterWeights",
    "ClusteringWeights",
    "Implementation",
    "MlpWeights",
    "NormWeights",
    "Residual",
    "adaptive_average_pool",
    "anchor_grid",
    "assign_boxes",
    "assign_patches",
    "attend",
    "attention_weights",
    "average_clusters",
    "batched_nms",
    "binomial_blur",
    "box_area",
    "box_iou",
    "cast_weights",
    "check_implementation",
    "clip_boxes",
    "conv",
    "conv_clustering",
    "decode_boxes",
    "dense",
    "depthwise_conv",
    "depthwise_gelu",
    "describe_choices",
    "encode_boxes",
    "gather_clusters",
    "gelu",
    "in_block",
    "interpret_kernels",
    "layer_norm",
    "mask_targets",
    "materialize",
    "mix",
    "nms",
    "normalize",
    "normalize_inside",
    "paste_masks",
    "patch_attention",
    "pyramid_level",
    "pyramid_roi_align",
    "random_erasing",
    "record_choices",
    "residual_attention",
    "residual_mlp",
    "resize_bilinear",
    "resize_matrix",
    "resize_nearest",
    "roi_align",
    "sample",
    "softmax",
    "use_implementation",
]
