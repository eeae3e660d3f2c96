"""The page of a search: what was tried, what came of it, and what mattered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from snellen.core.estimate import spoken
from snellen.core.files import write_text
from snellen.core.run import RunFolder
from snellen.draw.chart import SERIES, Chart, figure, finish
from snellen.report.build import render
from snellen.report.wording import plain

_STATES = {"complete": "run to its end", "pruned": "ended early", "failed": "failed", "running": "not finished"}


def build_tuning_report(folder: Path) -> Path:
    """Write ``folder``/report.html from search.json, and return its path. Raises RunError and StorageError."""
    run = RunFolder(folder)
    content = run.read_json("search.json")
    trials = [trial for trial in content["trials"] if trial["value"] is not None]
    complete = [trial for trial in trials if trial["state"] == "complete"]
    best = max(complete, key=lambda trial: (trial["value"], -trial["number"]))
    headline = spoken(content["headline"])
    names = sorted({name for trial in trials for name in trial["settings"]})
    parts = {
        "name": Path(run.config.data).name,
        "headline": headline,
        "best": best["value"],
        "baseline": content["baseline"],
        "best_settings": {name: plain(value) for name, value in best["settings"].items()},
        "num_trials": len(trials),
        "num_pruned": sum(trial["state"] == "pruned" for trial in trials),
        "charts": [_by_trial(trials, headline, content["baseline"]), *_by_setting(trials, names, headline)],
        "names": names,
        "rows": [_row(trial, names, trial is best) for trial in content["trials"]],
    }
    path = folder / "report.html"
    write_text(path, render("tuning.html.jinja", parts))
    return path


def _row(trial: dict[str, Any], names: list[str], is_best: bool) -> dict[str, Any]:
    value = "–" if trial["value"] is None else f"{trial['value']:.4f}"
    settings = [plain(trial["settings"].get(name, "–")) for name in names]
    state = _STATES.get(trial["state"], trial["state"])
    return {"number": trial["number"], "state": state, "value": value, "settings": settings, "best": is_best}


def _by_trial(trials: list[dict[str, Any]], headline: str, baseline: float) -> Chart:
    """Each trial's value, and the best so far."""
    from matplotlib.ticker import MaxNLocator

    numbers = [trial["number"] for trial in trials]
    values = np.array([trial["value"] for trial in trials])
    best = np.maximum.accumulate(np.where([trial["state"] == "complete" for trial in trials], values, -np.inf))
    with figure(400, 260) as (canvas, axes):
        axes.step(
            numbers, np.where(np.isfinite(best), best, np.nan), where="post", color=SERIES[0], label="best so far"
        )
        axes.axhline(baseline, color=SERIES[1], linestyle="--", linewidth=1, label="without a search")
        for state, marker in (("complete", "o"), ("pruned", "x")):
            chosen = [i for i, trial in enumerate(trials) if trial["state"] == state]
            if chosen:
                x, y = [numbers[i] for i in chosen], values[chosen]
                axes.plot(x, y, marker, color=SERIES[5], label=_STATES[state], markersize=5)
        axes.set(xlabel="trial", ylabel=f"validation {headline}")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(loc="best")
        axes.grid(True)
        return finish(
            canvas,
            title="What the search found",
            caption="Each trial's best validation result. Trials ended early looked worse than half of the others.",
            header=("trial", "value", "state"),
            rows=[(str(t["number"]), f"{t['value']:.4f}", _STATES[t["state"]]) for t in trials],
        )


def _by_setting(trials: list[dict[str, Any]], names: list[str], headline: str) -> list[Chart]:
    """Value against each setting: does the best lie inside its range, or at an end that should be moved?"""
    return [chart for name in names if (chart := _one_setting(trials, name, headline)) is not None]


def _one_setting(trials: list[dict[str, Any]], name: str, headline: str) -> Chart | None:
    chosen = [trial for trial in trials if name in trial["settings"]]
    x = [trial["settings"][name] for trial in chosen]
    if len(set(x)) < 2:
        return None
    with figure(400, 220) as (canvas, axes):
        axes.plot(x, [trial["value"] for trial in chosen], "o", color=SERIES[0], markersize=5)
        if not isinstance(x[0], str) and min(x) > 0 and max(x) / min(x) > 10:
            axes.set_xscale("log")
        axes.set(xlabel=name.replace("_", " "), ylabel=f"validation {headline}")
        axes.grid(True)
        return finish(
            canvas,
            title=f"By {name.replace('_', ' ')}",
            caption="Each point is a trial; the other settings vary as well.",
            header=(name, "value"),
            rows=[(plain(trial["settings"][name]), f"{trial['value']:.4f}") for trial in chosen],
        )
