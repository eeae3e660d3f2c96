"""The report's part about training: the rate as planned and as run, and the sweep that found it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from run_folders import write_json, write_run
from snellen.core.errors import RunError
from snellen.core.run import RunFolder
from snellen.draw.chart import Chart
from snellen.draw.curves import sweep_chart
from snellen.report.build import build_report
from snellen.report.source import read_run
from snellen.report.training import story, training_charts
from snellen.train.rate_sweep import SWEEP_FILE, RateSweep, read_sweep
from snellen.train.schedule import planned_rates
from tiny_runs import a_plan


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Six steps, each an epoch, the first two of the head alone."""
    return write_run(tmp_path / "run", ["ants", "bees"])


def charts(run: Path) -> dict[str, Chart]:
    return {chart.title: chart for chart in training_charts(read_run(run))}


def a_sweep(depth: float = 0.6, ended: str = "") -> RateSweep:
    rates = np.geomspace(1e-7, 1, 60)
    x = np.log10(rates)
    losses = 1.1 - depth / (1 + np.exp(-4 * (x + 3))) + 9 * np.clip(x + 1, 0, None)
    return read_sweep(rates.tolist(), losses.tolist(), ended)


@pytest.mark.parametrize(("epochs", "early"), [(4, False), (9, True)])
def test_the_rate_is_drawn_as_planned_and_as_run(epochs: int, early: bool, run: Path) -> None:
    plan = a_plan(schedule="step", head_epochs=2, epochs=epochs, warmup_steps=0)
    write_json(run / "plan.json", plan.to_json())
    chart = charts(run)["Learning rate"]
    assert chart.header == ("step", "as planned", "as run")
    planned = planned_rates(plan, 1)
    assert [row[1] for row in chart.rows] == [f"{rate:.4g}" for rate in planned]
    assert [row[2] for row in chart.rows[:6]] == [f"{0.01 * (6 - i):.4g}" for i in range(6)]
    assert ("ended before the plan" in chart.caption) == early


def test_a_plan_that_waits_for_plateaus_says_so(run: Path) -> None:
    write_json(run / "plan.json", a_plan(schedule="plateau", head_epochs=2, epochs=4).to_json())
    assert "wherever validation stops getting better" in charts(run)["Learning rate"].caption


def test_without_a_readable_plan_the_rate_is_drawn_as_run(run: Path) -> None:
    assert charts(run)["Learning rate"].header == ("step", "as run")


def test_the_probes_line_says_what_the_probe_saw(run: Path) -> None:
    content: dict[str, Any] = json.loads((run / "plan.json").read_text())
    for probe, words in (("pixels", "makes of the bare pixels"), ("features", "of the network before training")):
        content["choices"]["probe"] = probe
        write_json(run / "plan.json", content)
        assert words in charts(run)["Accuracy"].caption


def test_a_sweep_is_drawn_with_its_suggestions_in_the_report(run: Path) -> None:
    assert "Finding the rate" not in charts(run)
    sweep = a_sweep()
    write_json(run / SWEEP_FILE, sweep.to_json())
    chart = charts(run)["Finding the rate"]
    for name, rate in sweep.suggestions.items():
        assert f"{name}: {rate:.2g}" in chart.svg
    assert len(chart.rows) == 60 and chart.rows[0][0] == "1e-07"
    assert "Finding the rate" in build_report(run).read_text(encoding="utf-8")


def test_a_sweep_without_a_suggestion_says_why(run: Path) -> None:
    write_json(run / SWEEP_FILE, a_sweep(depth=0.0, ended="the loss had blown up at 0.5").to_json())
    chart = charts(run)["Finding the rate"]
    assert "valley" not in chart.svg
    assert "No rate can be suggested" in chart.caption and "ended early: the loss had blown up at 0.5." in chart.caption


@pytest.mark.parametrize("content", [{"version": 1}, [1], {"rates": "x"}])
def test_a_damaged_sweep_is_named(content: Any, run: Path) -> None:
    write_json(run / SWEEP_FILE, content)
    with pytest.raises(RunError, match=rf"{SWEEP_FILE} is damaged"):
        charts(run)


def test_a_sweep_of_no_or_equal_losses_can_be_drawn() -> None:
    assert sweep_chart("t", "c", [], [], [], {}).rows == ()
    assert "<svg" in sweep_chart("t", "c", [0.1, 0.2], [1.0, 1.0], [1.0, 1.0], {"valley": 0.1}).svg


def test_the_terms_of_a_loss_are_drawn_where_there_are_several(run: Path) -> None:
    assert "Terms of the loss" not in charts(run)
    events = [
        json.loads(line)
        for line in (run / "metrics.jsonl").read_text().splitlines()
        if line.startswith("{") and line.endswith("}")
    ]
    steps = [event for event in events if event["event"] == "step"]
    for event in steps:
        event |= {"train/box": 3.0, "train/class": 1.0}
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(event)}\n" for event in events))
    chart = charts(run)["Terms of the loss"]
    assert set(chart.header) == {"step", "box", "class"} and "box 75 %, class 25 %" in chart.caption


def test_what_crops_took_away_is_told_where_it_is_something(run: Path) -> None:
    assert not any("Crops" in sentence for sentence in story(read_run(run)))
    events = list(RunFolder(run).events())
    for event in events:
        if event["event"] == "epoch":
            event |= {"objects": 200, "objects_cut_away": 9}
    (run / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    told = [sentence for sentence in story(read_run(run)) if "Crops" in sentence]
    assert len(told) == 1 and "4.5 % of their objects" in told[0] and "less than 30 %" in told[0]
