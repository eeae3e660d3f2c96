"""The kinds of chart: each a small SVG with its numbers as a table behind it, whatever the size of the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from snellen.draw.chart import DASHES, FONT_SIZE, HEAT, INK, ON_HEAT, SERIES, WIDTH, Chart, figure, finish
from snellen.draw.text import legible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

MAX_POINTS = 400  # of a line
MAX_TABLE_ROWS = 100
MAX_CLASSES = 30  # rows of a bar chart or a heat map that can still be read
NAME_LENGTH = 24  # characters of a class name on an axis


@dataclass(frozen=True, slots=True)
class Line:
    """One named line: ``x`` ascending, ``y`` of the same length; NaN where there is no value.

    note goes beside the name in the legend, as in ``ants (area 0.98)``.
    """

    name: str
    x: Sequence[float] | NDArray[Any]
    y: Sequence[float] | NDArray[Any]
    note: str = ""

    @property
    def label(self) -> str:
        name = _entry(self.name)
        return f"{name} ({legible(self.note, NAME_LENGTH)})" if self.note else name


def thin(x: NDArray[Any], y: NDArray[Any], limit: int = MAX_POINTS) -> tuple[NDArray[Any], NDArray[Any]]:
    """At most ``limit`` of the points: the ends, and of each stretch between them its lowest and its highest point.

    A spike one point wide stays visible, which taking every n-th point would not promise.
    """
    if len(x) <= limit:
        return x, y
    kept = {0, len(x) - 1}
    for stretch in np.array_split(np.arange(1, len(x) - 1), (limit - 2) // 2):
        there = stretch[np.isfinite(y[stretch])]
        if len(there):
            kept.update((int(there[np.argmin(y[there])]), int(there[np.argmax(y[there])])))
    order = np.array(sorted(kept))
    return x[order], y[order]


def lines(
    title: str,
    caption: str,
    series: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    mark: tuple[float, str] | None = None,
    log_y: bool = False,
) -> Chart:
    """Curves over steps or epochs in one picture; ``mark`` is a place on the x axis and what to say there."""
    with figure(WIDTH, 260) as (canvas, axes):
        _draw(axes, series)
        axes.set(xlabel=legible(x_label, 40), ylabel=legible(y_label, 40))
        if all(float(value).is_integer() for line in series for value in line.x):
            _whole_numbers(axes.xaxis)
        if log_y and any(value > 0 for line in series for value in line.y):
            _logarithmic(axes)
        axes.grid(axis="y")
        if mark is not None:
            _draw_mark(axes, *mark)
        if len(series) > 1:
            _draw_legend(canvas, len(series))
        header = (x_label, *(line.name for line in series))
        return finish(canvas, title=title, caption=caption, header=header, rows=_rows_by_x(series))


def _draw(axes: Axes, series: Sequence[Line]) -> None:
    for i, line in enumerate(series):
        x, y = thin(np.asarray(line.x, float), np.asarray(line.y, float))
        marker = "o" if len(x) <= 40 else None
        dash, colour = DASHES[i % len(DASHES)], SERIES[i % len(SERIES)]
        axes.plot(x, y, color=colour, linestyle=dash, linewidth=1.8, marker=marker, markersize=3, label=line.label)


def _whole_numbers(axis: Axis) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def _logarithmic(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))  # plain text: no mathematics is parsed


def _draw_mark(axes: Axes, x: float, text: str) -> None:
    left, right = axes.get_xlim()
    axes.axvline(x, color=INK, linewidth=0.9, linestyle=(0, (2, 2)), alpha=0.7)
    near_right = x > left + 0.6 * (right - left)
    axes.annotate(
        legible(text, 40),
        (x, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(4 if near_right else -4, 3),
        textcoords="offset points",
        ha="right" if near_right else "left",
        va="bottom",
        fontsize=FONT_SIZE - 1,
    )


def _entry(name: str) -> str:
    """``name`` for a legend. Matplotlib leaves out what begins with an underscore, or is empty."""
    text = legible(name, NAME_LENGTH)
    return f" {text}" if text.startswith("_") else text or "–"


def _draw_legend(canvas: Figure, num_series: int) -> None:
    canvas.legend(loc="outside upper left", ncols=2 if num_series > 3 else num_series, handlelength=2.6)


def _rows_by_x(series: Sequence[Line]) -> list[list[str]]:
    values = [dict(zip(map(float, line.x), map(float, line.y), strict=True)) for line in series]
    places = sorted(set().union(*values))
    if len(places) > MAX_TABLE_ROWS:
        places = [places[i] for i in np.linspace(0, len(places) - 1, MAX_TABLE_ROWS).round().astype(int)]
    return [[f"{x:g}", *(_number(line.get(x, float("nan"))) for line in values)] for x in places]


def _number(value: float) -> str:
    return f"{value:.4g}" if np.isfinite(value) else "–"


def curves(
    title: str,
    caption: str,
    series: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    rows: Sequence[Sequence[str]],
    chance: bool = False,
) -> Chart:
    """Curves in the unit square, such as ROC (with the diagonal of ``chance``) and precision over recall.

    rows are those of the table behind it: a name and an area for each curve.
    """
    # What is left for the square itself stays the same, however long the legend.
    with figure(WIDTH, 330 + 17 * ((len(series) + 1) // 2 if len(series) > 3 else 1)) as (canvas, axes):
        if chance:
            axes.plot((0, 1), (0, 1), color=INK, linewidth=0.9, linestyle=(0, (2, 3)), alpha=0.6)
        _draw(axes, series)
        axes.set(xlabel=legible(x_label, 40), ylabel=legible(y_label, 40), xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
        axes.grid()
        _draw_legend(canvas, len(series))
        return finish(canvas, title=title, caption=caption, header=("Curve", "Area"), rows=rows)


def bars(title: str, caption: str, counts: Mapping[str, Mapping[str, float]], *, x_label: str) -> Chart:
    """Lengths by name, each made of named parts: ``counts[part][name]``, as images of a class in each split.

    Of more than 30 names the 20 longest and the 10 shortest are drawn, and between them the mean of the others; the
    table goes on to 100 rows.
    """
    names = list(dict.fromkeys(name for part in counts.values() for name in part))
    table = [(name, [float(part.get(name, 0)) for part in counts.values()]) for name in names]
    table.sort(key=lambda row: -sum(row[1]))  # stable: equal ones stay in the caller's order
    shown = _abridged(table, MAX_CLASSES, mean=True)
    with figure(WIDTH, 70 + 20 * len(shown)) as (canvas, axes):
        places, left = np.arange(len(shown)), np.zeros(len(shown))
        for i, part in enumerate(counts):
            lengths = np.array([values[i] for _, values in shown])
            axes.barh(places, lengths, 0.68, left=left, color=SERIES[i % len(SERIES)], label=_entry(part))
            left = left + lengths
        for place, length in zip(places.tolist(), left.tolist(), strict=True):
            text = axes.annotate(_count(length), (length, place), (4, 0), textcoords="offset points", va="center")
            text.set(fontsize=FONT_SIZE - 1, in_layout=False)
        axes.set_yticks(places, [legible(name, NAME_LENGTH) for name, _ in shown])
        axes.set(
            xlabel=legible(x_label, 40),
            ylim=(len(shown) - 0.4, -0.6),
            xlim=(0, max(float(left.max(initial=0)), 1) * 1.16),
        )
        axes.tick_params(axis="y", length=0)
        _whole_numbers(axes.xaxis)
        if len(counts) > 1:
            _draw_legend(canvas, len(counts))
        rows = [
            [name, *(_count(value) for value in values), _count(sum(values))]
            for name, values in _abridged(table, MAX_TABLE_ROWS)
        ]
        return finish(canvas, title=title, caption=caption, header=("name", *counts, "all"), rows=rows)


_Row = tuple[str, list[float]]


def _abridged(table: list[_Row], limit: int, *, mean: bool = False) -> list[_Row]:
    if len(table) <= limit:
        return table
    ends = limit // 3
    others = table[limit - ends : len(table) - ends]
    sums = [sum(values) for values in zip(*(row[1] for row in others), strict=True)]
    middle = (f"{len(others):,} others, mean", [value / len(others) for value in sums])
    return [*table[: limit - ends], middle if mean else (f"{len(others):,} others", sums), *table[len(table) - ends :]]


def _count(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) or value >= 100 else f"{value:.1f}"


def histogram(
    title: str,
    caption: str,
    counts: Sequence[float],
    edges: Sequence[float],
    *,
    x_label: str,
    y_label: str = "images",
) -> Chart:
    """``counts[i]`` images between ``edges[i]`` and ``edges[i + 1]``, or of what ``y_label`` says. Raises ValueError
    for lengths that disagree."""
    if len(edges) != len(counts) + 1:
        raise ValueError(f"{len(counts)} counts need {len(counts) + 1} edges, got {len(edges)}")
    with figure(WIDTH, 200) as (canvas, axes):
        widths = np.diff(np.asarray(edges, float))
        axes.bar(edges[:-1], counts, width=widths, align="edge", color=SERIES[0], edgecolor=ON_HEAT, linewidth=0.3)
        axes.set(xlabel=legible(x_label, 40), ylabel=y_label)
        _whole_numbers(axes.yaxis)
        axes.grid(axis="y")
        rows = [
            [f"{low:.4g} to {high:.4g}", _count(count)]
            for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
        ]
        return finish(canvas, title=title, caption=caption, header=(x_label, y_label), rows=rows)


def heatmap(title: str, caption: str, counts: NDArray[Any], names: Sequence[str]) -> Chart:
    """A confusion matrix: ``counts[t, p]`` images of class t that were called p. Shade is the share of the row.

    With more than 30 classes the 30 that take part in most confusions are shown, and the caption says so.
    """
    total = len(names)
    if total > MAX_CLASSES:
        chosen = most_confused(counts, MAX_CLASSES)
        counts, names = counts[np.ix_(chosen, chosen)], [names[i] for i in chosen]
        caption = f"{caption} Of {total:,} classes, the {MAX_CLASSES} that take part in most confusions."
    side = float(np.clip(320 / max(len(names), 1), 24, 72))
    labels = [legible(name, NAME_LENGTH if len(names) <= 12 else 16) for name in names]
    margin = 40 + 7 * max((len(label) for label in labels), default=0)
    extent = max(WIDTH, round(margin + side * len(names)))
    with figure(extent, max(round(extent * 0.9), 260) if extent == WIDTH else extent) as (canvas, axes):
        _draw_cells(axes, counts)
        axes.set_xticks(range(len(names)), labels, rotation=90 if len(names) > 4 else 0)
        axes.set_yticks(range(len(names)), labels)
        axes.set(xlabel="predicted", ylabel="truth", xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5))
        axes.set_aspect("equal")
        axes.tick_params(length=0)
        axes.spines[["left", "bottom"]].set_visible(False)
        rows = [[name, *(f"{count:g}" for count in row)] for name, row in zip(names, counts, strict=True)]
        header = ("truth \\ predicted", *names)
        return finish(canvas, title=title, caption=caption, header=header, rows=rows)


def most_confused(counts: NDArray[Any], limit: int) -> list[int]:
    """The ``limit`` classes with most wrong predictions of or for them, in class order."""
    wrong = counts.sum(axis=0) + counts.sum(axis=1) - 2 * np.diagonal(counts)
    return sorted(np.argsort(-wrong, kind="stable")[:limit].tolist())


def _draw_cells(axes: Axes, counts: NDArray[Any]) -> None:
    from matplotlib.patches import Rectangle

    size = len(counts)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.add_patch(Rectangle((-0.5, -0.5), size, size, facecolor=HEAT, alpha=0.05))
    for truth, predicted in zip(*np.nonzero(counts), strict=True):
        share = float(shares[truth, predicted])
        place = (predicted - 0.48, truth - 0.48)
        axes.add_patch(Rectangle(place, 0.96, 0.96, facecolor=HEAT, alpha=heat(share)))
        text = axes.text(
            predicted,
            truth,
            _short(float(counts[truth, predicted])),
            color=ON_HEAT if share > 0.5 else INK,
            ha="center",
            va="center",
            fontsize=FONT_SIZE + 2 if size <= 8 else 10,
        )
        text.set_in_layout(False)  # it lies inside the axes, and measuring hundreds of them is slow


def heat(share: float) -> float:
    """Opacity of a cell, 0..1, for its share of the row, 0..1.

    None is between 45 % and 75 %: on these neither light nor dark figures have enough contrast.
    """
    return 0.1 + 0.7 * share if share <= 0.5 else 0.5 + 0.5 * share


def _short(count: float) -> str:
    """At most four characters: 999, 1.2k, 34k, 1.5M."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.1f}{letter}" if count < 10 * size else f"{count / size:.0f}{letter}"
    return f"{count:g}"
