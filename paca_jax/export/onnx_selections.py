"""Selections of booleans in ONNX, which ONNX Runtime does not implement."""

from collections.abc import Mapping
from typing import Any


def replace_boolean_selections(graph: Any, outer: Mapping[str, int] | None = None) -> None:
    """Replaces each selection of booleans by And, Or and Not, in a graph of `onnx` and in the bodies of its loops.

    Args:
        graph: the graph, in which every array has a type.
        outer: the types of the arrays around a body.
    """
    from onnx import TensorProto, helper

    types = {**(outer or {}), **{tensor.name: tensor.data_type for tensor in graph.initializer}}
    types |= {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.output, *graph.value_info)}
    nodes = []
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                replace_boolean_selections(attribute.g, types)
        if node.op_type == "Where" and types[node.output[0]] == TensorProto.BOOL:
            (condition, chosen, other), (output,) = node.input, node.output
            inverse, first, second = (f"{output}_{part}" for part in ("inverse", "chosen", "other"))
            nodes += [
                helper.make_node("Not", [condition], [inverse]),
                helper.make_node("And", [condition, chosen], [first]),
                helper.make_node("And", [inverse, other], [second]),
                helper.make_node("Or", [first, second], [output]),
            ]
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
