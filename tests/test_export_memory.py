"""What an exported segmentation holds of an image does not grow with the number of classes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import pytest
import torch

from export_cases import CLASSES, a_model
from snellen.export.graph import Graph
from snellen.export.onnx_graph import onnx_model, suppress
from snellen.export.runtimes import open_onnx, open_openvino
from snellen.nn.segmentation import answers
from snellen.predict.answering import NetworkAnswering
from snellen.tasks.loading import LoadedModel

WIDTH, HEIGHT = 8165, 6124  # 50 million pixels


class _Logits(torch.nn.Conv2d):
    """A network of which tracing is over soon."""

    def __init__(self) -> None:
        super().__init__(3, len(CLASSES), 3, padding=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images.float() / 64 - 2)


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    torch.manual_seed(0)
    usual = a_model("segmentation", fit="letterbox")
    return replace(usual, network=_Logits().eval(), task=type(usual.task)(CLASSES, (0.2, 0.5, 0.3)))


@pytest.fixture(scope="module")
def proto(model: LoadedModel) -> Any:
    return onnx_model(Graph(model, suppress).eval())


def tensors(graph: Any) -> Iterator[Any]:
    """All that nodes give, within loops too."""
    said = {each.name: each for each in (*graph.value_info, *graph.output)}
    for node in graph.node:
        yield from (said[name] for name in node.output if name in said)
        for attribute in node.attribute:
            if attribute.name == "body":
                yield from tensors(attribute.g)


def test_no_tensor_of_the_graph_has_more_than_a_byte_for_a_pixel(proto: Any) -> None:
    from onnx.helper import tensor_dtype_to_np_dtype

    sides = [each.dim_param for each in proto.graph.input[0].type.tensor_type.shape.dim[:3]]
    sizes = dict(zip(sides, (1, HEIGHT, WIDTH), strict=True))
    seen = set()
    for tensor in tensors(proto.graph):
        kind = tensor.type.tensor_type
        shape = [eval(d.dim_param, sizes.copy()) if d.dim_param else d.dim_value for d in kind.shape.dim]
        held = prod(shape) * tensor_dtype_to_np_dtype(kind.elem_type).itemsize
        assert held < 1.01 * WIDTH * HEIGHT, (tensor.name, shape)
        seen.add(tuple(shape))
    assert (1, HEIGHT, WIDTH) in seen and (1, len(CLASSES), answers._PIECE) in seen


def test_pieces_decide_as_the_network_does_at_every_size(model: LoadedModel, proto: Any) -> None:
    network = NetworkAnswering(model)
    runs = [opened(proto.SerializeToString(), "fp32", 1) for opened in (open_onnx, open_openvino)]
    rng = np.random.default_rng(0)
    for count, width, height in ((1, 1, 1), (2, 9, 5), (1, 1, 33), (3, 16, 17), (1, answers._PIECE, 1), (2, 150, 111)):
        images = rng.integers(0, 256, (count, height, width, 3), dtype=np.uint8)
        right = network.decide([network.prepare(image, (width, height)) for image in images])
        for run in runs:
            said = model.task.from_graph(run(images), [])
            for one, other in zip(right, said, strict=True):
                np.testing.assert_array_equal(one.array, other.array)
                np.testing.assert_allclose(one.scores, other.scores, atol=1e-4)


def test_a_loop_counts_each_pixel_once_however_they_fall_into_pieces(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = torch.randn(2, 3, 7, 5, generator=torch.Generator().manual_seed(0))
    lines = torch.linspace(-0.9, 0.9, 13), torch.linspace(-1.1, 1.1, 11)
    whole = answers.decide_batch([logits], [lines], [1.0])
    for piece in (1, 10, 13, 143, 144):
        monkeypatch.setattr(answers, "_PIECE", piece)
        classes, confidence = answers.decide_batch([logits], [lines], [1.0])
        assert torch.equal(classes, whole[0])
        torch.testing.assert_close(confidence, whole[1])


def test_pixels_that_single_precision_cannot_count_are_in_their_place(proto: Any) -> None:
    """Beyond 2**24 of them, where OpenVINO, which takes remainders in float32, would mistake one for another."""
    rows, columns = np.indices((4000, 5001))
    colours = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    image = colours[rows * 32 // 4000, columns * 32 // 5001]
    right, said = (opened(proto.SerializeToString(), "fp32", 1)(image[None]) for opened in (open_onnx, open_openvino))
    np.testing.assert_array_equal(said["classes"][0, 3800:], right["classes"][0, 3800:])
    assert len(np.unique(right["classes"][0, 3800:])) > 1
