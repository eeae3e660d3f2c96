"""The part about training: the curves, and what happened in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from snellen.core.annotation import MIN_VISIBLE
from snellen.core.errors import RunError
from snellen.core.estimate import is_share
from snellen.core.plan import Plan
from snellen.core.run import RunFolder
from snellen.draw.chart import Chart
from snellen.draw.charts import Line, lines
from snellen.draw.curves import sweep_chart
from snellen.report.source import Json, Source
from snellen.report.wording import counted, duration, metric_name
from snellen.train.rate_sweep import SWEEP_FILE, RateSweep
from snellen.train.schedule import SCHEDULES, planned_rates

_NOT_TERMS = {"train/step_loss", "train/gradient_norm"}
_TERM_POINTS = 60  # of a line, each the mean of as many steps


def training_charts(source: Source) -> list[Chart]:
    """Loss, headline metric and learning rate over the epochs, and how the rate was found; those that have numbers."""
    epochs = [event for event in source.events if event.get("event") == "epoch"]
    drawn = (
        _loss_chart(source, epochs),
        _terms_chart(source),
        _headline_chart(source, epochs),
        _rate_chart(source, epochs),
        _sweep_chart(source),
    )
    return [chart for chart in drawn if chart is not None]


def story(source: Source) -> list[str]:
    """What happened, one sentence each."""
    results, told = source.results, []
    epochs = [event for event in source.events if event.get("event") == "epoch"]
    if epochs:
        time = f" in {duration(results['seconds'])}" if results.get("seconds") else ""
        told.append(f"Trained for {counted(len(epochs), 'epoch')}{time}.")
        head = sum(event.get("phase") == "head" for event in epochs)
        if 0 < head < len(epochs):
            told.append(f"The first {counted(head, 'epoch')} trained the new head alone, the rest the whole network.")
        told += _cut_away(epochs)
    if results.get("ended") not in (None, "finished"):
        told.append(f"Training ended early: {results['ended']}.")
    if results.get("shipped") == "linear probe":
        told.append("The model of this run is the linear probe: a linear layer on the frozen network.")
    elif results.get("best_epoch") is not None and epochs:
        told.append(f"The model of this run is that of epoch {results['best_epoch']}, the best on validation images.")
    return told


def _cut_away(epochs: Sequence[Json]) -> list[str]:
    """What the crops of training images took away."""
    shown, cut = (sum(event.get(name, 0) for event in epochs) for name in ("objects", "objects_cut_away"))
    if not cut:
        return []
    return [
        f"Crops that vary the training images took away {100 * cut / shown:.1f} % of their objects, of which less than "
        f"{100 * MIN_VISIBLE:.0f} % stayed in view: those are not asked for where they are cut."
    ]


def _places(epochs: Sequence[Json]) -> list[float]:
    """Where each epoch lies on the x axis: counted over all phases, as ``best_epoch`` is."""
    return [float(i) for i in range(1, len(epochs) + 1)]


def _line(name: str, key: str, epochs: Sequence[Json]) -> Line | None:
    values = [event.get(key) for event in epochs]
    if all(value is None for value in values):
        return None
    return Line(name, _places(epochs), [np.nan if value is None else float(value) for value in values])


def _best(source: Source, epochs: Sequence[Json]) -> tuple[float, str] | None:
    best = source.results.get("best_epoch")
    return (float(best), f"best: epoch {best}") if best in _places(epochs) else None


def _loss_chart(source: Source, epochs: Sequence[Json]) -> Chart | None:
    series = [_line("training", "train/loss", epochs), _line("validation", "val/loss", epochs)]
    found = [line for line in series if line is not None]
    if not found:
        return None
    caption = "Lower is better. Validation rising while training still falls means the model learns by heart."
    values = [value for line in found for value in line.y if value > 0]
    wide = bool(values) and max(values) > 20 * min(values)
    return lines("Loss", caption, found, x_label="epoch", y_label="loss", mark=_best(source, epochs), log_y=wide)


def _terms_chart(source: Source) -> Chart | None:
    """The terms of the loss beside each other; None where it has but one."""
    steps = [event for event in source.events if event.get("event") == "step"]
    names = sorted({name for event in steps for name in event if name.startswith("train/")} - _NOT_TERMS)
    if len(names) < 2 or len(steps) < 2:
        return None
    parts = np.array_split(np.arange(len(steps)), min(len(steps), _TERM_POINTS))
    x = [float(np.mean([steps[i]["step"] for i in part])) for part in parts]
    shares, drawn = {}, []
    for name in names:
        values = np.array([float(event.get(name, 0.0)) for event in steps])
        drawn.append(Line(name.removeprefix("train/"), x, [float(values[part].mean()) for part in parts]))
        shares[name.removeprefix("train/")] = float(values[parts[-1]].mean())
    total = sum(shares.values()) or 1.0
    told = ", ".join(f"{name} {100 * value / total:.0f} %" for name, value in shares.items())
    caption = f"What the loss is made of; a term that dwarfs the others is all that is learnt. At the end: {told}."
    return lines("Terms of the loss", caption, drawn, x_label="step", y_label="training loss")


def _headline_chart(source: Source, epochs: Sequence[Json]) -> Chart | None:
    metric = source.results.get("headline") or "accuracy"
    series = [_line("training", f"train/{metric}", epochs), _line("validation", f"val/{metric}", epochs)]
    found = [line for line in series if line is not None]
    if not found:
        return None
    caption = "On validation images, after each epoch."
    probe = _probe_value(source, metric)
    if probe is not None:
        ends = found[0].x
        found.append(Line("linear probe", [ends[0], ends[-1]] if len(ends) > 1 else ends, [probe] * min(len(ends), 2)))
        seen = "of the bare pixels" if source.choices.get("probe") == "pixels" else "of the network before training"
        caption += f" The level line is the linear probe: what a linear model makes {seen}."
    if is_share(metric):
        found = [Line(line.name, line.x, [100 * value for value in line.y]) for line in found]
    label = metric_name(metric).lower() + (" in %" if is_share(metric) else "")
    mark = _best(source, epochs)
    return lines(metric_name(metric), caption, found, x_label="epoch", y_label=label, mark=mark)


def _probe_value(source: Source, metric: str) -> float | None:
    baselines = source.results.get("baselines") or {}
    estimate = ((baselines.get("linear probe") or {}).get("val") or {}).get(metric)
    if estimate is not None:
        return float(estimate["value"])
    probes: list[Any] = [event.get(f"val/{metric}") for event in source.events if event.get("event") == "probe"]
    return None if not probes or probes[-1] is None else float(probes[-1])


def _rate_chart(source: Source, epochs: Sequence[Json]) -> Chart | None:
    """As run, over the rate as planned."""
    steps = [event for event in source.events if event.get("event") == "step"] or epochs
    steps = [event for event in steps if event.get("lr") is not None and event.get("step") is not None]
    if len(steps) < 2:
        return None
    drawn = [Line("as run", [float(event["step"]) for event in steps], [float(event["lr"]) for event in steps])]
    caption = "How large the steps of the head were; the backbone's keep their proportion to it."
    plan = _plan(source)
    planned = planned_rates(plan, _steps_per_epoch(epochs)) if plan is not None else np.empty(0)
    if plan is not None and len(planned):
        drawn.insert(0, Line("as planned", np.arange(1.0, len(planned) + 1), planned))
        if len(planned) > steps[-1]["step"]:
            caption += " Training ended before the plan did."
        if SCHEDULES[plan.schedule].waits:
            caption += " The plan divides the rate by ten wherever validation stops getting better."
    return lines("Learning rate", caption, drawn, x_label="step", y_label="learning rate")


def _plan(source: Source) -> Plan | None:
    """None where it is not there, or not readable: the chart then shows what was run."""
    try:
        return RunFolder(source.folder).plan
    except RunError:
        return None


def _steps_per_epoch(epochs: Sequence[Json]) -> int:
    """0 before the first epoch has ended."""
    return int(epochs[0].get("step") or 0) if epochs else 0


def _sweep_chart(source: Source) -> Chart | None:
    content = RunFolder(source.folder).read_json(SWEEP_FILE, missing={})
    if not content:
        return None
    try:
        sweep = RateSweep.from_json(content)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"{source.folder / SWEEP_FILE} is damaged: {error!r}") from None
    told = sweep.reason[:1].upper() + sweep.reason[1:]
    ended = f" It ended early: {sweep.ended}." if sweep.ended else ""
    caption = f"{told}.{ended} Nothing of the sweep was kept but the rate."
    return sweep_chart("Finding the rate", caption, sweep.rates, sweep.losses, sweep.smoothed, sweep.suggestions)
