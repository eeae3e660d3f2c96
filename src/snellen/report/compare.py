"""The page of a comparison: the verdicts, the differences with their intervals, and what to know beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snellen.core.estimate import is_share
from snellen.core.files import write_text
from snellen.core.run import RunFolder
from snellen.draw.chart import Chart
from snellen.draw.forest import Interval, forest
from snellen.report.build import render
from snellen.report.wording import SPLIT_NAMES, Reading, metric_name, reading


@dataclass(frozen=True, slots=True)
class Row:
    """One pairing, ready to be read."""

    baseline: str
    challenger: str
    side: str
    verdict: str
    first: Reading
    second: Reading
    difference: str
    interval: str
    method: str
    p: str
    only: str
    notes: tuple[str, ...]


def build_comparison_report(folder: Path) -> Path:
    """Write ``folder``/report.html from its compare.json, and return its path.

    Raises RunError when there is none or it is damaged, StorageError when the page cannot be written.
    """
    content = RunFolder(folder).read_json("compare.json")
    path = folder / "report.html"
    metric = str(content["metric"])
    parts = {
        "task": content["task"],
        "metric": metric_name(metric),
        "rows": [_row(metric, pairing) for pairing in content["pairings"]],
        "notes": content["notes"],
        "chart": difference_chart(metric, content["pairings"]),
    }
    write_text(path, render("compare.html.jinja", parts))
    return path


def _row(metric: str, pairing: Mapping[str, Any]) -> Row:
    gap = pairing["difference"]
    only = pairing["only_first"], pairing["only_second"]
    return Row(
        baseline=pairing["baseline"],
        challenger=pairing["challenger"],
        side=f"{pairing['n']:,} {SPLIT_NAMES.get(pairing['side'], pairing['side'])} images",
        verdict=pairing["verdict"],
        first=reading(metric, pairing["first"]),
        second=reading(metric, pairing["second"]),
        difference=_signed(metric, gap["value"]),
        interval="" if gap["low"] is None else f"{_signed(metric, gap['low'])} to {_signed(metric, gap['high'])}",
        method=gap["method"],
        p="" if gap["p"] is None else f"{gap['p']:.3f}" if gap["p"] >= 0.001 else "below 0.001",
        only="" if None in only else f"{only[0]:,} only by the baseline, {only[1]:,} only by the other",
        notes=tuple(pairing["notes"]),
    )


def _signed(metric: str, value: float) -> str:
    return f"{100 * value:+.1f}" if is_share(metric) else f"{value:+.3f}"


def difference_chart(metric: str, pairings: list[Mapping[str, Any]]) -> Chart:
    """How much higher the metric is than the baseline's, for each that was held against it."""
    unit = 100 if is_share(metric) else 1
    rows = []
    for pairing in pairings:
        gap = pairing["difference"]
        low, high = (None if gap[end] is None else unit * gap[end] for end in ("low", "high"))
        rows.append(Interval(str(pairing["challenger"]), unit * gap["value"], low, high))
    name = metric_name(metric)
    return forest(
        f"Difference in {name[:1].lower()}{name[1:]}",
        f"Over the baseline, {pairings[0]['baseline']}, with 95 % intervals; one that holds 0 shows no difference.",
        rows,
        x_label=f"{name}, {'points' if unit == 100 else 'difference'}",
        reference=0.0,
    )
