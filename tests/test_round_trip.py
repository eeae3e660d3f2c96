"""Train, export, verify, serve, ask: as a user types it, on real images, for every task that has a picture of its own.

The images are scans of handwriting that come with scikit-learn. Where ``SNELLEN_DATA`` names a folder with photographs
(hymenoptera, bccd, camvid), the same is tried on those.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest

from command_line import FAST, called
from digit_pages import save_pages
from test_export import close

pytest.importorskip("onnxruntime")
pytest.importorskip("starlette")

_SMALL = ["--no-pretrained", "--model", "small-resnet", *FAST.split()]
_PHOTOGRAPHS = ["--pretrained", "--precision", "fp32", "--time-limit", "60s"]  # an artifact computes in fp32
_REAL = {"classification": "hymenoptera", "detection": "bccd", "segmentation": "camvid"}
_DATA = os.environ.get("SNELLEN_DATA")


@pytest.mark.parametrize("task", ["classification", "detection", "segmentation", "instances"])
def test_from_handwriting_to_the_answer_of_a_client(task: str, tmp_path: Path) -> None:
    data = save_pages(task, tmp_path / "pages", num=40)
    images = sorted((tmp_path / "pages").rglob("*.png"))[:6]
    round_trip([*data, *_SMALL], images, tmp_path)


@pytest.mark.skipif(not _DATA, reason="SNELLEN_DATA names no folder of photographs")
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("task", _REAL)
def test_from_photographs_to_the_answer_of_a_client(task: str, tmp_path: Path) -> None:
    photographs = Path(_DATA or ".") / _REAL[task]
    images = [path for path in sorted(photographs.rglob("*.jpg")) if "mask" not in path.parent.name][::20][:8]
    round_trip([str(photographs), *_PHOTOGRAPHS], images, tmp_path)


def round_trip(train: Sequence[str], images: Sequence[Path], place: Path) -> None:
    """What the run answers is what the artifact answers, and what a client of its server is told."""
    run, artifact = place / "run", place / "artifact"
    done(["train", *train, "--out", str(run), "--cache", str(place / "cache")])
    assert re.search(r"Verified on \d+ images of val", done(["export", str(run), "--out", str(artifact)]))
    assert "come out as they should" in done(["verify", str(artifact)])
    ours, theirs = (answers(model, images, place / f"of_{model.name}") for model in (run, artifact))
    assert close(ours, theirs) == ""
    with serving(artifact) as port:
        told = asked_by_triton(port, images)
        assert close(told, kept(told, theirs)) == ""
        assert close(told, kept(told, [asked(port, image) for image in images])) == ""


def done(arguments: list[str]) -> str:
    code, out, err = called(arguments)
    assert (code, err) == (0, ""), err
    return out


def answers(model: Path, images: Sequence[Path], out: Path) -> list[Any]:
    """What ``snellen predict`` writes of each image."""
    done(["predict", str(model), *map(str, images), "--as", "jsonl", "--out", str(out)])
    rows = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    return rows


def kept(told: Sequence[dict[str, Any]], more: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """``more`` without what ``told`` does not say: paths, and the name of the task."""
    return [{name: row[name] for name in few} for few, row in zip(told, more, strict=True)]


@contextmanager
def serving(artifact: Path) -> Iterator[int]:
    command = [sys.executable, "-m", "snellen", "serve", str(artifact), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        try:
            said = []
            for line in process.stdout:
                said.append(line)
                if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
                    break
            else:
                raise AssertionError("".join(said))
            yield int(found[1])
        finally:
            process.send_signal(signal.SIGTERM)
            said.append(process.stdout.read())
    assert process.returncode == 0 and "Traceback" not in "".join(said), "".join(said)


def asked(port: int, image: Path) -> Any:
    with urlopen(f"http://127.0.0.1:{port}/predict", data=image.read_bytes(), timeout=60) as answer:
        return json.load(answer)


def asked_by_triton(port: int, images: Sequence[Path]) -> list[Any]:
    """By the client that other servers of models are asked with."""
    http = pytest.importorskip("tritonclient.http")
    files = np.array([path.read_bytes() for path in images], object)
    tensor = http.InferInput("image", [len(files)], "BYTES")
    tensor.set_data_from_numpy(files)
    client = http.InferenceServerClient(f"127.0.0.1:{port}", network_timeout=60)
    try:
        found = client.infer("artifact", [tensor])
    finally:
        client.close()
    return [json.loads(text) for text in found.as_numpy("answer").ravel()]
