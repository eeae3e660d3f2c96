"""8-bit arithmetic: it keeps what is decided, or nothing is written."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from export_cases import CLASSES, a_model, about, images_in, records_of
from snellen.core.console import Console
from snellen.core.errors import ConfigError, ExportError
from snellen.core.record import Record
from snellen.export import formats, verification
from snellen.export.artifact import open_artifact
from snellen.export.quantization import attempts
from snellen.export.reference import Reference
from snellen.export.runtimes import open_onnx
from snellen.export.verify import verify_folder
from snellen.export.write import export_model
from snellen.tasks.loading import LoadedModel

Export = Callable[[str, Path, list[Record]], None]


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return a_model("classification")


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory, model: LoadedModel) -> list[Record]:
    """Labelled with what the network itself says: whoever decides otherwise loses of the metric."""
    found = records_of("classification", images_in(tmp_path_factory.mktemp("judged"), num=18))
    reference = Reference(model)
    said = [int(reference.answers(np.asarray(Image.open(each.path)))["label"][0]) for each in found]
    assert len(set(said)) > 1
    return [replace(each, labels=(CLASSES[label],)) for each, label in zip(found, said, strict=True)]


@pytest.fixture(scope="module")
def traced_once(model: LoadedModel) -> Iterator[None]:
    """Tracing takes seconds, and both formats begin with it."""
    built = formats.FORMATS["onnx"].build(model)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("onnx", "openvino"):
            patch.setitem(formats.FORMATS, name, replace(formats.FORMATS[name], build=lambda model: built))  # type: ignore[arg-type]
        yield


@pytest.fixture
def export(model: LoadedModel, records: list[Record], traced_once: None) -> Export:
    def run(to: str, out: Path, calibration: list[Record]) -> None:
        console = Console(io.StringIO())
        export_model(model, about(model, to, "int8"), {"val": records}, out, calibration=calibration, console=console)

    return run


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_int8_decides_as_the_network_does(to: str, export: Export, tmp_path: Path) -> None:
    images = records_of("classification", images_in(tmp_path / "calibration", num=12, seed=1))
    export(to, tmp_path / to, images)
    artifact = open_artifact(tmp_path / to, threads=1)
    checked = artifact.manifest.checked
    assert (checked["network"], checked["artifact"]) == (1.0, 1.0)
    assert 1e-5 < checked["apart"] < 0.2  # it is not in single precision
    assert verify_folder(tmp_path / to, Console(io.StringIO())) == []


def test_what_was_calibrated_wrongly_is_refused_and_nothing_is_written(export: Export, tmp_path: Path) -> None:
    dark = tmp_path / "dark.png"
    Image.new("RGB", (40, 40), (128, 127, 128)).save(dark)
    place = tmp_path / "there"
    with pytest.raises(ExportError, match=r"has another accuracy, so nothing was written: .* for int8 is 0\.003"):
        export("onnx", place / "artifact", records_of("classification", [dark]))
    assert list(place.iterdir()) == []


def test_what_chooses_the_layers_is_not_what_the_metric_is_told_of(
    export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calibration = records_of("classification", images_in(tmp_path / "calibration", num=12, seed=1))
    learnt, asked = list[Path](), list[tuple[str, list[Path]]]()
    kind, compare = formats.FORMATS["onnx"], verification.compare

    def save(graph: Any, file: Path, precision: Any, paths: Any) -> Iterator[tuple[str, ...]]:
        learnt.extend(paths)
        return kind.save(graph, file, precision, paths)

    def noted(
        reference: Any, artifact: Any, records: list[Record], split: str, console: Console
    ) -> verification.Verified:
        asked.append((split, [record.path for record in records]))
        return compare(reference, artifact, records, split, console)

    monkeypatch.setitem(formats.FORMATS, "onnx", replace(kind, save=save))  # type: ignore[arg-type]
    monkeypatch.setattr(verification, "compare", noted)
    export("onnx", tmp_path / "out", calibration)
    assert [split for split, _ in asked] == ["train", "val"]
    assert {*learnt, *asked[0][1]} == {record.path for record in calibration}
    assert not {*learnt}.intersection(asked[0][1]) and not {*learnt, *asked[0][1]}.intersection(asked[1][1])


def test_layers_that_8_bits_harm_are_left_out_before_anything_is_asked_for(tmp_path: Path) -> None:
    graph, images = _with_a_fragile_layer(), images_in(tmp_path, num=3)
    pixels = np.asarray(Image.open(images[0]))[None]
    right = _said(graph, pixels)
    quantised, left_out = next(attempts(graph, images))
    assert left_out == ("fragile",)
    assert 0 < np.abs(_said(quantised, pixels) - right).max() < 0.1 * right.std()


def test_a_graph_that_8_bits_do_not_harm_is_quantised_whole(tmp_path: Path) -> None:
    graph = _with_a_fragile_layer(outlier=1.0)
    assert next(attempts(graph, images_in(tmp_path, num=3)))[1] == ()


def test_every_node_of_a_quantised_graph_comes_after_those_that_it_needs(tmp_path: Path) -> None:
    quantised, _ = next(attempts(_with_a_fragile_layer(), images_in(tmp_path, num=1)))
    known = {each.name for each in (*quantised.graph.initializer, *quantised.graph.input)}
    for node in quantised.graph.node:
        assert known.issuperset(node.input), node.name
        known.update(node.output)


def test_layers_behind_a_choice_of_regions_are_refused_with_what_to_do() -> None:
    weights = numpy_helper.from_array(np.ones((4, 2), np.float32), "w")
    kept = numpy_helper.from_array(np.array([4], np.int64), "k")
    nodes = [
        helper.make_node("Cast", ["image"], ["x"], to=TensorProto.FLOAT, name="cast"),
        helper.make_node("MatMul", ["x", "v"], ["y"], name="first"),
        helper.make_node("TopK", ["y", "k"], ["best", "which"], name="choice"),
        helper.make_node("MatMul", ["best", "w"], ["said"], name="second"),
    ]
    given = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 8, 8, 3])
    told = helper.make_tensor_value_info("said", TensorProto.FLOAT, None)
    first = numpy_helper.from_array(np.ones((3, 8), np.float32), "v")
    graph = helper.make_graph(nodes, "regions", [given], [told], [weights, first, kept])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    with pytest.raises(ConfigError, match=r"regions that earlier ones chose.*fp32"):
        next(attempts(proto, []))


def test_only_layers_with_weights_are_quantised_and_the_last_are_not(tmp_path: Path) -> None:
    graph = _with_a_fragile_layer(outlier=1.0)
    quantised, _ = next(attempts(graph, images_in(tmp_path, num=1)))
    dequantised = {node.output[0] for node in quantised.graph.node if node.op_type == "DequantizeLinear"}
    taking = {node.name: [name in dequantised for name in node.input] for node in quantised.graph.node}
    assert {name: taking[name] for name in ("input", "first", "scaled", "fragile", "last")} == {
        "input": [False, False],
        "first": [True, True],
        "scaled": [True, False],
        "fragile": [True, True],
        "last": [True, False],  # its weights are as they were
    }


def _said(graph: Any, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.asarray(open_onnx(graph.SerializeToString(), "int8", 1)(pixels)["said"])


def _with_a_fragile_layer(outlier: float = 1000.0) -> onnx.ModelProto:
    """Pixels -> three layers: what the second is given is that many times larger in one of its channels."""
    rng = np.random.default_rng(0)
    factors = np.array([outlier, 1, 1, 1], np.float32).reshape(1, 4, 1, 1)
    weights = {
        "first.w": rng.normal(size=(4, 3, 3, 3)),
        "outlier": factors,
        "fragile.w": rng.normal(size=(4, 4, 3, 3)) / factors,
        "last.w": rng.normal(size=(2, 4, 1, 1)),
        "small": np.float32(1 / 255),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["floats"], "floats", to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["channels"], "channels", perm=[0, 3, 1, 2]),
        helper.make_node("Mul", ["channels", "small"], ["input"], "input"),
        helper.make_node("Conv", ["input", "first.w"], ["a"], "first"),
        helper.make_node("Relu", ["a"], ["positive"], "relu"),
        helper.make_node("Mul", ["positive", "outlier"], ["b"], "scaled"),
        helper.make_node("Conv", ["b", "fragile.w"], ["c"], "fragile"),
        helper.make_node("Conv", ["c", "last.w"], ["said"], "last"),
    ]
    graph = helper.make_graph(
        nodes,
        "fragile",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", "h", "w", 3])],
        [helper.make_tensor_value_info("said", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array, np.float32), name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
