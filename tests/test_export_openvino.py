"""What OpenVINO is given answers as the network does; and it tells nobody that it was used."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from export_cases import CLASSES, a_model, about, images_in
from snellen.core.errors import ConfigError
from snellen.data.image import decode
from snellen.export import goldens, runtimes
from snellen.export.formats import FORMATS, check_precision
from snellen.export.reference import Reference
from snellen.export.runtimes import import_openvino, session


class _Logits(nn.Conv2d):
    """A network for segmentation, of which tracing is over soon."""

    def __init__(self) -> None:
        super().__init__(3, len(CLASSES), 3, padding=1)


class _Candidates(nn.Module):
    """A network for instances: 64 boxes about the image, with scores, coefficients and prototypes."""

    def __init__(self) -> None:
        super().__init__()
        self.told = nn.Conv2d(3, 4 + len(CLASSES) + 8, 4, 4)
        self.prototypes = nn.Conv2d(3, 8, 4, 4)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        told = self.told(images / 64 - 2).flatten(2).transpose(1, 2).sigmoid()
        corner, size = 24 * told[..., :2], 4 + 12 * told[..., 2:4]
        return torch.cat([corner, corner + size, told[..., 4:]], -1), self.prototypes(images / 64 - 2)


@pytest.mark.parametrize(("task", "network"), [("instances", _Candidates), ("segmentation", _Logits)])
def test_openvino_answers_as_the_network_does(task: str, network: type[nn.Module], tmp_path: Path) -> None:
    """Every operation that the answers of another task need is in those of these two."""
    torch.manual_seed(0)
    model = replace(a_model(task, fit="letterbox"), network=network().eval())
    kind, file = FORMATS["openvino"], tmp_path / "model.xml"
    graph, _ = kind.build(model)
    assert list(kind.save(graph, file, "fp32", [])) == [()]
    kind.describe(file, about(model, "openvino"))
    run, reference = session(file, "openvino", threads=1), Reference(model)
    said = 0
    for path in images_in(tmp_path / "images", num=5):
        image = decode(path)
        expected = reference.answers(image)
        said += sum(values.size for values in expected.values())
        assert goldens.differences(run(image[None]), expected, goldens.FP32) == []
    assert said > 20
    labels = import_openvino().Core().read_model(file).get_rt_info(["model_info", "labels"]).astype(str)
    assert labels.split() == [name.replace(" ", "_") for name in CLASSES]


def test_openvino_writes_nothing_to_the_home_and_opens_no_socket(tmp_path: Path) -> None:
    script = """
import sys
sys.addaudithook(lambda event, args: event.startswith("socket.") and sys.exit(f"it calls {event} {args}"))
from snellen.export.runtimes import check_bf16, import_openvino
import_openvino().Core()
"""
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "HOME": str(tmp_path)}, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def test_bf16_is_refused_where_the_cpu_has_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    core = SimpleNamespace(get_property=lambda device, name: ["FP32", "INT8"])
    monkeypatch.setattr(runtimes, "import_openvino", lambda: SimpleNamespace(Core=lambda: core))
    with pytest.raises(ConfigError, match="precision = 'bf16' is not there on this CPU: use fp32 or int8"):
        check_precision("openvino", "bf16")
    with pytest.raises(ConfigError, match="not there on this CPU"):
        session(tmp_path / "model.xml", "openvino", "bf16")
