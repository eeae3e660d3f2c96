"""Recall against false alarms per image, on a logarithmic axis: the chart of FROC."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from snellen.draw.chart import DASHES, INK, SERIES, WIDTH, Chart, figure, finish
from snellen.draw.charts import Line, thin
from snellen.draw.text import legible

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def free_response(
    title: str, caption: str, series: Sequence[Line], points: Sequence[float], *, rates: Sequence[float]
) -> Chart:
    """Recall (``y``, 0..1) over false positives per image (``x``, rising, from 0) of each line.

    rates, points  the false positives per image at which recall is told, and the first line's recall there
    """
    low, high = rates[0] / 2, rates[-1] * 2
    rows_of_legend = (len(series) + 1) // 2 if len(series) > 3 else 1
    with figure(WIDTH, 300 + 17 * rows_of_legend) as (canvas, axes):
        for i, line in enumerate(series):
            x, y = _within(np.asarray(line.x, float), np.asarray(line.y, float), low, high)
            x, y = thin(x, y)
            dash, colour = DASHES[i % len(DASHES)], SERIES[i % len(SERIES)]
            axes.plot(x, y, color=colour, linestyle=dash, linewidth=1.8, drawstyle="steps-post", label=line.label)
        axes.plot(rates, points, color=SERIES[0], linestyle="none", marker="o", markersize=4.5)
        axes.axvline(1.0, color=INK, linewidth=0.9, linestyle=(0, (2, 3)), alpha=0.6)
        _frame(axes, rates, low, high)
        if len(series) > 1:
            canvas.legend(loc="outside upper left", ncols=2 if len(series) > 3 else len(series), handlelength=2.6)
        header = ("false alarms an image", *(line.name for line in series))
        rows = [[_fraction(rate), *(f"{_at(line, rate):.3f}" for line in series)] for rate in rates]
        return finish(canvas, title=title, caption=caption, header=header, rows=rows)


def _frame(axes: Axes, rates: Sequence[float], low: float, high: float) -> None:
    axes.set_xscale("log")
    axes.set_xticks(rates, [_fraction(rate) for rate in rates])
    axes.set_xticks([], minor=True)
    axes.set(xlabel=legible("false alarms an image", 40), ylabel="recall", xlim=(low, high), ylim=(-0.01, 1.02))
    axes.grid()


def _within(x: np.ndarray, y: np.ndarray, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """The steps inside the picture, carried on to both of its ends."""
    inside = (x > low) & (x < high)
    first = y[x <= low][-1] if (x <= low).any() else 0.0
    last = y[x < high][-1] if (x < high).any() else 0.0
    return np.array([low, *x[inside], high]), np.array([first, *y[inside], last])


def _at(line: Line, rate: float) -> float:
    """The recall that is had with at most ``rate`` false alarms."""
    reached = np.asarray(line.y, float)[np.asarray(line.x, float) <= rate + 1e-12]
    return float(reached[-1]) if len(reached) else 0.0


def _fraction(rate: float) -> str:
    """``1/8``, ``2``"""
    return f"{rate:g}" if rate >= 1 else f"1/{round(1 / rate)}"
