"""The part about training: the curves, and what happened in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from snellen.draw.chart import Chart
from snellen.draw.charts import Line, lines
from snellen.report.source import Json, Source
from snellen.report.wording import counted, duration, is_share, metric_name


def training_charts(source: Source) -> list[Chart]:
    """Loss, the headline metric and the learning rate over the epochs; only those that have numbers."""
    epochs = [event for event in source.events if event.get("event") == "epoch"]
    drawn = (_loss_chart(source, epochs), _headline_chart(source, epochs), _rate_chart(source.events))
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
    if results.get("ended") not in (None, "finished"):
        told.append(f"Training ended early: {results['ended']}.")
    if results.get("shipped") == "linear probe":
        told.append("The model of this run is the linear probe: a linear layer on the frozen network.")
    elif results.get("best_epoch") is not None and epochs:
        told.append(f"The model of this run is that of epoch {results['best_epoch']}, the best on validation images.")
    return told


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
        caption += " The level line is the linear probe: what the pretrained network sees without any training."
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


def _rate_chart(events: Sequence[Json]) -> Chart | None:
    steps = [event for event in events if event.get("event") == "step"] or [
        event for event in events if event.get("event") == "epoch"
    ]
    steps = [event for event in steps if event.get("lr") is not None and event.get("step") is not None]
    if len(steps) < 2:
        return None
    line = Line("learning rate", [float(event["step"]) for event in steps], [float(event["lr"]) for event in steps])
    caption = "How large the steps of training were."
    return lines("Learning rate", caption, [line], x_label="step", y_label="learning rate")
