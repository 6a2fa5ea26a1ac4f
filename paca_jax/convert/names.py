"""One table: from paths of Flax modules to the official code's PyTorch names, and how each kind of layer changes layout.

A row joins a module of ours to one of theirs. Its kind says which tensors such a layer holds, under which names on either side,
and in which layout. Every array of every model matches exactly one row. A new head is a few more rows, or one more kind.
"""

import functools
import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from paca_jax.models.heads.rcnn import BOX_SIDE
from paca_jax.models.variables import CLUSTERING, HEAD
from paca_jax.ops.depthwise.api import BINOMIAL

Layout = Callable[[np.ndarray], np.ndarray]


class Tensor(NamedTuple):
    """One array of a layer.

    Attributes:
        torch_name: its name in PyTorch, after the module's; "" if the module's name is the array's.
        to_torch: converts our layout to theirs.
        to_flax: converts their layout to ours.
        torch_dtype: its type in a state dict.
        flax_dtype: its type in our variables.
    """

    torch_name: str
    to_torch: Layout
    to_flax: Layout
    torch_dtype: type = np.float32
    flax_dtype: type = np.float32


class Constant(NamedTuple):
    """A fixed array that only PyTorch keeps (a buffer), derived from the layer's kernel in our layout."""

    torch_name: str
    value: Callable[[np.ndarray], np.ndarray]


class Kind(NamedTuple):
    """A kind of layer: {our "collection/name": the array}, and the constants that PyTorch keeps beside them."""

    tensors: dict[str, Tensor]
    constants: tuple[Constant, ...] = ()


class Row(NamedTuple):
    """A row of the table.

    Attributes:
        path: regular expression of the Flax module's path; groups in it fill the fields {0}, {1} of `key`.
        key: the PyTorch module's name.
        kind: the layer's kind.
        group: its group in `paca_jax.models.variables.GROUPS`, if it has one.
    """

    path: str
    key: str
    kind: Kind
    group: str | None = None


def _same(array: np.ndarray) -> np.ndarray:
    return array


def _swap(array: np.ndarray) -> np.ndarray:
    return array.T


def _with_batch_axis(array: np.ndarray) -> np.ndarray:
    return array[None]


def _without_batch_axis(array: np.ndarray) -> np.ndarray:
    return array[0]


def _hwio_to_oihw(array: np.ndarray) -> np.ndarray:
    return array.transpose(3, 2, 0, 1)


def _oihw_to_hwio(array: np.ndarray) -> np.ndarray:
    return array.transpose(2, 3, 1, 0)


def _dense_to_1x1(array: np.ndarray) -> np.ndarray:
    return array.T[:, :, None, None]


def _1x1_to_dense(array: np.ndarray) -> np.ndarray:
    return array[:, :, 0, 0].T


def _cells_last(array: np.ndarray) -> np.ndarray:
    """(7 x 7 cells x channels, out) -> (out, channels x 7 x 7 cells)."""
    cells = BOX_SIDE * BOX_SIDE
    return array.reshape(cells, -1, array.shape[1]).transpose(2, 1, 0).reshape(array.shape[1], -1)


def _cells_first(array: np.ndarray) -> np.ndarray:
    cells = BOX_SIDE * BOX_SIDE
    return array.reshape(len(array), -1, cells).transpose(2, 1, 0).reshape(-1, len(array))


def _swap_pairs(array: np.ndarray) -> np.ndarray:
    """Converts kernels of transposed convolutions: (height, width, in, out) here, (in, out, height, width) there."""
    return array.transpose(2, 3, 0, 1)


def _blur_filter(kernel: np.ndarray) -> np.ndarray:
    return np.broadcast_to(BINOMIAL, (kernel.shape[2], 1, *BINOMIAL.shape))


_BIAS = {"params/bias": Tensor("bias", _same, _same)}
_SCALE = {"params/scale": Tensor("weight", _same, _same)}

