"""``snellen doctor``: of a run's folder, of its images and network, with a trial; and of somebody's own script."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import snellen
from shapes import save_folders
from snellen.api import training
from snellen.core.console import Console
from snellen.core.errors import ConfigError, RunError
from snellen.doctor import examine, of_run, trial
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


def _planted(monkeypatch: pytest.MonkeyPatch, treatment: dict[str, Any]) -> None:
    finding = snellen.Finding(
        code="miscalibrated", severity="warning", message="", advice="", certainty="confirmed", treatment=treatment
    )
    monkeypatch.setattr(examine, "CONTRACTS", (lambda case: [finding],))
    monkeypatch.setattr(examine, "EXPERIMENTS", ())
    monkeypatch.setattr(examine, "explained_by_forks", lambda *given: iter(()))


def test_ctrl_c_in_one_run_of_a_trial_ends_all_of_it_and_keeps_the_diagnosis(
    run: snellen.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _planted(monkeypatch, {"settings": {"calibrate": "temperature"}})
    begun: list[Path] = []

    def stopped(config: Any, out: Path, *given: Any, **more: Any) -> Any:
        assert (tmp_path / "result" / "doctor.json").is_file()
        begun.append(out)
        return SimpleNamespace(status="stopped")

    monkeypatch.setattr(training, "train_run", stopped)
    with pytest.raises(KeyboardInterrupt):
        snellen.doctor(run.path, treat=True, out=tmp_path / "result", console=_quiet())
    assert len(begun) == 1
    written = json.loads((tmp_path / "result" / "doctor.json").read_text())
    assert [each["code"] for each in written["findings"]].count("miscalibrated") == 1 and written["trial"] is None


def test_an_earlier_trial_is_told_of_before_anything_is_examined(
    run: snellen.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(run.path, copied)
    (copied / "trial" / "control-0").mkdir(parents=True)
    monkeypatch.setattr(examine, "examine", lambda *given, **more: pytest.fail("it was examined"))
    with pytest.raises(RunError, match=r"holds an earlier trial.*--out"):
        snellen.doctor(copied, treat=True, console=_quiet())


@pytest.mark.parametrize("asked", ["cpu", "auto"])
def test_a_run_of_another_machine_is_examined_on_this_one(
    run: snellen.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    elsewhere = tmp_path / "copied"
    shutil.copytree(run.path, elsewhere)
    plan = json.loads((elsewhere / "plan.json").read_text())
    choices = {**plan["choices"], "device": "mps", "precision": "bf16", "train_precision": "bf16"}
    (elsewhere / "plan.json").write_text(json.dumps({**plan, "choices": choices}))
    for name in ("CONTRACTS", "EXPERIMENTS"):
        monkeypatch.setattr(examine, name, ())
    monkeypatch.setattr(examine, "explained_by_forks", lambda *given: iter(()))
    seen: list[Any] = []
    monkeypatch.setattr(of_run, "Trainings", _seen_by(seen))
    diagnosis = snellen.doctor(elsewhere, confirm=True, device=asked, out=tmp_path / "result", console=_quiet())
    assert diagnosis.confirmed
    assert {(plan.device, plan.precision, plan.train_precision) for plan in seen} == {("cpu", "fp32", "fp32")}


def _seen_by(seen: list[Any]) -> Any:
    class Watched(of_run.Trainings):
        def training(self, plan: Any, train: Any = None) -> Any:
            seen.append(plan)
            return super().training(plan, train)

    return Watched


def _script(folder: Path, text: str = SCRIPT) -> str:
    (folder / "their_own.py").write_text(text)
    return f"{folder}/their_own.py:build"


def test_a_script_says_itself_where_its_model_is(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--device cpu is for runs: a script puts its model where"):
        snellen.doctor(script=_script(tmp_path), device="cpu", console=_quiet())


def test_half_of_the_time_is_for_the_training_of_a_script_and_what_was_cut_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CONTRACTS", "CURVE_CHECKS", "ANSWER_CHECKS"):
        monkeypatch.setattr(examine, name, ())
    seen: list[Any] = []
    monkeypatch.setattr(examine, "EXPERIMENTS", (lambda case: seen.append(case.history) or [],))
    monkeypatch.setattr(examine, "explained_by_forks", lambda *given: iter(()))
    slow = SCRIPT.replace('"epochs": 3', '"epochs": 100000')
    stream = io.StringIO()
    diagnosis = snellen.doctor(
        script=_script(tmp_path, slow), out=tmp_path / "result", time_limit=1.0, console=Console(stream)
    )
    assert len(seen) == 1 and seen[0].cut
    told = f"{len(seen[0].epochs)} of 100000 epochs were trained: half of the time limit went into it; --time-limit "
    assert told in stream.getvalue() and told in diagnosis.skipped[0]
    assert "gives more" in diagnosis.report.read_text()


@pytest.mark.parametrize(("change", "said"), [("load weights", "'load weights' cannot be done"), ("house step", None)])
def test_a_trial_of_a_script_that_cannot_be_made_is_told_and_the_diagnosis_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, said: str | None
) -> None:
    _planted(monkeypatch, {"change": change})
    if said is None:
        monkeypatch.setattr(trial, "try_change", lambda *given: 1 / 0)
    stream = io.StringIO()
    visit = {"script": _script(tmp_path), "treat": True, "out": tmp_path / "result", "console": Console(stream)}
    if said is None:
        with pytest.raises(ConfigError, match="the trial failed: ZeroDivisionError"):
            snellen.doctor(**visit)  # type: ignore[arg-type]
    else:
        assert snellen.doctor(**visit).trial is None  # type: ignore[arg-type]
        assert f"It could not be tried: {said}" in stream.getvalue()
    assert json.loads((tmp_path / "result" / "doctor.json").read_text())["findings"][0]["code"] == "miscalibrated"
