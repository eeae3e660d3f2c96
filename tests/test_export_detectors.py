"""Detectors of other libraries, and soft suppression, as graphs: of a batch they answer as the network does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from snellen.export import goldens
from snellen.export.graph import Graph
from snellen.export.onnx_graph import exported, suppress, traced
from snellen.export.runtimes import open_onnx, open_openvino
from snellen.nn.detection import mask_architectures
from snellen.nn.detection.loss_names import USUAL_LOSS
from snellen.nn.detection.nms import select
from snellen.nn.detection.suppression_graph import choose, suppressed, suppressed_in_turn
from snellen.nn.feature_maps import MapBackbone
from snellen.nn.placing import placed
from snellen.tasks.base import create_task
from snellen.tasks.loading import LoadedModel
from tiny_detectors import NUM_CLASSES, PREPROCESSING, SIDE, a_detector, make_smaller, noise
from tiny_runs import a_plan

CLASSES = ("one", "two", "three")
WHERE = placed(SIDE, SIDE, PREPROCESSING)


class Coarse(MapBackbone):
    """Two maps, so that little is to be traced."""

    channels = (8, 8)
    reductions = (8, 16)

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(3, 8, 8, 8), nn.Conv2d(8, 8, 2, 2)

    def forward(self, images: Tensor) -> list[Tensor]:
        fine = self.fine(images).relu()
        return [fine, self.coarse(fine).relu()]


@pytest.fixture(autouse=True)
def _small_and_alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    make_smaller(monkeypatch)
    monkeypatch.setattr("snellen.nn.detection.torchvision_models._LEVELS", 2)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Answering(nn.Module):
    """pixels [n, 3, SIDE, SIDE] -> the task's answers: a graph without the resize, of which tracing takes the time."""

    def __init__(self, model: LoadedModel, suppress: Any) -> None:
        super().__init__()
        self.network = Graph(model, suppress).networks[0]
        self.task, self.suppress = model.task, suppress

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        return self.task.graph_answers(self.network(pixels), WHERE, self.suppress)


def a_model(name: str, monkeypatch: pytest.MonkeyPatch) -> LoadedModel:
    """Of random weights, and sure enough of something."""
    kind = "instances" if name == "mask-rcnn" else "detection"
    plan = a_plan(task=kind, classes=CLASSES, architecture=name, preprocessing=PREPROCESSING, loss=USUAL_LOSS)
    if kind == "instances":
        monkeypatch.setattr(mask_architectures, "create_map_backbone", lambda *args, **settings: Coarse())
        torch.manual_seed(0)
        network: Any = mask_architectures.create_instance_detector(plan, NUM_CLASSES)
    else:
        network = a_detector(name, Coarse)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.5 if parameter.dim() > 1 else 1.0)
    return LoadedModel(network.eval(), create_task(kind, CLASSES).configured(plan), plan)


