"""What is exported is what was trained: for every task, from the graph to a client of the server, or nothing is."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient

from export_cases import ALL_TASKS, CLASSES, a_model, about, images_in, records_of
from serve_cases import asking
from snellen.api.exporting import verify
from snellen.api.serving import served
from snellen.core.console import Console
from snellen.core.errors import ConfigError, DataError, ExportError, RunError
from snellen.data.image import decode
from snellen.export import goldens, onnx_graph, verification
from snellen.export.artifact import ArtifactAnswering, open_artifact
from snellen.export.faults import FAULTS, is_one
from snellen.export.manifest import Manifest
from snellen.export.reference import Reference
from snellen.export.runtimes import session
from snellen.export.verify import verify_folder
from snellen.export.write import export_model
from snellen.predict.predictor import Predictor
from snellen.tasks.loading import LoadedModel

pytestmark = pytest.mark.usefixtures("one_thread")


@dataclass(frozen=True)
class Exported:
    model: LoadedModel
    images: list[Path]
    folder: Path
    manifest: Manifest
    artifact: ArtifactAnswering


FITS = dict(zip(ALL_TASKS, ("center crop", "letterbox", "squash", "squash", "letterbox", "squash"), strict=True))


@pytest.mark.parametrize("task", ALL_TASKS)
def test_every_task_goes_all_the_way(task: str, tmp_path: Path) -> None:
    """One export for all that is promised of it: tracing takes the time."""
    model = a_model(task, FITS[task])
    images = images_in(tmp_path / "images")
    manifest = export_model(
        model, about(model), {"val": records_of(task, images)}, tmp_path / "artifact", console=quiet()
    )
    artifact = open_artifact(tmp_path / "artifact", threads=1)
    for check in (*PROMISES, *([is_opened_and_verified_without_torch] if task == "classification" else [])):
        check(Exported(model, images, tmp_path / "artifact", manifest, artifact))


def quiet() -> Console:
    return Console(io.StringIO())


def artifact_answers_as_the_network_does(exported: Exported) -> None:
    ours = list(Predictor(exported.model).predict(exported.images))
    theirs = list(Predictor(exported.artifact).predict(exported.images))
    assert [close(one.to_json(), other.to_json()) for one, other in zip(ours, theirs, strict=True)] == [""] * len(ours)


def verification_asked_every_image_and_nothing_differs(exported: Exported) -> None:
    checked = exported.manifest.checked
    assert checked["images"] == len(exported.images) and checked["decisions"] >= len(exported.images)
    assert checked["different"] == 0 and checked["artifact"] == pytest.approx(checked["network"], rel=1e-6)


def goldens_pass_and_notice_every_known_fault(exported: Exported) -> None:
    """Thirty ways to feed a network wrongly, each committed on purpose: the goldens beside the model notice all."""
    proof, reference = goldens.read(exported.folder), Reference(exported.model)
    how = exported.model.plan.preprocessing
    assert verify_folder(exported.folder, quiet()) == []
    committed = {
        name: [golden for golden in proof if is_one(fault, golden.pixels, how)] for name, fault in FAULTS.items()
    }
    assert len([name for name, where in committed.items() if where]) >= 30
    for name, where in committed.items():
        wrong = [
            goldens.differences(reference.answers(g.pixels, FAULTS[name]), g.expected, goldens.FP32) for g in where
        ]
        assert any(wrong) or not where, name


def no_batch_norm_is_left_beside_its_convolution(exported: Exported) -> None:
    onnx = pytest.importorskip("onnx")
    nodes = onnx.load(str(exported.folder / "model.onnx")).graph.node
    made = {output: node.op_type for node in nodes for output in node.output}
    assert [n.name for n in nodes if n.op_type == "BatchNormalization" and made.get(n.input[0]) == "Conv"] == []


def lone_file_tells_everything_and_forty_lines_reproduce_the_predictions(exported: Exported) -> None:
    script = exported.folder / "predict.py"
    assert len(script.read_text().splitlines()) <= 40
    block = "import sys; sys.modules['snellen'] = sys.modules['torch'] = None; "
    run = f"{block}import runpy; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    lone = exported.folder.parent / "lone.onnx"
    lone.write_bytes((exported.folder / "model.onnx").read_bytes())
    command = [sys.executable, "-W", "error", "-c", run, str(script), str(lone), *map(str, exported.images[:4])]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    said = [json.loads(line)["answer"] for line in told.stdout.splitlines()]
    ours = [p.result or {} for p in Predictor(exported.model).predict(exported.images[:4])]
    for one, other in zip(ours, said, strict=True):
        brief = in_brief(one)
        if exported.manifest.plan.task == "instances":  # which of them have a pixel is not asked in forty lines
            other = [each for each in other if any(not close(mine, each) for mine in brief)]
        assert close(brief, other) == ""
    assert open_artifact(lone, threads=1).manifest.to_text() == exported.manifest.to_text()
    bare = subprocess.run([sys.executable, str(script), str(lone)], capture_output=True, text=True, timeout=120)
    assert bare.returncode == 1 and bare.stderr.strip().endswith("python predict.py model.onnx photo.jpg ...")


def server_answers_from_the_artifact_as_the_network_does(exported: Exported) -> None:
    with asking({"model": served(exported.folder)}) as client:
        said = post(client, exported.images[3])
    [ours] = Predictor(exported.model).predict(exported.images[3:4])
    assert close(ours.result, {name: said[name] for name in ours.result or {}}) == ""


def card_names_what_hostile_classes_and_metrics_there_are(exported: Exported) -> None:
    text = (exported.folder / "README.md").read_text()
    assert f"    1  {CLASSES[1]}" in text and "0 of" in text and exported.manifest.file in text


def changed_files_are_noticed(exported: Exported) -> None:
    copy = exported.folder.parent / "copy"
    copy.mkdir()
    for path in exported.folder.rglob("*"):
        if path.is_file():
            (copy / path.relative_to(exported.folder)).parent.mkdir(exist_ok=True)
            (copy / path.relative_to(exported.folder)).write_bytes(path.read_bytes())
    golden = next((copy / "golden").glob("*.png"))
    Image.fromarray(255 - decode(golden)).save(golden)
    wrong = verify_folder(copy, quiet())
    assert f"golden/{golden.name} was changed" in wrong and any(line.startswith(golden.name) for line in wrong)
    (copy / "manifest.json").write_text("{")
    assert "manifest.json was changed" in verify_folder(copy, quiet())


def is_opened_and_verified_without_torch(exported: Exported) -> None:
    folder, images = str(exported.folder), str(exported.images[0].parent)
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "from snellen.cli import run\n"
        f"sys.exit(run(['verify', {folder!r}]) or run(['predict', {folder!r}, {images!r}]))"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert told.returncode == 0, told.stderr
    assert "come out as they should" in told.stdout and told.stdout.count(".png") == len(exported.images)


PROMISES: tuple[Callable[[Exported], None], ...] = (
    artifact_answers_as_the_network_does,
    verification_asked_every_image_and_nothing_differs,
    goldens_pass_and_notice_every_known_fault,
    no_batch_norm_is_left_beside_its_convolution,
    lone_file_tells_everything_and_forty_lines_reproduce_the_predictions,
    server_answers_from_the_artifact_as_the_network_does,
    card_names_what_hostile_classes_and_metrics_there_are,
    changed_files_are_noticed,
)


def post(client: TestClient, path: Path) -> dict[str, Any]:
    answer = client.post("/predict", content=path.read_bytes())
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def in_brief(result: dict[str, Any]) -> Any:
    """What the forty lines print of a description."""
    if "objects" in result:
        return [{name: each[name] for name in ("label", "confidence", "box")} for each in result["objects"]]
    if "shares" in result:
        return {name: result["shares"].get(name, 0.0) for name in CLASSES}
    if "values" in result:
        return result["values"]
    return result["labels"] if "labels" in result else {name: result[name] for name in ("label", "confidence")}


def close(one: Any, other: Any, where: str = "answer") -> str:
    """Where two answers differ by more than runtimes do; empty: nowhere."""
    if isinstance(one, dict) and isinstance(other, dict) and set(one) == set(other):
        return next((found for key in one if (found := close(one[key], other[key], f"{where}.{key}"))), "")
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return next((found for i, (a, b) in pairs if (found := close(a, b, f"{where}[{i}]"))), "")
    if isinstance(one, float) and isinstance(other, int | float):
        return (
            ""
            if abs(one - other) <= 1e-4 + 1e-4 * abs(one) or (where.endswith("]") and abs(one - other) < 0.02)
            else where
        )
    return "" if one == other else f"{where}: {str(one)[:60]} is not {str(other)[:60]}"


# --- nothing is written


@pytest.fixture
def labels(tmp_path: Path) -> tuple[LoadedModel, dict[str, Any]]:
    model = a_model("classification")
    return model, {"val": records_of("classification", images_in(tmp_path / "images", 6))}


def test_another_resize_is_found_named_and_nothing_is_written(
    labels: tuple[LoadedModel, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from snellen.nn import placing

    def nearest(axis: placing.Axis, length: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        taken = (torch.arange(length) * axis.length) // length
        weights = (taken[:, None] == torch.arange(axis.length)).float()
        return 2048 * weights, 0 * weights

    monkeypatch.setattr(placing, "_weights", nearest)
    with pytest.raises(ExportError, match=r"nothing was written.*the resize differs: a pixel of an image of"):
        export_model(labels[0], about(labels[0]), labels[1], tmp_path / "out", console=quiet())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images"]


def test_another_network_is_found_named_and_nothing_is_written(
    labels: tuple[LoadedModel, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from snellen.export import graph

    def other(network: torch.nn.Module) -> torch.nn.Module:
        return a_model("classification", seed=1).network

    monkeypatch.setattr(graph, "for_a_graph", other)
    with pytest.raises(ExportError, match=r"decides otherwise.*the network differs"):
        export_model(labels[0], about(labels[0]), labels[1], tmp_path / "out", console=quiet())
    assert not (tmp_path / "out").exists()


def test_interrupt_leaves_nothing(
    labels: tuple[LoadedModel, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(graph: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(onnx_graph, "onnx_model", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_model(labels[0], about(labels[0]), labels[1], tmp_path / "out", console=quiet())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images"]


def test_network_that_cannot_be_traced_is_refused_in_a_line(
    labels: tuple[LoadedModel, dict[str, Any]], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    class Deciding(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            means = images.float().mean((1, 2, 3))
            return torch.stack([means] * 3, 1) if float(means.sum()) > 100 else torch.stack([-means] * 3, 1)

    model = replace(labels[0], network=Deciding())
    with pytest.raises(ConfigError, match="small-resnet cannot be exported to onnx, as it cannot be traced") as refused:
        export_model(model, about(model), labels[1], tmp_path / "out", console=quiet())
    assert "\n" not in str(refused.value) and "\x1b" not in str(refused.value) and capfd.readouterr().err == ""
    assert not (tmp_path / "out").exists()


def test_what_is_no_artifact_is_said_in_a_line(tmp_path: Path) -> None:
    for path, words in (
        (tmp_path / "missing", "does not exist"),
        (tmp_path, "has no manifest.json"),
    ):
        with pytest.raises(RunError, match=words):
            open_artifact(path)
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(RunError, match="cannot be loaded as ONNX"):
        open_artifact(tmp_path / "broken.onnx")
    (tmp_path / "manifest.json").write_text('{"version": 1}')
    with pytest.raises(RunError, match="manifest is damaged"):
        open_artifact(tmp_path)
    (tmp_path / "manifest.json").write_text('{"version": 99}')
    with pytest.raises(RunError, match=r"newer than the 1 .* update Snellen"):
        open_artifact(tmp_path)


@pytest.mark.parametrize(("name", "words"), [("missing", "does not exist"), ("", "is no artifact")])
def test_only_an_artifact_is_verified(name: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=f"{words}: give the folder that 'snellen export' wrote"):
        verify(tmp_path / name)


def test_damage_is_said_in_a_line_and_a_pickle_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "golden").mkdir()
    (tmp_path / "golden" / "images.json").write_text('["01.png"]')
    for damaged in (b"", b"PK\x03\x04 cut", b"no archive"):
        (tmp_path / "golden" / "expected.npz").write_bytes(damaged)
        with pytest.raises(RunError, match=r"goldens in .* are damaged"):
            goldens.read(tmp_path)
    with zipfile.ZipFile(tmp_path / "model.pt2", "w") as archive:
        archive.writestr("m/data/weights/model_weights_config.json", '{"config": {"w": {"use_pickle": true}}}')
    with pytest.raises(RunError, match="holds a pickle"):
        session(tmp_path / "model.pt2", "torch")


def test_images_that_cannot_judge_a_metric_are_refused(
    labels: tuple[LoadedModel, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = Reference(labels[0])
    monkeypatch.setattr(verification, "score", lambda *given, **named: {})
    with pytest.raises(DataError, match="cannot judge the accuracy of a model"):
        verification.compare(reference, reference.answering, labels[1]["val"], "val", quiet())  # type: ignore[arg-type]


def test_large_images_go_through_a_graph_one_by_one() -> None:
    sizes = []

    def run(image: np.ndarray) -> dict[str, np.ndarray]:
        sizes.append(image.shape[:3])
        return {"probabilities": np.full((len(image), 3), 1 / 3, np.float32), "label": np.zeros(len(image), np.int64)}

    model = a_model("classification")
    artifact = ArtifactAnswering(about(model), run)
    shapes = [(30, 40)] * 4 + [(2000, 1500)] * 3
    seen = [artifact.prepare(np.zeros((*shape, 3), np.uint8), shape[::-1]) for shape in shapes]
    assert len(artifact.decide(seen)) == 7
    assert sizes == [(4, 30, 40), *[(1, 2000, 1500)] * 3]


def test_torch_program_answers_alike(labels: tuple[LoadedModel, dict[str, Any]], tmp_path: Path) -> None:
    export_model(labels[0], about(labels[0], "torch"), labels[1], tmp_path / "out", console=quiet())
    assert verify_folder(tmp_path / "out", quiet()) == []
    pixels = np.stack([decode(labels[1]["val"][2].path)] * 3)
    said = open_artifact(tmp_path / "out", threads=1).run(pixels)
    np.testing.assert_allclose(
        said["probabilities"][2], Reference(labels[0]).answers(pixels[0])["probabilities"][0], 1e-5
    )
