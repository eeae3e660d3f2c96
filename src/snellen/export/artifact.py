"""An artifact on disk: a folder with a model, its manifest and its goldens, or a lone ONNX file.

Opened and run without torch, so that a server is up in a second and a small machine needs no gigabytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from snellen.core.errors import RunError
from snellen.core.geometry import Size
from snellen.core.preprocessing import Preprocessing
from snellen.data.store import frame_of
from snellen.export.manifest import FILES, Manifest
from snellen.export.runtimes import Answers, Run, session
from snellen.predict.answering import Seen
from snellen.tasks.base import Task

MANIFEST = "manifest.json"
_TOGETHER = 4  # images of one size in a call: enough to keep two cores busy
_PIXELS = 4_000_000  # of all images of a call: what a graph holds of each pixel is many times its three bytes


class ArtifactAnswering:
    """An exported model that answers for images (``predict.answering.Answering``)."""

    batch = _TOGETHER
    min_side = None  # the graph gets every pixel and shrinks by itself

    def __init__(self, manifest: Manifest, run: Run) -> None:
        self.manifest, self.run = manifest, run
        self.task: Task[Any] = manifest.task

    @property
    def preprocessing(self) -> Preprocessing:
        return self.manifest.plan.preprocessing

    def prepare(self, pixels: np.ndarray, size: Size) -> Seen:
        return Seen(pixels, frame_of(size, self.preprocessing))

    def decide(self, seen: Sequence[Seen]) -> Sequence[Any]:
        return [target for alike in _of_one_size(seen) for target in self._together(alike)]

    def _together(self, seen: Sequence[Seen]) -> Sequence[Any]:
        answers: Answers = self.run(np.stack([each.pixels for each in seen]))
        return self.task.from_graph(answers, [each.frame for each in seen])


def _of_one_size(seen: Sequence[Seen]) -> Iterator[list[Seen]]:
    """Neighbours of one size, in order, and no more together than fit in memory."""
    for shape, alike in groupby(seen, key=lambda each: each.pixels.shape):
        found, most = list(alike), max(1, _PIXELS // (shape[0] * shape[1]))
        for start in range(0, len(found), most):
            yield found[start : start + most]


def is_artifact(path: Path) -> bool:
    """Whether there is an artifact at ``path``, sound or not: a folder with a manifest, or an ONNX file."""
    return (path / MANIFEST).is_file() or (path.suffix == ".onnx" and path.is_file())


def open_artifact(path: Path, *, threads: int | None = None) -> ArtifactAnswering:
    """Raises RunError for what is no artifact or is damaged, ConfigError when its runtime is not installed."""
    manifest = read_manifest(path)
    file = path if path.is_file() else path / manifest.file
    if not file.is_file():
        raise RunError(f"the artifact {path} has no {manifest.file}: it is not whole")
    return ArtifactAnswering(manifest, session(file, manifest.format, manifest.precision, threads=threads))


def read_manifest(path: Path) -> Manifest:
    """Of a folder, or out of a lone ONNX file. Raises RunError."""
    if path.is_dir():
        if not (path / MANIFEST).is_file():
            raise RunError(f"{path} is no artifact (it has no {MANIFEST}): give what 'snellen export' wrote")
        return Manifest.from_text((path / MANIFEST).read_text(encoding="utf-8", errors="replace"))
    if path.suffix != ".onnx" or not path.is_file():
        there = "is no artifact" if path.exists() else "does not exist"
        raise RunError(f"{path} {there}: give the folder that 'snellen export' wrote, or its {FILES['onnx']}")
    return Manifest.from_text(metadata_of(path))


def metadata_of(path: Path) -> str:
    """The manifest in an ONNX file. Raises RunError when there is none."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    try:
        loaded = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors share no base but Exception
        raise RunError(f"{path} cannot be loaded as ONNX: {' '.join(str(error).split())[:300]}") from None
    said = loaded.get_modelmeta().custom_metadata_map.get("snellen")
    if said is None:
        raise RunError(f"{path} was not written by Snellen: it has no manifest in its metadata")
    return str(said)
