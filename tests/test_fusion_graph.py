"""What several detectors have found is fused in a graph as it is without, in every runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from export_cases import a_model, images_in
from snellen.core.geometry import identity
from snellen.core.sample import Frame
from snellen.data.image import decode
from snellen.data.store import frame_of
from snellen.data.warp import FILL
from snellen.ensemble import Ensemble
from snellen.export import goldens, onnx_graph
from snellen.export.graph import Graph
from snellen.export.members import graph_answers
from snellen.export.onnx_graph import exported, suppress, traced
from snellen.export.runtimes import open_onnx, open_openvino
from snellen.nn.detection.suppression_graph import suppressed
from snellen.nn.placing import placed
from snellen.tasks.base import create_task
from snellen.tasks.detection.target import Boxes
from snellen.tasks.loading import LoadedModel

CLASSES = ("one", "two", "three")
SIZE = (120, 120)

pytestmark = pytest.mark.usefixtures("one_thread")


@st.composite
def found_by_several(draw: st.DrawFn) -> list[list[Boxes]]:
    """What models have found in images, perhaps nothing: scores and places are of a few values, so that there are ties
    of scores, of overlaps and of both, and boxes that overlap by just the limit."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    models, images, coarse = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.booleans())
    return [[_found(rng, int(rng.integers(0, 15)), coarse) for _ in range(images)] for _ in range(models)]


def _found(rng: np.random.Generator, count: int, coarse: bool) -> Boxes:
    corner, sides = rng.uniform(0, 25, (count, 2)), rng.uniform(20, 40, (count, 2))
    scores = np.sort(rng.uniform(0.02, 1, count))[::-1]
    if coarse:
        corner, sides, scores = 5 * np.round(corner / 5), 20 * np.round(sides / 20), np.ceil(4 * scores) / 4
    boxes = np.concatenate([corner, corner + sides], 1).astype(np.float32)
    return Boxes.predicted(SIZE, boxes, rng.integers(0, 3, count), scores.astype(np.float32))


def as_arrays(found: Sequence[Boxes]) -> dict[str, Tensor]:
    """As a graph tells them."""
    names = ("boxes", "scores", "labels")
    told = {name: torch.from_numpy(np.concatenate([getattr(each, name) for each in found])) for name in names}
    return {**told, "image_index": torch.repeat_interleave(torch.tensor([len(each) for each in found]))}


@given(found_by_several(), st.sampled_from(["per class", "agnostic", "soft"]), st.sampled_from([3, 300]), st.data())
def test_boxes_are_fused_in_a_graph_to_the_bit_as_without(
    found: list[list[Boxes]], kind: str, most: int, data: st.DataObject
) -> None:
    task: Any = create_task("detection", CLASSES)
    task._nms, task.most = (kind, 0.6 - 0.05), most  # one object from 0.6 on, which a quarter of a side makes
    found = [[each.chosen(np.arange(len(each)) < most) for each in images] for images in found]
    some = st.lists(st.sampled_from([0, 0.25, 1 / 3, 1.0]), min_size=len(found), max_size=len(found)).filter(any)
    weights = data.draw(st.just([]) | some)
    answers = task.graph_fused([as_arrays(each) for each in found], len(found[0]), weights)
    frame = Frame(size=SIZE, matrix=identity(), input_size=SIZE)
    said = task.from_graph({name: values.numpy() for name, values in answers.items()}, [frame] * len(found[0]))
    expected = task.fused(found, weights)
    for own, right in zip(said, expected, strict=True):
        for name in ("boxes", "labels", "scores"):
            np.testing.assert_array_equal(getattr(own, name), getattr(right, name))
            assert getattr(own, name).dtype == getattr(right, name).dtype


