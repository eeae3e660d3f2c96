"""The audit's summary as facts and charts, told by the shape of each entry: a new one needs no word here.

``{"counts": [...], "edges": [...]}``           a histogram
``{"min": ..., "median": ..., "max": ...}``     a fact with its range
``{"RGB": 390, "L": 3}``                        how often each was seen
a number, a text or a truth value               a fact
Other shapes (lists, the ids of the examples) are for programs, and are not shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from snellen.draw.chart import Chart
from snellen.draw.charts import bars, histogram
from snellen.report.wording import plain

MAX_CHARTS = 12
MAX_FACTS = 24
_MAX_SEEN = 4  # kinds told as a fact; more of them make a chart
_HIDDEN = ("version", "examples", "classes", "class_counts", "num_images", "num_classes", "left_out")  # told elsewhere


@dataclass(frozen=True, slots=True)
class Fact:
    """``Width``: ``500 px`` (``200 to 800``)."""

    name: str
    value: str
    note: str = ""


def facts(summary: Mapping[str, Any]) -> list[Fact]:
    found = (_fact(name, value) for name, value in _entries(summary))
    return [fact for fact in found if fact is not None][:MAX_FACTS]


def charts(summary: Mapping[str, Any]) -> list[Chart]:
    found = (_chart(name, value) for name, value in _entries(summary))
    return [chart for chart in found if chart is not None][:MAX_CHARTS]


def _entries(summary: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(name in words, value) of the entries, and of those inside groups of entries."""
    for key, value in summary.items():
        name = f"{prefix} {key}".strip().replace("_", " ")
        if key in _HIDDEN:
            continue
        if _is_group(value):
            yield from _entries(value, name)
        else:
            yield name[:1].upper() + name[1:], value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_group(value: Any) -> bool:
    return isinstance(value, Mapping) and any(isinstance(each, Mapping) for each in value.values())


def _is_histogram(value: Any) -> bool:
    return isinstance(value, Mapping) and {"counts", "edges"} <= value.keys() and len(value["edges"]) > 1


def _is_range(value: Any) -> bool:
    return isinstance(value, Mapping) and {"min", "max"} <= value.keys() and all(map(_is_number, value.values()))


def _is_frequencies(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(each, int) for each in value.values())


def _fact(name: str, value: Any) -> Fact | None:
    if _is_range(value):
        middle = value.get("median", value.get("mean"))
        span = f"{plain(value['min'])} to {plain(value['max'])}"
        return Fact(name, span) if middle is None else Fact(name, plain(middle), span)
    if _is_frequencies(value):
        most = max(value, key=lambda kind: value[kind])
        return Fact(name, str(most), plain(value)) if len(value) <= _MAX_SEEN else None
    return Fact(name, plain(value)) if _is_number(value) or isinstance(value, str | bool) else None


def _chart(name: str, value: Any) -> Chart | None:
    if _is_histogram(value):
        total = f"{sum(value['counts']):,}"
        return histogram(name, f"Of {total} images.", value["counts"], value["edges"], x_label=name.lower())
    if _is_frequencies(value) and not _is_range(value) and len(value) > _MAX_SEEN:
        return bars(name, "", {"images": value}, x_label="images")
    return None
