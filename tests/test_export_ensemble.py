"""Several networks go into one graph, each with an input of its own, and it answers as they do together."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from export_cases import CLASSES, HALVES, a_model, about, images_in
from snellen.core.console import Console
from snellen.core.errors import ConfigError
from snellen.core.geometry import squash
from snellen.core.preprocessing import Preprocessing
from snellen.core.sample import Frame
from snellen.data.image import decode
from snellen.data.store import frame_of
from snellen.ensemble import Ensemble
from snellen.export.artifact import ArtifactAnswering
from snellen.export.formats import FORMATS
from snellen.export.graph import Graph
from snellen.export.members import check_members, plan_of, told_members
from snellen.export.quantization import attempts
from snellen.export.reference import Reference
from snellen.export.runtimes import session
from snellen.export.stages import which_differs
from snellen.nn.detection.suppression_graph import suppressed
from snellen.nn.placing import placed
from snellen.tasks.base import Difference, create_task
from snellen.tasks.loading import LoadedModel

OTHER_ORDER = (CLASSES[2], CLASSES[0], CLASSES[1])


pytestmark = pytest.mark.usefixtures("one_thread")


class Tiny(nn.Module):
    """A network of which tracing is over soon, and which sees where things are."""

    def __init__(self, side: int, dense: bool) -> None:
        super().__init__()
        self.seen = nn.Conv2d(3, 6, 3, padding=1) if dense else nn.Conv2d(3, 6, 4, 4)
        self.head = nn.Conv2d(6, 3, 1) if dense else nn.Sequential(nn.Flatten(), nn.Linear(6 * (side // 4) ** 2, 3))

    def forward(self, images: Tensor) -> Tensor:
        answers: Tensor = self.head(4 * torch.tanh(self.seen(images / 64 - 2)))
        return answers


def member(task: str, seed: int, side: int, fit: str, classes: tuple[str, ...] = CLASSES) -> LoadedModel:
    model = a_model(task, fit, seed)
    how = replace(model.plan.preprocessing, input_size=(side, side))
    torch.manual_seed(seed)
    rule = {"classification": (1.0, 1.5, 0.8), "segmentation": (1.0, 0.6, 1.3), "multilabel": (0.4, 0.5, 0.6)}.get(
        task, ()
    )
    plan = replace(model.plan, preprocessing=how, classes=classes)
    return LoadedModel(Tiny(side, model.task.dense).eval(), create_task(task, classes, rule).configured(plan), plan)


def together(task: str) -> Ensemble:
    """Of two that see images at other sizes and in other ways, and have learnt the classes in another order."""
    members = [member(task, 0, 32, "squash"), member(task, 1, 24, "letterbox", OTHER_ORDER)]
    return Ensemble(members, "weighted", (0.3, 0.7))


def quiet() -> Console:
    return Console(io.StringIO())


@pytest.fixture(scope="module")
def maps() -> tuple[Ensemble, Any, dict[str, str]]:
    """Traced once, since it takes seconds."""
    model = together("segmentation")
    return model, *FORMATS["onnx"].build(model)


def decided(model: Ensemble, graph: Any, folder: Path) -> list[Difference]:
    """How far a graph in a runtime is from the networks, image by image."""
    told = replace(
        about(model.members[0]), plan=plan_of(model), members=told_members(model), decision=model.task.decision
    )
    list(FORMATS["onnx"].save(graph, folder / "model.onnx", "fp32", []))
    artifact = ArtifactAnswering(told, session(folder / "model.onnx", "onnx", threads=1))
    seen = [decode(path) for path in images_in(folder / "images", 6)]
    ours, theirs = (
        each.decide([each.prepare(image, (image.shape[1], image.shape[0])) for image in seen])
        for each in (model, artifact)
    )
    return [artifact.task.difference(*pair) for pair in zip(ours, theirs, strict=True)]


def test_maps_of_several_networks_come_out_of_a_runtime_as_they_do_together(maps: Any, tmp_path: Path) -> None:
    model, graph, outputs = maps
    apart = decided(model, graph, tmp_path)
    assert sum(each.different for each in apart) == 0 and max(each.apart for each in apart) < 1e-4
    assert set(outputs) == {"classes", "confidence"}


def test_8_bits_are_for_several_networks_as_for_one(maps: Any, tmp_path: Path) -> None:
    """All but the last layer of each is quantised."""
    model, graph, _ = maps
    quantised, left_out = next(attempts(graph, images_in(tmp_path / "learnt", 6, seed=1)))
    layers = [node.input[0] for node in quantised.graph.node if node.op_type == "Conv"]
    assert left_out == () and sum(name.endswith("DequantizeLinear_Output") for name in layers) == 2
    apart = decided(model, quantised, tmp_path)
    assert 1e-5 < max(each.apart for each in apart) < 0.05
    assert sum(each.different for each in apart) < 0.02 * sum(each.decisions for each in apart)


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression", "segmentation"])
def test_graph_of_several_decides_as_they_do_for_every_task(task: str, tmp_path: Path) -> None:
    model = together(task)
    joined = Graph(model, suppressed).eval()
    for path in images_in(tmp_path, 6):
        image = decode(path)
        size = (image.shape[1], image.shape[0])
        with torch.inference_mode():
            answers = {name: values.numpy() for name, values in joined(torch.from_numpy(image)[None]).items()}
        (said,) = model.task.from_graph(answers, [frame_of(size, model.preprocessing)])
        (expected,) = model.decide([model.prepare(image, size)])
        apart = model.task.difference(said, expected)
        assert apart.different == 0 and apart.apart < 1e-4


@pytest.mark.parametrize("odd", [0, 1])
def test_the_member_and_the_stage_that_differ_are_named(odd: int, tmp_path: Path) -> None:
    def build(module: nn.Module, name: str, example: Tensor) -> Any:
        return lambda given: {key: each.numpy() for key, each in module(torch.from_numpy(given)).items()}

    model = together("classification")
    images = [decode(path) for path in images_in(tmp_path, 3)]
    with torch.inference_mode():
        told = [which_differs(Reference(model), Graph(model, suppressed).eval(), images, build)]
        for place in ("networks", "placings"):
            traced = Graph(model, suppressed).eval()
            other = member("classification", 5, 24 if odd else 32, "squash" if odd else "letterbox")
            getattr(traced, place)[odd] = getattr(Graph(other, suppressed), place)[0]
            told.append(which_differs(Reference(model), traced, images, build))
    assert "the decoding of its outputs differs" in told[0]
    assert told[1].startswith(f"the network of member {odd + 1} differs: ")
    assert told[2].startswith(f"the resize of member {odd + 1} differs: a pixel of an image of ")


def test_what_no_graph_joins_is_refused_with_what_to_do() -> None:
    votes = together("classification").joined("vote")
    with pytest.raises(ConfigError, match=r"way = vote counts .* way = mean or weighted, or a soup"):
        check_members(votes)
    masks = Ensemble([a_model("instances"), a_model("instances", seed=1)])
    with pytest.raises(ConfigError, match=r"instances votes about the pixels .* export a member, or a soup"):
        check_members(masks)
    boxes = Ensemble([a_model("detection"), a_model("detection", seed=1)])
    for model in (votes.joined("mean"), a_model("detection"), boxes, boxes.joined("weighted", (1.0, 2.0))):
        check_members(model)


@settings(max_examples=10)
@given(st.integers(0, 10_000), st.sampled_from([(), (1.0, 3.0, 0.5)]))
def test_maps_are_joined_in_a_graph_as_they_are_without(seed: int, rule: tuple[float, ...]) -> None:
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    task, size = create_task("segmentation", CLASSES, rule), (int(rng.integers(5, 60)), int(rng.integers(5, 60)))
    hows = [
        Preprocessing(input_size=(w, h), fit="squash", crop_fraction=1.0, mean=HALVES, std=HALVES)
        for w, h in rng.integers(4, 40, (3, 2)).tolist()
    ]
    outputs = [2 * torch.randn(1, 3, *how.input_size[::-1], generator=generator) for how in hows]
    weights = rng.uniform(0.1, 1, 3).tolist()
    frames = [[Frame(size=size, matrix=squash(size, how.input_size), input_size=how.input_size)] for how in hows]
    (expected,) = task.decode_together(outputs, frames, weights)
    places = [placed(*size, how) for how in hows]
    answers = task.graph_answers_together(outputs, places, suppressed, weights)
    (said,) = task.from_graph({name: values.numpy() for name, values in answers.items()}, [frames[0][0]])
    assert (said.array != expected.array).mean() < 0.003  # ties
    np.testing.assert_allclose(said.scores, expected.scores, atol=0.01 if rule else 1e-3)