DENSE = Kind({"params/kernel": Tensor("weight", _swap, _swap), **_BIAS})
CONV = Kind({"params/kernel": Tensor("weight", _hwio_to_oihw, _oihw_to_hwio), **_BIAS})  # depthwise ones too
POINTWISE = Kind({"params/kernel": Tensor("weight", _dense_to_1x1, _1x1_to_dense), **_BIAS})
OF_REGIONS = Kind({"params/kernel": Tensor("weight", _cells_last, _cells_first), **_BIAS})
TRANSPOSED_CONV = Kind({"params/kernel": Tensor("weight", _swap_pairs, _swap_pairs), **_BIAS})
BLURRED_CONV = Kind(
    {
        "params/kernel": Tensor("conv.weight", _hwio_to_oihw, _oihw_to_hwio),
        "params/bias": Tensor("conv.bias", _same, _same),
    },
    (Constant("blur_filter", _blur_filter),),
)
NORM = Kind({**_SCALE, **_BIAS})
BATCH_NORM = Kind(
    {
        **_SCALE,
        **_BIAS,
        "batch_stats/mean": Tensor("running_mean", _same, _same),
        "batch_stats/var": Tensor("running_var", _same, _same),
        "batch_stats/count": Tensor("num_batches_tracked", _same, _same, np.int64, np.int32),
    }
)
VECTOR = Kind({"params": Tensor("", _same, _same)})
EMBEDDING = Kind({"params": Tensor("", _with_batch_axis, _without_batch_axis)})

_BLOCK = r"stage(\d)/block(\d+)"
_TEACHER_BLOCK = r"teacher/stage(\d)_block(\d+)"


def _conv_norm(path: str, key: str, kernel: Kind) -> tuple[Row, Row]:
    """Returns the rows of a head's convolution and its BatchNorm."""
    return Row(f"{path}/conv", f"{key}.conv", kernel, HEAD), Row(f"{path}/norm", f"{key}.bn", BATCH_NORM, HEAD)


