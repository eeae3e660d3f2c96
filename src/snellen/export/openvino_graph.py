"""The graph as OpenVINO's own: read from ONNX, written as model.xml with its weights beside it in model.bin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from snellen.core.files import storage_errors
from snellen.export.manifest import Manifest
from snellen.export.runtimes import import_openvino


def save(proto: Any, file: Path) -> None:
    """An ``onnx.ModelProto`` as ``file``; weights keep the type that they have."""
    _write(_core().read_model(proto.SerializeToString()), file)


def describe(file: Path, manifest: Manifest) -> None:
    """The manifest into the model, and what Intel's Model API looks for: labels, with '_' for spaces, and the task."""
    model = _core().read_model(file)
    model.set_rt_info(manifest.to_text(), ["snellen"])
    labels = " ".join("_".join(name.split()) for name in manifest.plan.classes)
    model.set_rt_info(labels, ["model_info", "labels"])
    model.set_rt_info(manifest.plan.task, ["model_info", "task_type"])
    _write(model, file)


def _core() -> Any:
    """It reads files whole, so that a model can be written over the file that it was read from."""
    core = import_openvino().Core()
    core.set_property({"ENABLE_MMAP": False})
    return core


def _write(model: Any, file: Path) -> None:
    with storage_errors(file):
        import_openvino().save_model(model, file, compress_to_fp16=False)
