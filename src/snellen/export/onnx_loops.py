"""The loops of a graph as every runtime reads them.

torch's exporter writes a ``Scan``, whose step takes tensors from around it. OpenVINO 2026.4 counts these as states and
refuses the graph; a ``Loop`` it reads, as does ONNX Runtime.
"""

from __future__ import annotations

from typing import Any


def with_loops(proto: Any) -> Any:
    """An ``onnx.ModelProto`` with a ``Loop`` for each ``Scan`` over one tensor; it is changed itself."""
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    for node in nodes:
        proto.graph.node.extend(_loop(node) if node.op_type == "Scan" else [node])
    return proto


def _loop(scan: Any) -> list[Any]:
    """Step number i gathers the i-th element by itself."""
    from onnx import TensorProto, helper

    [step] = [attribute.g for attribute in scan.attribute if attribute.name == "body"]
    *carried, over = scan.input
    count, number, going, still = (f"{scan.name}_{part}" for part in ("count", "number", "going", "still_going"))
    steps = [
        helper.make_node("Gather", [over, number], [step.input[-1].name], axis=0),
        helper.make_node("Identity", [going], [still]),
        *step.node,
    ]
    given = [
        helper.make_tensor_value_info(number, TensorProto.INT64, []),
        helper.make_tensor_value_info(going, TensorProto.BOOL, []),
        *step.input[:-1],
    ]
    told = [helper.make_tensor_value_info(still, TensorProto.BOOL, []), *step.output]
    body = helper.make_graph(steps, step.name, given, told, step.initializer, value_info=step.value_info)
    return [
        helper.make_node("Size", [over], [count]),
        helper.make_node("Loop", [count, "", *carried], scan.output, name=scan.name, body=body),
    ]