TABLE: tuple[Row, ...] = (
    # Backbone.
    Row("stem/conv1", "patch_embed.proj.0", CONV),
    Row("stem/conv2", "patch_embed.proj.1", CONV),
    Row("stem/norm", "patch_embed.norm", NORM),
    Row(r"transition(\d)/conv", "transition{0}.proj", CONV),
    Row(r"transition(\d)/norm", "transition{0}.norm", NORM),
    Row(r"stage(\d)/norm", "norm{0}", NORM),
    Row("head", "head", DENSE, HEAD),
    # A block.
    Row(f"{_BLOCK}/position_embedding", "stage{0}.{1}.pos_embed", EMBEDDING),
    Row(f"{_BLOCK}/attention_norm", "stage{0}.{1}.norm1_before", NORM),
    Row(f"{_BLOCK}/attention_post_norm", "stage{0}.{1}.norm1_after", NORM),
    Row(f"{_BLOCK}/attention_scale", "stage{0}.{1}.gamma1", VECTOR),
    Row(f"{_BLOCK}/mlp_norm", "stage{0}.{1}.norm2_before", NORM),
    Row(f"{_BLOCK}/mlp_post_norm", "stage{0}.{1}.norm2_after", NORM),
    Row(f"{_BLOCK}/mlp_scale", "stage{0}.{1}.gamma2", VECTOR),
    Row(f"{_BLOCK}/mlp/fc1", "stage{0}.{1}.mlp.fc1", DENSE),
    Row(f"{_BLOCK}/mlp/depthwise", "stage{0}.{1}.mlp.dwconv.dwconv", CONV),
    Row(f"{_BLOCK}/mlp/fc2", "stage{0}.{1}.mlp.fc2", DENSE),
    Row(f"{_BLOCK}/attention/query", "stage{0}.{1}.attn.q", DENSE),
    Row(f"{_BLOCK}/attention/key", "stage{0}.{1}.attn.k", DENSE),
    Row(f"{_BLOCK}/attention/value", "stage{0}.{1}.attn.v", DENSE),
    Row(f"{_BLOCK}/attention/out", "stage{0}.{1}.attn.proj", DENSE),
    # Its clustering.
    Row(f"{_BLOCK}/attention/cluster_norm", "stage{0}.{1}.attn.cluster_norm", NORM, CLUSTERING),
    Row(f"{_BLOCK}/attention/cluster_position_embedding", "stage{0}.{1}.attn.cluster_pos_enc", EMBEDDING, CLUSTERING),
    Row(f"{_BLOCK}/attention/conv_clustering/depthwise", "stage{0}.{1}.attn.clustering.clustering.0", CONV, CLUSTERING),
    Row(f"{_BLOCK}/attention/conv_clustering/pointwise", "stage{0}.{1}.attn.clustering.clustering.2", POINTWISE, CLUSTERING),
    Row(f"{_BLOCK}/attention/conv_clustering/project", "stage{0}.{1}.attn.clustering.clustering.4", POINTWISE, CLUSTERING),
    Row(f"{_BLOCK}/attention/mlp_clustering/hidden", "stage{0}.{1}.attn.clustering.clustering.0", DENSE, CLUSTERING),
    Row(f"{_BLOCK}/attention/mlp_clustering/project", "stage{0}.{1}.attn.clustering.clustering.2", DENSE, CLUSTERING),
    Row(f"{_BLOCK}/attention/linear_clustering/project", "stage{0}.{1}.attn.clustering.clustering.0", DENSE, CLUSTERING),
    # The teacher.
    Row(f"{_TEACHER_BLOCK}/depthwise", "paca_teacher.block{0}.{1}.0.fn.0", CONV),
    Row(f"{_TEACHER_BLOCK}/norm1", "paca_teacher.block{0}.{1}.0.fn.2", BATCH_NORM),
    Row(f"{_TEACHER_BLOCK}/pointwise", "paca_teacher.block{0}.{1}.1", POINTWISE),
    Row(f"{_TEACHER_BLOCK}/norm2", "paca_teacher.block{0}.{1}.3", BATCH_NORM),
    Row(r"teacher/transition(\d)/conv", "paca_teacher.transition{0}.0", BLURRED_CONV),
    Row(r"teacher/transition(\d)/norm", "paca_teacher.transition{0}.2", BATCH_NORM),
    Row(r"teacher/lateral(\d)/conv", "paca_teacher.lateral{0}.0", POINTWISE),
    Row(r"teacher/lateral(\d)/norm", "paca_teacher.lateral{0}.2", BATCH_NORM),
    Row(r"teacher/topdown(\d)/depthwise", "paca_teacher.fpn{0}.0.fn.0", CONV),
    Row(r"teacher/topdown(\d)/norm1", "paca_teacher.fpn{0}.0.fn.2", BATCH_NORM),
    Row(r"teacher/topdown(\d)/pointwise", "paca_teacher.fpn{0}.1", POINTWISE),
    Row(r"teacher/topdown(\d)/norm2", "paca_teacher.fpn{0}.3", BATCH_NORM),
    Row(r"teacher/assign(\d)", "paca_teacher.to_clusters{0}", POINTWISE, CLUSTERING),
    # The PaCa segmentation head.
    *_conv_norm(r"head/project(\d)", "decode_head.convs.{0}", POINTWISE),
    *_conv_norm("head/query", "decode_head.q.0", POINTWISE),
    *_conv_norm("head/cluster_hidden", "decode_head.clustering.0", POINTWISE),
    *_conv_norm("head/out", "decode_head.proj", POINTWISE),
    Row("head/cluster_project", "decode_head.clustering.1", POINTWISE, HEAD),
    Row("head/key/dense", "decode_head.k.0", DENSE, HEAD),
    Row("head/key/norm", "decode_head.k.2", BATCH_NORM, HEAD),
    Row("head/value/dense", "decode_head.v.0", DENSE, HEAD),
    Row("head/value/norm", "decode_head.v.2", BATCH_NORM, HEAD),
    # UPerNet, and the classifier of both.
    *_conv_norm(r"head/pool(\d)", "decode_head.psp_modules.{0}.1", POINTWISE),
    *_conv_norm("head/bottleneck", "decode_head.bottleneck", CONV),
    *_conv_norm(r"head/lateral(\d)", "decode_head.lateral_convs.{0}", POINTWISE),
    *_conv_norm(r"head/smooth(\d)", "decode_head.fpn_convs.{0}", CONV),
    *_conv_norm("head/fusion", "decode_head.fpn_bottleneck", CONV),
    Row("head/classifier/project", "decode_head.conv_seg", POINTWISE, HEAD),
    # Its auxiliary FCN head.
    *_conv_norm(r"auxiliary_head/hidden(\d)", "auxiliary_head.convs.{0}", CONV),
    Row("auxiliary_head/classifier/project", "auxiliary_head.conv_seg", POINTWISE, HEAD),
    # Mask R-CNN.
    Row(r"neck/lateral(\d)", "neck.lateral_convs.{0}.conv", POINTWISE, HEAD),
    Row(r"neck/output(\d)", "neck.fpn_convs.{0}.conv", CONV, HEAD),
    Row("rpn_head/conv", "rpn_head.rpn_conv", CONV, HEAD),
    Row("rpn_head/score", "rpn_head.rpn_cls", POINTWISE, HEAD),
    Row("rpn_head/delta", "rpn_head.rpn_reg", POINTWISE, HEAD),
    Row("box_head/hidden0", "roi_head.bbox_head.shared_fcs.0", OF_REGIONS, HEAD),
    Row("box_head/hidden1", "roi_head.bbox_head.shared_fcs.1", DENSE, HEAD),
    Row("box_head/score", "roi_head.bbox_head.fc_cls", DENSE, HEAD),
    Row("box_head/delta", "roi_head.bbox_head.fc_reg", DENSE, HEAD),
    Row(r"mask_head/conv(\d)", "roi_head.mask_head.convs.{0}.conv", CONV, HEAD),
    Row("mask_head/upsample", "roi_head.mask_head.upsample", TRANSPOSED_CONV, HEAD),
    Row("mask_head/project", "roi_head.mask_head.conv_logits", POINTWISE, HEAD),
)

