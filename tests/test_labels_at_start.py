"""A training looks at its labels with the features that it has computed anyhow, and says what is wrong with them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import snellen
from snellen.core.console import Console
from snellen.train import run_training
from tiny_runs import FIXED

torch.set_num_threads(1)
QUICK: dict[str, Any] = {**FIXED, "epochs": 1, "model": "cnn:8", "pretrained": False, "augment": "none"}


def _folder(place: Path, wrong: int) -> tuple[Path, set[str]]:
    """Four patterns of nine patches, 80 images each; the first ``wrong`` of each lie in the folder of another."""
    rng = np.random.default_rng(0)
    names, mistaken = ("ant", "bee", "cat", "dog"), set()
    patterns = rng.normal(128, 20, (4, 3, 3, 3))
    for code, pattern in enumerate(patterns):
        for i in range(80):
            name = names[(code + (1 + i % 3) * (i < wrong)) % 4]
            patches = np.clip(pattern + rng.normal(0, 20, (3, 3, 3)), 0, 255).astype(np.uint8)
            (place / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(patches.repeat(4, 0).repeat(4, 1)).save(place / name / f"{code}-{i}.png")
            if i < wrong:
                mistaken.add(f"{name}/{code}-{i}.png")
    return place, mistaken


def _train(place: Path, data: Path, **more: Any) -> tuple[snellen.Run, str]:
    stream = io.StringIO()
    settings = {**QUICK, "cache": str(place / "cache"), **more}
    return snellen.train(data, out=place / "run", console=Console(stream), **settings), stream.getvalue()


def test_wrong_labels_are_told_before_training_and_kept_with_the_run(tmp_path: Path) -> None:
    data, mistaken = _folder(tmp_path / "images", wrong=8)
    run, said = _train(tmp_path, data)
    finding = next(each for each in run.folder.findings if each.code == "suspect-labels")
    assert set(finding.images) <= mistaken and finding.evidence["num_suspects"] >= 0.8 * len(mistaken)
    assert said.index(finding.message) < said.index("Training 1 epoch")
    severities = [each.severity for each in run.folder.findings]
    assert severities == sorted(severities, key=["serious", "warning", "info"].index)
    assert all(run.folder.picture_of(image).is_file() for image in finding.images)
    assert "suspect-labels" in run.report.read_text()


def test_right_labels_are_passed_over_in_silence(tmp_path: Path) -> None:
    data, _ = _folder(tmp_path / "images", wrong=0)
    run, _ = _train(tmp_path, data)
    assert not [each.code for each in run.folder.findings if "label" in each.code or "class" in each.code]


def test_trials_and_folds_do_not_look_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(run_training, "_by_id", lambda *given: asked.append(given) or {})
    data, _ = _folder(tmp_path / "images", wrong=8)
    _train(tmp_path, data, test=False)
    assert asked == []
