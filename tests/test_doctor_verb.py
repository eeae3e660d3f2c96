"""``snellen doctor``: of a run's folder, of its images and network, with a trial; and of somebody's own script."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import snellen
from shapes import save_folders
from snellen.core.console import Console
from snellen.core.errors import ConfigError, RunError
from snellen.doctor import examine
from test_doctor_script import SCRIPT
from tiny_runs import FIXED

QUICK: dict[str, Any] = {
    **FIXED,
    "epochs": 2,
    "batch_size": 8,
    "model": "cnn:8",
    "pretrained": False,
    "augment": "none",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> snellen.Run:
    folder = tmp_path_factory.mktemp("doctor")
    save_folders(folder / "images", per_class=12)
    return snellen.train(folder / "images", out=folder / "run", cache=str(folder / "cache"), console=_quiet(), **QUICK)


def _quiet() -> Console:
    return Console(io.StringIO())


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_run_is_examined_from_its_folder_alone_and_nothing_in_it_changes(run: snellen.Run, tmp_path: Path) -> None:
    elsewhere = tmp_path / "copied"  # as from another machine: the images are not there
    shutil.copytree(run.path, elsewhere)
    before = _files(elsewhere)
    diagnosis = snellen.doctor(elsewhere, out=tmp_path / "result", console=_quiet())
    assert _files(elsewhere) == before
    assert not diagnosis.confirmed and diagnosis.trial is None and diagnosis.skipped == []
    written = json.loads((tmp_path / "result" / "doctor.json").read_text())
    assert written["findings"] == [finding.to_json() for finding in diagnosis.findings]
    assert "Snellen doctor" in diagnosis.report.read_text()


def test_the_experiments_run_on_the_images_and_the_network_of_a_run(run: snellen.Run, tmp_path: Path) -> None:
    before = _files(run.path)
    diagnosis = snellen.doctor(run.path, confirm=True, time_limit=60, out=tmp_path / "result", console=_quiet())
    assert _files(run.path) == before
    assert diagnosis.confirmed and diagnosis.skipped == []


def test_a_treatment_is_tried_beside_a_placebo_and_the_rule_is_written_first(
    run: snellen.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = snellen.Finding(
        code="miscalibrated",
        severity="warning",
        message="",
        advice="",
        certainty="confirmed",
        treatment={"settings": {"calibrate": "temperature"}},
    )
    monkeypatch.setattr(examine, "CONTRACTS", (lambda case: [planted],))
    monkeypatch.setattr(examine, "EXPERIMENTS", ())
    out = tmp_path / "result"
    diagnosis = snellen.doctor(run.path, treat=True, seeds=2, out=out, console=_quiet())
    assert diagnosis.trial is not None
    assert diagnosis.trial["word"] == "not shown"  # a temperature moves no decision, so the same images are right
    assert diagnosis.trial["gain"]["value"] == 0
    assert json.loads((out / "rule.json").read_text())["rule"] == diagnosis.trial["rule_in_words"]
    arms = sorted(path.name for path in (out / "trial").iterdir())
    assert arms == ["control-0", "control-1", "placebo-2", "placebo-3", "treated-0", "treated-1"]
    settings = snellen.Run(out / "trial" / "treated-1").folder.config
    assert settings.calibrate == "temperature" and settings.test is False
    assert "What the treatment did" in diagnosis.report.read_text()


def test_a_script_is_trained_examined_and_told_of(tmp_path: Path) -> None:
    (tmp_path / "their_training.py").write_text(
        SCRIPT.replace("loader = DataLoader(data, 16, shuffle=True, ", "loader = DataLoader(data, 16, ")
    )
    stream = io.StringIO()
    diagnosis = snellen.doctor(
        script=f"{tmp_path}/their_training.py:build", out=tmp_path / "result", time_limit=60, console=Console(stream)
    )
    codes = [finding.code for finding in diagnosis.findings]
    assert "batches-not-shuffled" in codes and "images-on-both-sides" in codes  # both are so, by the script
    assert all(finding.message in stream.getvalue() for finding in diagnosis.findings if finding.severity != "info")
    assert diagnosis.skipped == []


def test_what_cannot_be_examined_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="say what to examine"):
        snellen.doctor()
    with pytest.raises(ConfigError, match="two runs or more in each arm"):
        snellen.doctor(tmp_path, seeds=1)
    with pytest.raises(RunError, match="is not a run folder"):
        snellen.doctor(tmp_path)
