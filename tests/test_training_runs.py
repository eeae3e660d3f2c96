"""Whole training runs: how they end, and what they leave behind."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from shapes import save_folders, save_table
from snellen.core.checkpoint import Checkpoint
from snellen.core.errors import DataError, DivergenceError
from snellen.core.run import RunFolder
from snellen.train.loop import Trainer
from snellen.train.run_training import run_training
from tiny_runs import SETTINGS, SIDE, different, said, start, start_again

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_folders(tmp_path_factory.mktemp("shapes") / "data", per_class=14, side=SIDE)


def test_out_of_time_ends_in_good_order_with_a_model(shapes: Path, tmp_path: Path) -> None:
    session = start(shapes, tmp_path, **SETTINGS, time_limit=0.001)
    run = run_training(session, resume=False)
    results = run.read_json("results.json")
    assert run.status == "done" and results["ended"] == "time limit"
    assert Checkpoint.load(run.best_checkpoint).step == 0
    assert "accuracy" in results["splits"]["test"]


def test_out_of_time_in_the_middle_of_an_epoch_keeps_what_was_learnt(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = start(shapes, tmp_path, **SETTINGS, time_limit=1000.0)
    take_step = Trainer.train_on
    monkeypatch.setitem(run_training.__globals__, "_reserve", lambda session: 0.0)

    def last_step(trainer: Trainer, batch: Any) -> None:
        take_step(trainer, batch)
        if trainer.progress.step == 2:
            monkeypatch.setattr("time.monotonic", lambda: session.console.started + 1001.0)

    monkeypatch.setattr(Trainer, "train_on", last_step)
    run = run_training(session, resume=False)
    assert run.status == "done" and run.read_json("results.json")["ended"] == "time limit"
    assert Checkpoint.load(run.best_checkpoint).step == 2


def test_a_stopped_run_goes_on_to_the_bits_of_one_that_was_not(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also a run that stops early, and one that has no checkpoint to go on from."""
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole = run_training(start(shapes, tmp_path / "whole", **SETTINGS), resume=False)
    take_step, dies_at = Trainer.train_on, [3, 6]

    def dying(trainer: Trainer, batch: Any) -> None:
        if dies_at and trainer.progress.step == dies_at[0]:
            dies_at.pop(0)
            raise KeyboardInterrupt
        take_step(trainer, batch)

    session = start(shapes, tmp_path / "parts", **SETTINGS, checkpoint_every=1000.0)
    monkeypatch.setattr(Trainer, "train_on", dying)
    for resume in (False, True):
        with pytest.raises(KeyboardInterrupt):
            run_training(session, resume=resume)
        assert session.run.status == "stopped"
        session = start_again(session.run, tmp_path / "parts" / "cache")
    parts = run_training(session, resume=True)
    assert parts.status == whole.status == "done"
    best = [Checkpoint.load(run.best_checkpoint) for run in (whole, parts)]
    assert different(best[0].weights, best[1].weights) == []
    assert told(parts) == told(whole)


def told(run: RunFolder) -> list[dict[str, Any]]:
    """The events without the time."""
    return [{name: value for name, value in event.items() if name != "seconds"} for event in run.events()]


def test_a_finished_run_tells_every_step_once_and_leaves_nothing_to_resume(shapes: Path, tmp_path: Path) -> None:
    run = run_training(start(shapes, tmp_path, **SETTINGS), resume=False)
    events = list(run.events())
    assert [event["event"] for event in events][:2] == ["probe", "step"]
    assert [event["step"] for event in events if event["event"] == "step"] == list(range(1, 13))
    assert [event["step"] for event in events if event["event"] == "epoch"] == [4, 8, 12]
    assert not run.last_checkpoint.exists()


def unlabelled_in(root: Path, sides: tuple[str, ...]) -> Path:
    """A multi-label table whose images on ``sides`` have no label at all."""
    table = save_table(root, num=48, side=SIDE)
    rows = table.read_text().splitlines()[1:]
    lines = ["image,label,split"]
    for i, row in enumerate(rows):
        image, label = row.split(",")
        side = ("train", "train", "val", "test")[(i + i // 8) % 4]
        lines.append(f"{image},{'' if side in sides else label},{side}")
    table.write_text("\n".join(lines) + "\n")
    return table


def test_a_metric_that_is_undefined_on_validation_and_test_does_not_end_a_run(tmp_path: Path) -> None:
    table = unlabelled_in(tmp_path / "data", ("val", "test"))
    session = start(table, tmp_path, **SETTINGS)
    run = run_training(session, resume=False)
    results = run.read_json("results.json")
    assert run.status == "done"
    assert "mean_average_precision" not in results["splits"]["val"]
    assert "undefined" in results["verdict"] and "val mean average precision undefined" in said(session)


def test_a_diverged_run_is_marked_and_its_best_model_still_loads(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = start(shapes, tmp_path, **SETTINGS)
    take_step = Trainer.train_on

    def poisoned(trainer: Trainer, batch: Any) -> None:
        if trainer.progress.step == 6:
            with torch.no_grad():
                trainer.model.get_submodule("head").weight.mul_(float("nan"))  # type: ignore[operator]
        take_step(trainer, batch)

    monkeypatch.setattr(Trainer, "train_on", poisoned)
    with pytest.raises(DivergenceError, match=r"step 6.*head\.weight"):
        run_training(session, resume=False)
    assert session.run.status == "failed"
    best = Checkpoint.load(session.run.best_checkpoint)
    assert best.epoch == 1 and all(bool(torch.isfinite(tensor).all()) for tensor in best.weights.values())
    assert [event["step"] for event in session.run.events() if event["event"] == "step"] == list(range(1, 7))


def test_a_rate_that_is_far_too_high_is_a_divergence_or_a_bad_model_never_a_crash(shapes: Path, tmp_path: Path) -> None:
    session = start(shapes, tmp_path, **{**SETTINGS, "lr": 10.0, "body_lr": 10.0, "ema": 0.0})
    try:
        run = run_training(session, resume=False)
    except DivergenceError:
        assert session.run.status == "failed"
    else:
        assert run.status == "done"
        accuracy = run.read_json("results.json")["splits"]["val"]["accuracy"]["value"]
        assert math.isfinite(accuracy)


def test_a_failure_before_training_is_marked_too(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = start(shapes, tmp_path, **SETTINGS)

    def fail(*arguments: object) -> None:
        raise DataError("no")

    monkeypatch.setitem(run_training.__globals__, "run_probe", fail)
    with pytest.raises(DataError):
        run_training(session, resume=False)
    assert session.run.status == "failed"