class Finder(nn.Module):
    """A box about every cell of 8 pixels; where it has the colour round a letterbox, none."""

    def __init__(self, side: int, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.seen = nn.Conv2d(3, 7, 8, 8, bias=False)
        edges = 8.0 * torch.arange(side // 8)
        corner = torch.stack(torch.meshgrid(edges, edges, indexing="xy"), -1).reshape(-1, 2)
        self.register_buffer("cells", torch.cat([corner - 4, corner + 12], 1))

    def forward(self, images: Tensor) -> Tensor:
        told = self.seen((images - torch.tensor(FILL).view(3, 1, 1)) / 64).flatten(2).mT
        return torch.cat([self.get_buffer("cells") + 4 * told[..., :4].tanh(), told[..., 4:].relu().tanh()], 2)


def ensemble(way: str) -> Ensemble:
    """Of three that see images at other sizes, and thin out what they find in other ways or not at all."""
    hows = ((32, "squash", "dense", "per class"), (24, "letterbox", "d-fine", "none"), (40, "squash", "fcos", "soft"))
    members = []
    for seed, (side, fit, architecture, kind) in enumerate(hows):
        model = a_model("detection", fit)
        how = replace(model.plan.preprocessing, input_size=(side, side))
        plan = replace(model.plan, classes=CLASSES, preprocessing=how, architecture=architecture, nms=kind)
        task = create_task("detection", CLASSES, (0.1, 0.2, 0.15)).configured(plan)
        members.append(LoadedModel(Finder(side, seed).eval(), task, plan))
    return Ensemble(members, way, (0.5, 0.2, 0.3) if way == "weighted" else ())


@pytest.mark.parametrize("way", ["mean", "weighted"])
@torch.inference_mode()
def test_detectors_of_several_kinds_and_sizes_answer_in_a_graph_as_they_do_together(way: str, tmp_path: Path) -> None:
    model = ensemble(way)
    graph = Graph(model, suppressed).eval()
    one, other = (decode(path) for path in images_in(tmp_path, 2))
    blank = np.full_like(one, FILL)
    for images in ([one, blank, np.ascontiguousarray(one[::-1])], [other], [blank]):
        expected = model.decide([model.prepare(image, image.shape[1::-1]) for image in images])
        assert [len(each.above(model.task.thresholds)) > 5 for each in expected] == [
            each is not blank for each in images
        ]
        answers = {name: values.numpy() for name, values in graph(torch.from_numpy(np.stack(images))).items()}
        frames = [frame_of(image.shape[1::-1], model.preprocessing) for image in images]
        for own, right in zip(model.task.from_graph(answers, frames), expected, strict=True):
            apart = model.task.difference(right, own)
            assert apart.different == 0 and apart.apart < 1e-5


class Joined(nn.Module):
    """Raw outputs [n, members, m, 7] -> answers: a graph without what is before, of which tracing takes the time."""

    def __init__(self, model: Ensemble) -> None:
        super().__init__()
        self.model, self.where = model, [placed(*SIZE, each.plan.preprocessing) for each in model.members]

    def forward(self, told: Tensor) -> dict[str, Tensor]:
        return graph_answers(self.model, list(told.unbind(1)), self.where, suppress)


def test_boxes_are_fused_by_every_runtime_alike_in_one_image_in_several_and_where_there_are_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    joined = Joined(Ensemble(ensemble("mean").members[:2]))
    draws = torch.Generator().manual_seed(0)
    corner, sides, scores = (torch.rand(3, 2, 25, k, generator=draws) for k in (2, 2, 3))
    told = torch.cat([20 * corner, 20 * corner + 2 + 10 * sides, scores**4], 3)
    told[1, :, :, 4:] = 0
    free = {0: torch.export.Dim("images")}
    recorded = exported(joined, told, free)
    program = recorded.module()
    monkeypatch.setattr(onnx_graph, "exported", lambda *given: recorded)  # tracing it again takes seconds
    proto = traced(joined, "told", told, free).SerializeToString()
    runs = [open_onnx(proto, "fp32", 1, "told"), open_openvino(proto, "fp32", 1, "told"), program]
    for some in (told, told[:1], told[1:2]):
        expected = {name: values.numpy() for name, values in joined(some).items()}
        assert np.unique(expected["image_index"]).tolist() == [i for i, each in enumerate(some) if each[0, :, 4:].any()]
        for run in runs:
            said = run(some if run is program else some.numpy())
            assert said["scores"].shape == expected["scores"].shape
            assert goldens.differences({k: np.asarray(v) for k, v in said.items()}, expected, goldens.FP32) == []
