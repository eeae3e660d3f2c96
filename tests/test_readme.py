"""What the README shows works as it is shown, on tiny images in place of photographs."""

from __future__ import annotations

import contextlib
import glob
import io
import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from command_line import FAST, called
from conftest import FinishedRun
from scenes import save_masks
from snellen.core.checkpoint import Checkpoint
from snellen.data.image import read_header
from snellen.data.samples import SAMPLES
from snellen.lab import demonstrations
from test_doctor_script import SCRIPT
from test_documents import COMMAND, ROOT
from test_public_names import OPTIONS

README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    """Every command of the README that calls snellen, in a block or in a sentence."""
    blocks = [match for line in README.splitlines() if line.startswith("    ") and (match := COMMAND.match(line))]
    shown = [f"{match[2]} {match[3].split('#')[0]}" for match in blocks if match[1] == "snellen"]
    return [" ".join(command.split()) for command in [*shown, *re.findall(r"`snellen ([^`]+)`", README)]]


def a_tenth_of_the_digits(folder: Path, whole: Callable[[Path], None] = SAMPLES["digits"].make) -> None:
    whole(folder)
    for i, path in enumerate(sorted(folder.rglob("*.png"))):
        if i % 10:
            path.unlink()


@pytest.fixture(scope="session")
def exported(finished_run: FinishedRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What README's export writes."""
    place = tmp_path_factory.mktemp("exported") / "artifact"
    code, _, err = called(["export", str(finished_run.folder), "--out", str(place)])
    assert (code, err) == (0, ""), err
    return place


def change_a_little(checkpoint: Path, seed: int) -> None:
    """The runs of an ensemble are not copies of each other."""
    loaded = Checkpoint.load(checkpoint)
    noise = 0.01 * torch.randn(loaded.weights["head.bias"].shape, generator=torch.Generator().manual_seed(seed))
    replace(loaded, weights={**loaded.weights, "head.bias": loaded.weights["head.bias"] + noise}).save(checkpoint)


@pytest.fixture
def home(finished_run: FinishedRun, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with all that the README speaks of: photos/, labels.csv, coco.json, scenes/, new/ and runs/RUN."""
    photos = tmp_path / "photos"
    shutil.copytree(finished_run.data, photos)
    names = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))
    rows = [f"{name},{name.split('/')[0]},{'train' if i % 3 else 'val'}" for i, name in enumerate(names)]
    (tmp_path / "labels.csv").write_text("\n".join(["image,label,split", *rows]) + "\n")
    (tmp_path / "new").mkdir()
    for name in ("1.jpg", "2.jpg"):
        Image.open(photos / "circle" / "000.png").save(tmp_path / "new" / name)
    (tmp_path / "ages.csv").write_text("\n".join(["image,age", *(f"{name},{20 + i}" for i, name in enumerate(names))]))
    (tmp_path / "coco.json").write_text(json.dumps(marked(photos, names)))
    save_masks(tmp_path / "scenes", num=12, side=32)
    (tmp_path / "train.py").write_text(SCRIPT)
    for run in ("RUN", "A", "B", "C"):
        shutil.copytree(finished_run.folder, tmp_path / "runs" / run)
        change_a_little(tmp_path / "runs" / run / "checkpoints" / "best.safetensors", seed=ord(run[0]))
    shutil.copytree(exported, tmp_path / "runs" / "ARTIFACT")
    monkeypatch.setitem(SAMPLES, "digits", replace(SAMPLES["digits"], make=a_tenth_of_the_digits))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield tmp_path
    written = {path.name for path in tmp_path.iterdir()}
    assert written <= {"photos", "labels.csv", "ages.csv", "coco.json", "scenes", "new", "runs", "cache", "train.py"}


def marked(photos: Path, names: Sequence[str]) -> dict[str, Any]:
    """The photos as COCO, in each of them an object of its class."""
    kinds = sorted({name.split("/")[0] for name in names})
    sizes = [read_header(photos / name) for name in names]
    outline = [[2, 2, 8, 2, 8, 8, 2, 8]]
    return {
        "images": [
            {"id": i, "file_name": name, "width": size.width, "height": size.height}
            for i, (name, size) in enumerate(zip(names, sizes, strict=True))
        ],
        "annotations": [
            {
                "id": i + 1,
                "image_id": i,
                "category_id": kinds.index(name.split("/")[0]),
                "bbox": [2, 2, 6, 6],
                "segmentation": outline,
            }
            for i, name in enumerate(names)
        ],
        "categories": [{"id": i, "name": name} for i, name in enumerate(kinds)],
    }


def test_readme_shows_every_verb() -> None:
    assert {command.split()[0] for command in commands()} == set(OPTIONS)


def test_shown_demonstrations_are_known() -> None:
    """They are run by tests/test_lab.py."""
    shown = {command.split()[1] for command in commands() if command.startswith("lab ")}
    assert shown == set(demonstrations())


def runs_elsewhere(command: str) -> bool:
    """Demonstrations are run by tests/test_lab.py, the server and an export by tests of their own."""
    return command.split()[0] in ("lab", "serve", "export")


@pytest.mark.parametrize("command", [command for command in commands() if not runs_elsewhere(command)])
def test_shown_command_runs(command: str, home: Path) -> None:
    words = [name for word in shlex.split(command) for name in (sorted(glob.glob(word)) if "*" in word else [word])]
    if words[0] == "train" and "--resume" in words:  # the run is done: make it one that was stopped
        (home / "runs" / "RUN" / "STATUS").write_text("stopped\n")
    elif words[0] in ("train", "tune") and "--help" not in words:
        words += FAST.split()
    if "--trials" in words:
        words[words.index("--trials") + 1] = "1"
    code, out, err = called(words)
    assert (code, err) == (0, ""), err
    assert any(word in out for word in ("%", "Report: ", "Usage: ", "should", "images:", "Pictures: "))


def test_shown_python_runs(home: Path) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert 'time_limit="5m"' in block
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(block.replace("5m", "1s"), "README.md", "exec"), {})
    assert "sealed test images" in said.getvalue()
    assert re.search(r"^new/1\.jpg (circle|square|triangle) 0\.\d+", said.getvalue(), re.MULTILINE)
