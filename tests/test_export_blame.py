"""Why an export was refused: told by the images that came out otherwise, and by networks that next to nothing turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from export_cases import SIDE, a_model, about, images_in, records_of
from snellen.core.console import Console
from snellen.core.errors import ExportError
from snellen.data.image import decode
from snellen.export import write
from snellen.export.artifact import ArtifactAnswering
from snellen.export.formats import FORMATS
from snellen.export.graph import Graph
from snellen.export.reference import Reference
from snellen.export.stages import which_differs
from snellen.export.verification import check, compare
from snellen.export.write import export_model
from snellen.nn.detection.suppression_graph import suppressed

ODD = 4  # of eight images


def test_the_stage_that_differs_is_looked_for_in_the_images_that_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the fifth image only the artifact says something else."""
    model, records = a_model("classification"), records_of("classification", images_in(tmp_path / "images"))
    reference, pixels, blamed = Reference(model), decode(records[ODD].path), []

    def run(images: Any) -> dict[str, Any]:
        joined = _joined([reference.answers(image) for image in images])
        if np.array_equal(images[0], pixels):
            joined = {name: values[:, ::-1] if values.ndim > 1 else 2 - values for name, values in joined.items()}
        return joined

    def blame(reference: Reference, graph: Any, images: Sequence[Any]) -> str:
        blamed.extend(images)
        return "somewhere"

    kind = replace(
        FORMATS["onnx"],
        build=lambda model: (None, {}),
        save=lambda graph, file, precision, paths: iter([()]),
        blame=blame,
    )
    monkeypatch.setattr(write, "FORMATS", {"onnx": kind})
    monkeypatch.setattr(write, "session", lambda *args: run)
    with pytest.raises(ExportError, match=r"1 of 8 decisions differ.*; somewhere"):
        export_model(model, about(model), {"val": records}, tmp_path / "out", console=Console(quiet=True))
    assert len(blamed) == 1 and np.array_equal(blamed[0], pixels)


class Choosing(nn.Module):
    """Which corner of the image is the brighter, as log-odds far apart; ``partial`` to the right one by so much."""

    def __init__(self, partial: float = 0.0) -> None:
        super().__init__()
        self.partial = partial

    def forward(self, images: Tensor) -> Tensor:
        left, right = images[:, 0, 0, 0].float(), images[:, 0, 0, -1].float()
        right_wins = (right + self.partial > left).float()
        return torch.stack([right_wins, 1 - right_wins, 0 * right_wins], 1)


@pytest.mark.parametrize(("partial", "brighter", "torn"), ((1e-3, 0, True), (50.0, 20, False)))
def test_a_network_that_next_to_nothing_turns_is_told_apart_from_one_that_was_changed(
    partial: float, brighter: int, torn: bool
) -> None:
    def build(module: nn.Module, name: str, example: Tensor) -> Callable[[Any], dict[str, Any]]:
        return lambda given: {key: each.numpy() for key, each in module(torch.from_numpy(given)).items()}

    image = np.full((SIDE, SIDE, 3), 120, np.uint8)
    image[:, 0] += np.uint8(brighter)
    model = replace(a_model("classification"), network=Choosing().eval())
    graph = Graph(model, suppressed).eval()
    graph.networks[0] = Choosing(partial)
    told = which_differs(Reference(model), graph, [image], build)
    assert told.startswith("the network differs: ")
    assert told.endswith("train it longer") == torn


def test_a_decision_that_next_to_nothing_turns_counts_as_any_other(tmp_path: Path) -> None:
    model = replace(a_model("classification"), network=Choosing().eval())
    records = records_of("classification", images_in(tmp_path, 5))
    for record in records:
        image = np.full((SIDE, SIDE, 3), 120, np.uint8)
        image[:, 0] += np.uint8(0 if record is records[2] else 100)
        Image.fromarray(image).save(record.path)
    other = Reference(replace(model, network=Choosing(1e-3).eval()))
    artifact = ArtifactAnswering(about(model), lambda images: _joined([other.answers(image) for image in images]))
    told = compare(Reference(model), artifact, records, "val", Console(quiet=True))
    assert (told.different, told.odd) == (1, (2,))
    with pytest.raises(ExportError, match="decides otherwise"):
        check(told, "fp32")


def _joined(said: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {name: np.concatenate([each[name] for each in said]) for name in said[0]}
