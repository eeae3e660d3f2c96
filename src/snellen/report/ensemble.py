"""The page of an ensemble: its members on the same images, what joining them gains, why not more, and what it costs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snellen.core.estimate import amount, is_share
from snellen.core.files import write_text
from snellen.draw.chart import Chart
from snellen.draw.forest import Interval, forest
from snellen.report import results
from snellen.report.build import data_parts, render
from snellen.report.source import Json, Source, read_run
from snellen.report.wording import SPLIT_NAMES, Reading, metric_name, percent, reading


@dataclass(frozen=True, slots=True)
class MemberRow:
    """A member as a row of a table; ``readings`` of the headline, one a split; its errors with those of each member."""

    name: str
    model: str
    weight: str
    readings: tuple[Reading, ...]
    correlations: tuple[str, ...]


def build_ensemble_report(folder: Path) -> Path:
    """Write ``folder``/report.html from the files of an ensemble, and return its path.

    Raises RunError for a folder that is not one or is damaged, StorageError when the page cannot be written.
    """
    source = read_run(folder)
    path = folder / "report.html"
    write_text(path, render("ensemble.html.jinja", _parts(source)))
    return path


def _parts(source: Source) -> dict[str, Any]:
    content, found = source.results, source.results["ensemble"]
    metric, splits = str(content["headline"]), list(content["splits"])
    members = [
        _member(row, metric, splits, found["diversity"]["correlation"][k]) for k, row in enumerate(found["members"])
    ]
    joined = [
        reading(metric, content["splits"][split][metric]) for split in splits if metric in content["splits"][split]
    ]
    return {
        **data_parts(source),
        "verdict": content["verdict"],
        "way": content["shipped"],
        "soup": found["way"] == "soup",
        "metric": metric_name(metric),
        "splits": [SPLIT_NAMES.get(split, split) for split in splits],
        "members": members,
        "joined": joined,
        "best": found["members"][found["best"]]["name"],
        "gains": [
            (SPLIT_NAMES.get(split, split), *_gain(metric, each)) for split, each in found["gain"].items() if each
        ],
        "notes": found["notes"],
        "sentences": found["words"],
        "diversity": _promises(found["diversity"]),
        "judged_on": f"{found['diversity']['n']:,} {SPLIT_NAMES.get(found['diversity']['side'])} images",
        "cost": _cost(found["seconds"]),
        "chart": _chart(source, metric),
        "tables": results.result_tables(source),
        "class_table": results.class_table(source),
        "result_charts": results.prediction_charts(source),
        "mistakes": results.mistakes(source),
    }


def _member(row: Json, metric: str, splits: list[str], correlations: list[float | None]) -> MemberRow:
    nothing = Reading("–", "", "")
    return MemberRow(
        name=str(row["name"]),
        model=f"{row['model']}, {' x '.join(map(str, row['input_size']))}",
        weight=percent(row["weight"], 100),
        readings=tuple(reading(metric, row[split]) if row.get(split) else nothing for split in splits),
        correlations=tuple("–" if value is None else f"{value:.2f}" for value in correlations),
    )


def _gain(metric: str, fields: Json) -> tuple[str, str, str]:
    low, high = fields["low"], fields["high"]
    span = "no interval" if low is None else f"{_signed(metric, low)} to {_signed(metric, high)}"
    return _signed(metric, fields["value"]), span, str(fields["method"])


def _signed(metric: str, value: float) -> str:
    return f"{100 * value:+.1f} points" if is_share(metric) else f"{value:+.3f}"


def _promises(found: Json) -> list[tuple[str, str, str, str]]:
    """What is measured, what independent members would reach, what is left of it as they correlate, what is reached."""
    rows = []
    if "square" in found:
        told = {name: "–" if value is None else amount(value, 3) for name, value in found["square"].items()}
        rows.append(("Mean squared error", told["one"], told["independent"], told["reached"]))
    if "majority" in found:
        majority = found["majority"]
        mean = sum(majority["rates"]) / len(majority["rates"])
        one, independent, reached = (
            f"{100 * each:.1f} %" for each in (mean, majority["independent"], majority["reached"])
        )
        rows.append((f"More than half right, {majority['of']}", one, independent, reached))
        apart, both = (f"{100 * majority[each]:.1f} %" for each in ("both_wrong_if_independent", "both_wrong"))
        rows.append((f"Two members wrong at once, {majority['of']}", "–", apart, both))
    return rows


def _cost(found: Json) -> tuple[str, str, str]:
    best, ours = (f"{1000 * found[name]:.1f} ms" for name in ("best", "ensemble"))
    return best, ours, f"{found['ratio']:.1f}"


def _chart(source: Source, metric: str) -> Chart:
    """The members and what they make, on the images of the headline."""
    split = source.headline_split
    unit = 100 if is_share(metric) else 1
    rows = [(str(row["name"]), row[split], False) for row in source.results["ensemble"]["members"] if row.get(split)]
    rows += (
        [("Together", source.results["splits"][split][metric], True)]
        if metric in source.results["splits"][split]
        else []
    )
    intervals = [
        Interval(
            name=name,
            value=unit * fields["value"],
            low=None if fields["low"] is None else unit * fields["low"],
            high=None if fields["high"] is None else unit * fields["high"],
            summary=summary,
        )
        for name, fields, summary in rows
    ]
    return forest(
        f"{metric_name(metric)} of the members, and together",
        f"On the same {SPLIT_NAMES.get(split, split)} images, with 95 % intervals. Since the images are the same, the "
        "difference is known better than where these overlap: see the gain.",
        intervals,
        x_label=metric_name(metric) + (" in percent" if unit == 100 else ""),
    )
