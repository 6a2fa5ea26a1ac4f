"""The table that maps the path of a parameter to names of its axes, and those names to axes of the mesh.

Every parameter of every model matches exactly one row. An axis named None is never split. Normalization vectors and other short
vectors are deliberately replicated: splitting them would cost a collective and save nothing.
"""

import re
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

_NORM = r"(norm|norm1|norm2|cluster_norm|attention_norm|attention_post_norm|mlp_norm|mlp_post_norm)"

PARAMETER_AXES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    # Stem, transitions and the teacher's convolutions: (height, width, in, out).
    (r".*(stem/conv\d|transition\d/conv)/kernel", (None, None, None, "embed")),
    (r".*(stem/conv\d|transition\d/conv|lateral\d/conv)/bias", (None,)),
    (r".*lateral\d/conv/kernel", (None, "embed")),
    # Attention.
    (r".*attention/(query|key|value)/kernel", ("embed", "heads")),
    (r".*attention/(query|key|value)/bias", ("heads",)),
    (r".*attention/out/kernel", ("heads", "embed")),
    (r".*attention/out/bias", (None,)),
    (r".*attention/cluster_position_embedding", (None, "embed")),
    # Clustering and the teacher's mixing: (height, width, 1, channels), (in, out), (in, clusters).
    (r".*(conv_clustering|block\d+|topdown\d)/depthwise/kernel", (None, None, None, "embed")),
    (r".*(conv_clustering|block\d+|topdown\d)/(depthwise|pointwise)/bias", (None,)),
    (r".*(conv_clustering|block\d+|topdown\d)/pointwise/kernel", (None, "embed")),
    (r".*mlp_clustering/hidden/kernel", ("embed", "mlp")),
    (r".*mlp_clustering/hidden/bias", ("mlp",)),
    (r".*mlp_clustering/project/kernel", ("mlp", None)),
    (r".*((conv|linear)_clustering/project|assign\d)/kernel", ("embed", None)),
    (r".*(mlp_clustering/project|assign\d)/bias", (None,)),
    # MLP.
    (r".*mlp/fc1/kernel", ("embed", "mlp")),
    (r".*mlp/depthwise/kernel", (None, None, None, "mlp")),
    (r".*mlp/(fc1|depthwise)/bias", ("mlp",)),
    (r".*mlp/fc2/kernel", ("mlp", "embed")),
    (r".*mlp/fc2/bias", (None,)),
    # Segmentation heads: 1x1 and 3x3 convolutions, keys and values, classifiers.
    (r"head/(project\d|query|cluster_hidden|out|pool\d)/conv/kernel", (None, "embed")),
    (r"(auxiliary_)?head/(bottleneck|smooth\d|fusion|hidden\d)/conv/kernel", (None, None, None, "embed")),
    (r"head/(key|value)/dense/kernel", (None, "embed")),
    (r"head/(key|value)/dense/bias", (None,)),
    (r"(auxiliary_)?head/(cluster_project|classifier/project)/kernel", ("embed", None)),
    (r"(auxiliary_)?head/(cluster_project|classifier/project)/bias", (None,)),
    # Mask R-CNN: the convolutions of the pyramid, the region proposals and the mask head, and the dense layers.
    (r"neck/lateral\d/kernel", (None, "embed")),
    (r"(neck/output\d|rpn_head/conv|mask_head/(conv\d|upsample))/kernel", (None, None, None, "embed")),
    (r"box_head/hidden\d/kernel", ("embed", "mlp")),
    (r"(rpn_head|box_head)/(score|delta)/kernel", ("embed", None)),
    (r"mask_head/project/kernel", ("embed", None)),
    (r"box_head/hidden\d/bias", ("mlp",)),
    (r"(neck/(lateral|output)\d|rpn_head/(conv|score|delta)|box_head/(score|delta)|mask_head/\w+)/bias", (None,)),
    # Vectors of a block, position embeddings, normalization, classifier.
    (rf".*{_NORM}/(scale|bias)", (None,)),
    (r".*(attention_scale|mlp_scale)", (None,)),
    (r".*block\d+/position_embedding", (None, "embed")),
    (r"head/kernel", ("embed", None)),
    (r"head/bias", (None,)),
)

MESH_AXIS_OF = {"embed": "fsdp", "heads": "model", "mlp": "model"}


def logical_axes(path: str) -> tuple[str | None, ...]:
    """Returns the names of the axes of the parameter at `path` ("stage1/block0/mlp/fc1/kernel").

    Raises:
        LookupError: if the path does not match exactly one row of `PARAMETER_AXES`.
    """
    rows = [axes for pattern, axes in PARAMETER_AXES if re.fullmatch(pattern, path)]
    if len(rows) != 1:
        raise LookupError(f"Expected one row of PARAMETER_AXES for parameter {path!r}, got {len(rows)}. Correct the table.")
    return rows[0]


def parameter_spec(path: str, shape: tuple[int, ...], mesh: Mesh | AbstractMesh) -> PartitionSpec:
    """Returns the partition spec of a parameter; an axis whose size the mesh axis does not divide is not split."""
    axes = logical_axes(path)
    if len(axes) != len(shape):
        raise LookupError(
            f"Expected an axis name for each axis of parameter {path!r} of shape {shape}, got {axes}. Correct its row in "
            "PARAMETER_AXES."
        )
    names = [MESH_AXIS_OF.get(axis) if axis else None for axis in axes]
    return PartitionSpec(
        *(name if name and size % mesh.shape[name] == 0 else None for name, size in zip(names, shape, strict=True))
    )


def parameter_shardings(params: Any, mesh: Mesh) -> Any:
    """Returns the `NamedSharding`s of a tree of parameters (arrays or `jax.ShapeDtypeStruct`s), as a tree."""

    def sharding(keys: tuple[Any, ...], leaf: Any) -> NamedSharding:
        return NamedSharding(mesh, parameter_spec(parameter_path(keys), leaf.shape, mesh))

    return jax.tree_util.tree_map_with_path(sharding, params)


def gather_parameters(params: Any) -> Any:
    """Constrains parameters to be gathered along `fsdp`, as layers use them; call it inside a traced step.

    Otherwise the compiler may move the activations, which are far larger, to the split parameters. Outside `jax.set_mesh` the
    parameters are returned unchanged.
    """
    return _constrain(params, lambda spec: PartitionSpec(*(None if axis == "fsdp" else axis for axis in spec)))


def scatter_gradients(grads: Any) -> Any:
    """Constrains gradients to be split like their parameters, so that each device reduces only its own part."""
    return _constrain(grads, lambda spec: spec)


def _constrain(params: Any, change: Callable[[PartitionSpec], PartitionSpec]) -> Any:
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return params

    def constrain(keys: tuple[Any, ...], leaf: Any) -> Any:
        return jax.lax.with_sharding_constraint(leaf, change(parameter_spec(parameter_path(keys), leaf.shape, mesh)))

    return jax.tree_util.tree_map_with_path(constrain, params)


def parameter_path(keys: tuple[Any, ...]) -> str:
    """Returns the path of a parameter, such as "stage1/block0/mlp/fc1/kernel", from its keys in the tree."""
    return jax.tree_util.keystr(keys, simple=True, separator="/")
