"""An artifact on disk: a folder with a model, its manifest and its goldens, or a lone ONNX file.

Opened and run without torch, so that a server is up in a second and a small machine needs no gigabytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from itertools import groupby
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from snellen.core.device import available_cores
from snellen.core.errors import RunError
from snellen.core.geometry import Size
from snellen.core.preprocessing import Preprocessing
from snellen.data.store import frame_of
from snellen.export.manifest import FILES, Manifest
from snellen.export.runtimes import Answers, Run, session, streams_of
from snellen.predict.answering import Seen
from snellen.tasks.base import Task

MANIFEST = "manifest.json"
_TOGETHER = 4  # images of one size in a call: enough to keep two cores busy
_PIXELS = 4_000_000  # of all images of a call: large ones gain nothing by being put side by side, which copies them


class ArtifactAnswering:
    """An exported model that answers for images (``predict.answering.Answering``).

    streams  how many threads may ask it at once, and should
    """

    batch = _TOGETHER
    min_side = None  # the graph gets every pixel and shrinks by itself

    def __init__(self, manifest: Manifest, run: Run, streams: int = 1) -> None:
        self.manifest, self.run, self.streams = manifest, run, streams
        self._large = Lock()
        self.task: Task[Any] = manifest.task

    @property
    def preprocessing(self) -> Preprocessing:
        return self.manifest.plan.preprocessing

    def prepare(self, pixels: np.ndarray, size: Size) -> Seen:
        return Seen(pixels, frame_of(size, self.preprocessing))

    def decide(self, seen: Sequence[Seen]) -> Sequence[Any]:
        return [target for alike in _of_one_size(seen) for target in self._together(alike)]

    def _together(self, seen: Sequence[Seen]) -> Sequence[Any]:
        first = seen[0].pixels[None]  # a large image is not held twice
        images = first if len(seen) == 1 else np.stack([each.pixels for each in seen])
        # Large images go one at a time, whoever asks: a graph holds many times their bytes.
        with self._large if images[..., 0].size > _PIXELS else nullcontext():
            answers: Answers = self.run(images)
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


def open_artifact(path: Path, *, threads: int | None = None, shared: bool = False) -> ArtifactAnswering:
    """``shared``: several threads are to ask it at once. Raises RunError for what is no artifact or is damaged,
    ConfigError when its runtime is not installed."""
    manifest = read_manifest(path)
    file = path if path.is_file() else path / manifest.file
    if not file.is_file():
        raise RunError(f"the artifact {path} has no {manifest.file}: it is not whole")
    threads = threads or available_cores()
    streams = streams_of(manifest.format, threads) if shared else 1
    run = session(file, manifest.format, manifest.precision, threads=threads, streams=streams)
    return ArtifactAnswering(manifest, run, streams)


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