# The name of the backbone inside a downstream model, here and there.
BACKBONE = "backbone"


class Match(NamedTuple):
    """The entry of the table for one of our arrays.

    Attributes:
        key: its name in a state dict.
        tensor: its layouts and types.
        group: its group, if it has one.
        constants: {name in a state dict: function that derives it from this array}, of the buffers that belong to it.
    """

    key: str
    tensor: Tensor
    group: str | None
    constants: dict[str, Callable[[np.ndarray], np.ndarray]]


def match(path: str) -> Match:
    """Returns the entry of the table for the array at `path` ("params/stage1/block0/mlp/fc1/kernel").

    Raises:
        LookupError: if the path does not match exactly one row.
    """
    found = _matches(path)
    if len(found) != 1:
        raise LookupError(f"Array {path!r} matches {len(found)} rows of the table of names; every array needs exactly one.")
    return found[0]


def group_of_path(path: str) -> str | None:
    """Returns the group of an array of ours, whether or not a model has it; None for most of them."""
    return next((found.group for found in _matches(path)), None)


def group_of_key(key: str) -> str | None:
    """Returns the group of a name in a state dict, whether or not a model has it; None for most of them."""
    return next((group for pattern, group in _patterns() if group and pattern.fullmatch(key)), None)


def is_official(key: str) -> bool:
    """Returns whether a name in a state dict is one that some model of the official code has."""
    return any(pattern.fullmatch(key) for pattern, _ in _patterns())


@functools.cache
def _patterns() -> list[tuple[re.Pattern[str], str | None]]:
    """Returns a regular expression of the names in a state dict, and the group, for each row."""
    patterns = []
    for row in TABLE:
        module = re.sub(r"\\\{\d\\\}", r"\\d+", re.escape(row.key))
        own = [tensor.torch_name for tensor in row.kind.tensors.values()]
        names = [
            re.escape(f".{name}" if name else "") for name in own + [constant.torch_name for constant in row.kind.constants]
        ]
        patterns.append((re.compile(rf"({BACKBONE}\.)?{module}({'|'.join(names)})"), row.group))
    return patterns


def _matches(path: str) -> list[Match]:
    collection, *modules, leaf = path.split("/")
    prefix_of_key = ""
    if modules[:1] == [BACKBONE]:
        prefix_of_key, modules = f"{BACKBONE}.", modules[1:]
    module = "/".join(modules)
    found = []
    for row in TABLE:
        for name, tensor in row.kind.tensors.items():
            own, _, suffix = name.partition("/")
            wanted = module if suffix else f"{module}/{leaf}"
            if own == collection and suffix in (leaf, "") and (matched := re.fullmatch(row.path, wanted)):
                prefix = prefix_of_key + row.key.format(*matched.groups())
                key = f"{prefix}.{tensor.torch_name}" if tensor.torch_name else prefix
                constants = row.kind.constants if leaf == "kernel" else ()
                derived = {f"{prefix}.{constant.torch_name}": constant.value for constant in constants}
                found.append(Match(key, tensor, row.group, derived))
    return found
