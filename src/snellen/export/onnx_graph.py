"""The graph as ONNX: traced by torch's exporter, with the one step that it has no operations for written here."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from typing import Any

import torch
from torch import Tensor, nn

from snellen.core.errors import ConfigError
from snellen.export.graph import Graph
from snellen.export.onnx_loops import with_loops
from snellen.nn.detection.suppression_graph import suppressed

OPSET = 18  # antialiased resize, GridSample in two dimensions, and NonMaxSuppression are in it
FREE = {0: torch.export.Dim("images"), 1: torch.export.Dim("height"), 2: torch.export.Dim("width")}
_EXAMPLE = (2, 96, 80)  # images, height, width: sizes of 1 would be taken for constants


@torch.library.custom_op("snellen::suppress", mutates_args=())
def suppress(boxes: Tensor, scores: Tensor, iou: float, threshold: float, most: int) -> Tensor:
    """``Suppress`` as one node, of which the runtime makes its own."""
    return suppressed(boxes, scores, iou, threshold, most)


@suppress.register_fake
def _(boxes: Tensor, scores: Tensor, iou: float, threshold: float, most: int) -> Tensor:
    count = torch.library.get_ctx().new_dynamic_size()
    return boxes.new_empty((count, 3), dtype=torch.int64)


def onnx_model(graph: Graph) -> Any:
    """A graph as an ``onnx.ModelProto`` with the input 'image' and the task's named answers.

    The number, height and width of the images are free; all of one call have one size. Raises ConfigError for a
    network that fixes one of them while it is traced.
    """
    proto = traced(graph, "image", example(), FREE)
    sides = proto.graph.input[0].type.tensor_type.shape.dim
    if not all(sides[i].dim_param for i in FREE):
        raise ConfigError(
            "the network fixes how many images it takes while it is traced: train with another architecture"
        )
    return proto


def traced(module: nn.Module, name: str, given: Tensor, free: Mapping[int, Any]) -> Any:
    """A module of one tensor that answers by name, as an ``onnx.ModelProto``."""
    with torch.no_grad(), _quiet():
        names = list(module(given))
        program = torch.onnx.export(
            exported(module, given, free),
            dynamo=True,
            opset_version=OPSET,
            input_names=[name],
            output_names=names,
            custom_translation_table={torch.ops.snellen.suppress.default: _translated()},
            verbose=False,
        )
    assert program is not None
    return with_loops(program.model_proto)


def exported(module: nn.Module, given: Tensor, free: Mapping[int, Any]) -> Any:
    """A module of one tensor as a ``torch.export.ExportedProgram``; ``free`` are those of its sides that may change.

    That a part of an image is no larger than the whole cannot be proven of sizes that are free, and is not asked to be.
    """
    with torch.no_grad(), _quiet():
        program = torch.export.export(
            module.eval(),
            (given,),
            dynamic_shapes=(dict(free),),
            strict=False,
            prefer_deferred_runtime_asserts_over_guards=True,
        )
    for part in program.graph_module.modules():
        if isinstance(part, torch.fx.GraphModule):
            _forget_checks(part)
    return program


def _forget_checks(part: torch.fx.GraphModule) -> None:
    """Those of sizes. torchvision's suppression is said to find two objects at least, so that a program would end where
    there are none; and one with checks in a loop cannot be saved, as torch 2.15 adds sizes there."""
    for node in part.graph.find_nodes(op="call_function", target=torch.ops.aten._assert_scalar.default):
        part.graph.erase_node(node)
    part.graph.eliminate_dead_code()
    part.recompile()


def example() -> Tensor:
    """Images to trace a graph with, uint8 [n, H, W, 3]."""
    count, height, width = _EXAMPLE
    pixels = torch.arange(count * height * width * 3) % 251
    return pixels.to(torch.uint8).reshape(count, height, width, 3)


def _translated() -> Any:
    from onnxscript import opset18

    op: Any = opset18

    def translation(boxes: Any, scores: Any, iou: float, threshold: float, most: int) -> Any:
        return op.NonMaxSuppression(
            boxes,
            scores,
            op.Constant(value_ints=[most]),
            op.Constant(value_floats=[iou]),
            op.Constant(value_floats=[threshold]),
        )

    return translation


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's advice is for those who write it."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):  # a failure prints a thousand lines of graph
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
