"""Pure array functions: no parameters, no modules, no state."""

from paca_jax.ops.anchors import anchor_grid
from paca_jax.ops.attention import (
    AttentionWeights,
    ClusterWeights,
    assign_patches,
    attend,
    attention_weights,
    gather_clusters,
)
from paca_jax.ops.augmentation import mix, random_erasing
from paca_jax.ops.boxes import box_area, box_iou, clip_boxes, decode_boxes, encode_boxes
from paca_jax.ops.conv_clustering import ClusteringWeights, conv_clustering
from paca_jax.ops.convolution import conv
from paca_jax.ops.dense import channels_dot
from paca_jax.ops.depthwise import binomial_blur, depthwise_conv
from paca_jax.ops.gelu import gelu
from paca_jax.ops.kernels.norm import LAYER_NORM_EPSILON, NormWeights
from paca_jax.ops.masks import mask_targets, paste_masks
from paca_jax.ops.matching import assign_boxes, sample
from paca_jax.ops.nms import batched_nms, nms
from paca_jax.ops.norm import layer_norm
from paca_jax.ops.residual import Residual
from paca_jax.ops.residual_attention import residual_attention
from paca_jax.ops.residual_mlp import MlpWeights, residual_mlp
from paca_jax.ops.resize import adaptive_average_pool, resize_bilinear, resize_matrix, resize_nearest
from paca_jax.ops.roi_align import pyramid_level, pyramid_roi_align, roi_align

__all__ = [
    "LAYER_NORM_EPSILON",
    "AttentionWeights",
    "ClusterWeights",
    "ClusteringWeights",
    "MlpWeights",
    "NormWeights",
    "Residual",
    "adaptive_average_pool",
    "anchor_grid",
    "assign_boxes",
    "assign_patches",
    "attend",
    "attention_weights",
    "batched_nms",
    "binomial_blur",
    "box_area",
    "box_iou",
    "channels_dot",
    "clip_boxes",
    "conv",
    "conv_clustering",
    "decode_boxes",
    "depthwise_conv",
    "encode_boxes",
    "gather_clusters",
    "gelu",
    "layer_norm",
    "mask_targets",
    "mix",
    "nms",
    "paste_masks",
    "pyramid_level",
    "pyramid_roi_align",
    "random_erasing",
    "residual_attention",
    "residual_mlp",
    "resize_bilinear",
    "resize_matrix",
    "resize_nearest",
    "roi_align",
    "sample",
]
