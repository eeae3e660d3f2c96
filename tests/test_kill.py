"""A run that is killed or interrupted goes on to the very bits of one that was not. scripts/kill_test.py does more."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import snellen
from killing import Trial, differences, ended, kill_at_random, send, traces, when
from shapes import save_folders
from snellen.core.errors import RunError
from snellen.core.run import RunFolder

SETTINGS = (
    *("--epochs", "12", "--patience", "99", "--batch-size", "8", "--lr", "0.01", "--body-lr", "0.01"),
    *("--precision", "fp32", "--device", "cpu", "--threads", "1", "--workers", "1", "--groups", "none"),
)


@dataclass(frozen=True)
class Whole:
    """A run that was left in peace: how long it took, in seconds, and what it came to."""

    data: Path
    seconds: float
    traces: dict[str, Any]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("whole")
    data = save_folders(folder / "data", per_class=14, side=8)
    trial = Trial(data, folder, SETTINGS)
    assert ended(trial.resume(folder / "nothing")) == 2  # the first process waits for the imports
    began = time.monotonic()
    code = ended(trial.train(folder / "run"))
    assert code == 0, trial.log.read_text()
    seconds = time.monotonic() - began
    return Whole(data, seconds, traces(folder / "run"))


def test_a_run_that_was_left_in_peace_tells_every_step_once(whole: Whole) -> None:
    steps = [event["step"] for event in whole.traces["events"] if event["event"] == "step"]
    assert steps == list(range(1, 49))
    assert whole.traces["status"] == "done" and whole.traces["left"] == ["best.safetensors"]
    assert whole.traces["report"]


def test_a_killed_run_is_resumed_to_the_same_bits(whole: Whole, tmp_path: Path) -> None:
    trial = Trial(whole.data, tmp_path, (*SETTINGS, "--checkpoint-every", "0.1"))
    rng = np.random.default_rng(0)
    kills = []
    while len(kills) < 3:
        kill = kill_at_random(trial, tmp_path / "run", rng, whole.seconds)
        if kill is None:
            break
        kills.append(kill)
    if kill is not None:
        out = tmp_path / "run"
        code = ended(trial.resume(out) if out.exists() else trial.train(out))
        assert code == 0, (kills, trial.log.read_text())
    assert differences(whole.traces, traces(tmp_path / "run")) == [], kills


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_stops_in_good_order_and_can_go_on(
    number: signal.Signals, whole: Whole, tmp_path: Path
) -> None:
    trial, out = Trial(whole.data, tmp_path, (*SETTINGS, "--checkpoint-every", "1h")), tmp_path / "run"
    process = trial.train(out)
    when(lambda: (out / "metrics.jsonl").exists() and len(list(RunFolder(out).events())) > 5, process)
    send(process, number)
    assert ended(process) == 130
    run = RunFolder.open(out)
    assert run.status == "stopped" and run.last_checkpoint.is_file()
    assert f"Stopped. Go on with: snellen train --resume {out}" in trial.log.read_text()
    assert ended(trial.resume(out)) == 0
    assert "Resumed at step" in trial.log.read_text()
    assert differences(whole.traces, traces(out)) == []


def test_the_command_itself_ends_with_130_after_ctrl_c(whole: Whole, tmp_path: Path) -> None:
    """Not forked: ``python -m snellen`` from its first import on."""
    out = tmp_path / "run"
    settings = ("--cache", str(tmp_path / "cache"), "--epochs", "2000", *SETTINGS[2:])
    process = subprocess.Popen(
        [sys.executable, "-m", "snellen", "train", str(whole.data), "--out", str(out), *settings],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while not (out / "metrics.jsonl").exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        with pytest.raises(RunError, match="by another process"):
            snellen.train(resume=out)
        process.send_signal(signal.SIGINT)
        said, complained = process.communicate()
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130 and RunFolder.open(out).status == "stopped"
    assert "Go on with: snellen train --resume" in said and complained == ""


def test_a_finished_run_is_not_resumed(whole: Whole, tmp_path: Path) -> None:
    trial = Trial(whole.data, tmp_path, SETTINGS)
    RunFolder.create(tmp_path / "run").set_status("done")
    (tmp_path / "run" / "report.html").write_text("")
    assert ended(trial.resume(tmp_path / "run")) == 2
    assert "is done, there is nothing to resume" in trial.log.read_text()