@pytest.mark.parametrize("name", ("d-fine", "mask-rcnn"))
def test_a_graph_answers_as_the_network_does_of_one_image_and_of_three(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RT-DETR goes the way of D-FINE, and Mask R-CNN begins as Faster R-CNN: tracing takes the time."""
    model, images = a_model(name, monkeypatch), noise(3).float()
    proto = traced(Answering(model, suppress), "pixels", images[:2], {0: torch.export.Dim("images")})
    for opened in (open_onnx, open_openvino):
        run = opened(proto.SerializeToString(), "fp32", 1, "pixels")
        for some in (images[:1], images):
            with torch.no_grad():
                own = model.task.graph_answers(model.network(some), WHERE, suppressed)
            assert len(own["scores"]) > 5 * len(some)
            assert goldens.differences(run(some.numpy()), {k: v.numpy() for k, v in own.items()}, goldens.FP32) == []


def candidates(count: int, num_classes: int, seed: int) -> Tensor:
    draws = torch.Generator().manual_seed(seed)
    corner, sides, scores = (torch.rand(2, count, k, generator=draws) for k in (2, 2, num_classes))
    return torch.cat([40 * corner, 40 * corner + 2 + 20 * sides, scores], 2)


class Softly(nn.Module):
    def forward(self, told: Tensor) -> dict[str, Tensor]:
        chosen = choose(told, threshold=0.05, iou=0.6, kind="soft", most=20, suppress=suppress)
        return chosen._asdict()


def test_soft_suppression_in_a_fixed_number_of_steps_is_that_of_the_paper() -> None:
    for seed in range(5):
        told = candidates(60, 2, seed)
        found = choose(told, threshold=0.6, iou=0.6, kind="soft", most=50, suppress=suppressed)
        for i, own in enumerate(told):
            kept, expected = found.where(found.image == i), select(own, threshold=0.6, kind="soft", most=50)
            assert 5 < len(expected.scores) < 50
            assert torch.equal(kept.candidate, expected.candidate) and torch.equal(kept.labels, expected.labels)
            torch.testing.assert_close(kept.scores, expected.scores)


def test_soft_suppression_is_the_same_in_a_graph() -> None:
    told = candidates(30, 2, 0)
    proto = traced(Softly(), "told", told, {0: torch.export.Dim("images")})
    for opened in (open_onnx, open_openvino):
        run = opened(proto.SerializeToString(), "fp32", 1, "told")
        for some in (told, told[1:]):
            for name, expected in Softly()(some).items():
                torch.testing.assert_close(torch.from_numpy(run(some.numpy())[name]), expected, msg=name)


class Hardly(nn.Module):
    def forward(self, told: Tensor) -> dict[str, Tensor]:
        return choose(told, threshold=0.5, iou=0.6, kind="per class", most=20, suppress=suppressed)._asdict()


def test_a_torch_program_answers_for_images_in_which_it_finds_nothing() -> None:
    """torchvision says of its suppression that it finds two at least, and torch would hold a program to that."""
    told = candidates(30, 2, 0)
    program = exported(Hardly(), told, {0: torch.export.Dim("images")}).module()
    for faded, num in ((told, 2), (torch.cat([told[..., :4], 0 * told[..., 4:]], 2), 0)):
        assert (len(program(faded)["scores"]) > 2) == (num > 0)
    one = torch.cat([told[:1, :, :4], 0 * told[:1, :, 4:]], 2)
    one[0, 3, 4] = 0.9
    assert program(one)["scores"].tolist() == pytest.approx([0.9])


def test_suppression_in_turn_keeps_what_suppression_at_once_keeps() -> None:
    told = candidates(80, 3, 1)
    given = (told[..., :4], told[..., 4:].mT.contiguous(), 0.5, 0.3)
    at_once, in_turn = suppressed(*given, most=80), suppressed_in_turn(*given, most=80)
    assert sorted(at_once.tolist()) == sorted(in_turn.tolist()) and 20 < len(in_turn) < 480
    first = suppressed_in_turn(*given, most=3)
    assert len(first) == 2 * 3 * 3 and {tuple(row) for row in first.tolist()} <= {
        tuple(row) for row in at_once.tolist()
    }


@torch.no_grad()
def test_regions_of_all_images_at_once_are_those_that_torchvision_finds_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = a_model("faster-rcnn", monkeypatch).network
    head: Any = network.head
    raw: Any = network.raw(noise(2))  # type: ignore[operator]
    boxes, scores = network.regions(raw)  # type: ignore[operator]
    proposals, _ = head.rpn(raw.told, raw.levels)
    pooled = head.roi_heads.box_roi_pool(raw.levels, proposals, raw.told.image_sizes)
    logits, deltas = head.roi_heads.box_predictor(head.roi_heads.box_head(pooled))
    moved = head.roi_heads.box_coder.decode(deltas, proposals)[:, 1 : 1 + NUM_CLASSES]
    counts = [len(each) for each in proposals]
    for i, (own, said) in enumerate(zip(moved.split(counts), logits.softmax(-1)[:, 1:].split(counts), strict=True)):
        torch.testing.assert_close(boxes[i, : counts[i]], own)
        torch.testing.assert_close(scores[i, : counts[i]], said)
        assert not scores[i, counts[i] :].any() and not boxes[i, counts[i] :].any()
