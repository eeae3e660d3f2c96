"""Charts of numbers: one against another, and how each split is spread over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snellen.core.estimate import amount
from snellen.draw.chart import DASHES, INK, SERIES, WIDTH, Chart, figure, finish
from snellen.draw.text import legible

MAX_POINTS = 1000  # more make the page heavy and the cloud no clearer
MAX_MARKED = 5
MAX_TABLE_ROWS = 50

Floats = NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """x and y float [n] and what they are; far [n] is how much each point is worth looking at."""

    x: Floats
    y: Floats
    far: Floats
    x_label: str
    y_label: str


def scatter(title: str, caption: str, points: Points, *, diagonal: bool) -> Chart:
    """A dot for each point, the five with the largest ``far`` ringed; the table behind it has the fifty largest. Of
    more than 1,000 points the farthest are drawn and of the others every so many.

    diagonal  both axes say the same, share their limits, and are the same on the dotted line; else it is where y is 0
    """
    x, y, far = points.x, points.y, points.far
    order = np.argsort(-far, kind="stable")
    if len(order) > MAX_POINTS:
        rest = order[MAX_POINTS // 10 :]
        places = np.linspace(0, len(rest) - 1, MAX_POINTS - MAX_POINTS // 10).round().astype(int)
        order = np.concatenate([order[: MAX_POINTS // 10], rest[places]])
    rows = [[amount(float(x[i])), amount(float(y[i]))] for i in order[:MAX_TABLE_ROWS]]
    with figure(WIDTH, 360 if diagonal else 240) as (canvas, axes):
        faint: dict[str, Any] = {"color": INK, "linewidth": 0.9, "linestyle": (0, (2, 3)), "alpha": 0.6}
        if diagonal:
            low, high = _limits(np.concatenate([x, y]))
            axes.plot((low, high), (low, high), **faint)
            axes.set(xlim=(low, high), ylim=(low, high))
            axes.set_aspect("equal")
        else:
            axes.axhline(0.0, **faint)
        size = 18 if len(order) <= 200 else 8
        axes.scatter(x[order], y[order], s=size, color=SERIES[0], alpha=0.6, linewidths=0)
        ringed = order[:MAX_MARKED]
        axes.scatter(x[ringed], y[ringed], s=60, facecolors="none", edgecolors=SERIES[1], linewidths=1.2)
        axes.set(xlabel=legible(points.x_label, 40), ylabel=legible(points.y_label, 40))
        _plain_numbers(axes)
        axes.grid()
        return finish(canvas, title=title, caption=caption, header=(points.x_label, points.y_label), rows=rows)


def shares(
    title: str, caption: str, counts: Mapping[str, Sequence[float]], edges: Sequence[float], *, x_label: str
) -> Chart:
    """What share of each part's images lies between ``edges[i]`` and ``edges[i + 1]``, as steps, a line a part.

    Shares, not counts: so that a small split can be held against a large one.
    """
    with figure(WIDTH, 240) as (canvas, axes):
        for i, (name, numbers) in enumerate(counts.items()):
            share = 100 * np.asarray(numbers, float) / max(1.0, float(np.sum(numbers)))
            label = f"{legible(name, 24)} ({int(np.sum(numbers)):,})"
            dash, colour = DASHES[i % len(DASHES)], SERIES[i % len(SERIES)]
            axes.stairs(share, np.asarray(edges, float), label=label, color=colour, linestyle=dash, linewidth=1.8)
        axes.set(xlabel=legible(x_label, 40), ylabel="images in %")
        _plain_numbers(axes)
        axes.grid(axis="y")
        if len(counts) > 1:
            canvas.legend(loc="outside upper left", ncols=len(counts), handlelength=2.6)
        rows = [
            [f"{low:.4g} to {high:.4g}", *(f"{numbers[i]:g}" for numbers in counts.values())]
            for i, (low, high) in enumerate(pairwise(edges))
        ]
        return finish(canvas, title=title, caption=caption, header=(x_label, *counts), rows=rows)


def _plain_numbers(axes: Any) -> None:
    """Few marks, and plain text for them: no mathematics is parsed."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=6))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.10g}"))


def _limits(values: Floats) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    margin = 0.04 * (high - low) or max(1.0, abs(low)) * 0.04
    return low - margin, high + margin
