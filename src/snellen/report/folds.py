"""The page of a cross-validation: the folds side by side, what they say together, and the ensemble of their models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from snellen.core.estimate import is_share
from snellen.core.files import write_text
from snellen.core.run import OUT_OF_FOLD
from snellen.data.folds import told_folds
from snellen.draw.chart import Chart
from snellen.draw.charts import MAX_CLASSES
from snellen.draw.forest import Interval, forest
from snellen.report import results
from snellen.report.build import STATUS_NOTES, data_parts, render
from snellen.report.source import Json, Source, read_run
from snellen.report.wording import Reading, duration, metric_name, reading

_MEAN, _POOLED, _ENSEMBLE = "Mean of the folds", "Out of fold, pooled", "Ensemble, sealed test images"
_SINGLE = "One model alone, sealed test images"
_MOST_BARS = MAX_CLASSES - 3  # folds of a chart: what they say together comes below them


@dataclass(frozen=True, slots=True)
class FoldRow:
    """One fold as a row of a table; ``name`` is that of its folder."""

    name: str
    num_train: int
    num_val: int
    reading: Reading | None
    shipped: str
    epochs: str
    took: str


def build_folds_report(folder: Path) -> Path:
    """Write ``folder``/report.html from the files of a cross-validation, and return its path.

    Raises RunError for a folder that is not one or is damaged, StorageError when the page cannot be written.
    """
    source = read_run(folder)
    path = folder / "report.html"
    write_text(path, render("folds.html.jinja", _parts(source)))
    return path


def _parts(source: Source) -> dict[str, Any]:
    found = source.results
    metric = str(found["headline"])
    # Class by class and in charts: on the images of all folds, which are many more than those for testing.
    pooled = replace(source, results={**found, "splits": {OUT_OF_FOLD: found["splits"][OUT_OF_FOLD]}})
    models = _models(found)
    repeats = _repeats(found)
    return {
        **data_parts(source),
        "status_note": STATUS_NOTES.get(source.status, "") if source.status == "failed" else "",
        "verdict": found["verdict"],
        "metric": metric_name(metric),
        "headlines": _headlines(found, metric),
        "told_folds": told_folds(len(found["folds"]) // repeats, repeats),
        "repeats": repeats,
        "folds": [_fold(row, metric) for row in found["folds"]],
        "chart": fold_chart(found, metric),
        "models": tuple(models),
        "rows": _metric_rows(models, metric),
        "class_table": results.class_table(pooled),
        "result_charts": results.prediction_charts(pooled),
        "opened": "test" in found["splits"],
    }


def _repeats(found: Json) -> int:
    return max(int(row.get("repeat", 1)) for row in found["folds"])  # folds were not always repeated


def _models(found: Json) -> dict[str, Json]:
    """The numbers of each way to look at the folds."""
    models = {_MEAN: found["mean"], _POOLED: found["splits"][OUT_OF_FOLD]}
    return {**models, _ENSEMBLE: found["splits"]["test"]} if "test" in found["splits"] else models


def _headlines(found: Json, metric: str) -> list[tuple[str, Reading]]:
    rows = [(model, numbers[metric]) for model, numbers in _models(found).items() if metric in numbers]
    if "single" in found:
        rows.append((_SINGLE, found["single"]))
    return [(model, reading(metric, fields)) for model, fields in rows]


def _metric_rows(models: Mapping[str, Json], first: str) -> list[results.MetricRow]:
    found = dict.fromkeys(name for numbers in models.values() for name in numbers)
    names = [name for name in found if "/" not in name and (name == first or not name.endswith(results.SELDOM_READ))]
    names.sort(key=lambda name: name != first)
    nothing = Reading("–", "", "")
    return [
        (
            metric_name(name),
            "",
            tuple(reading(name, each[name]) if name in each else nothing for each in models.values()),
        )
        for name in names
    ]


def _fold(row: Json, metric: str) -> FoldRow:
    return FoldRow(
        name=row["run"],
        num_train=row["num_train"],
        num_val=row["num_val"],
        reading=reading(metric, row["val"][metric]) if metric in row["val"] else None,
        shipped=str(row["shipped"]),
        epochs=str(row["best_epoch"]),
        took=duration(row["seconds"]),
    )


def fold_chart(found: Json, metric: str) -> Chart | None:
    """Each fold with its own interval, then what they say together. None where the metric is not defined.

    Of more folds than a chart can show, the first are shown.
    """
    unit = 100 if is_share(metric) else 1
    several = _repeats(found) > 1
    rows = [
        (f"Repeat {row['repeat']}, fold {row['fold']}" if several else f"Fold {row['fold']}", row["val"][metric], False)
        for row in found["folds"][:_MOST_BARS]
        if metric in row["val"]
    ]
    rows += [(model, numbers[metric], True) for model, numbers in _models(found).items() if metric in numbers]
    if not any(summary for _, _, summary in rows):
        return None
    intervals = [
        Interval(
            name=name.replace(", sealed test images", ", test"),
            value=unit * fields["value"],
            low=None if fields["low"] is None else unit * fields["low"],
            high=None if fields["high"] is None else unit * fields["high"],
            summary=summary,
        )
        for name, fields, summary in rows
    ]
    return forest(
        f"{metric_name(metric)} of each fold, and together",
        "Bars are 95 % intervals. Those of the folds are over their own images; that of the mean is over the folds, "
        "and wider than their spread alone would make it, because their models share training images.",
        intervals,
        x_label=metric_name(metric) + (" in percent" if unit == 100 else ""),
    )
