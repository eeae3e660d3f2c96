"""Curves over a rate that spans many powers of ten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from snellen.draw.chart import DASHES, FONT_SIZE, INK, SERIES, WIDTH, Chart, figure, finish
from snellen.draw.charts import MAX_TABLE_ROWS
from snellen.draw.text import legible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_HEADROOM = 0.15  # of the span of the smoothed losses, above and below it


def sweep_chart(
    title: str,
    caption: str,
    rates: Sequence[float],
    losses: Sequence[float],
    smoothed: Sequence[float],
    marks: Mapping[str, float],
) -> Chart:
    """Losses over learning rates on a logarithmic axis, as dots and smoothed, with the ``marks`` as upright lines.

    rates  rising and above 0, as many as losses. The height is that of the smoothed losses up to twice where they
           began: what blows up at the end leaves the picture.
    """
    with figure(WIDTH, 260) as (canvas, axes):
        axes.plot(rates, losses, ".", color=SERIES[5], markersize=3, alpha=0.6, label="each step")
        axes.plot(rates, smoothed, color=SERIES[0], linewidth=1.8, label="smoothed")
        for i, (name, rate) in enumerate(marks.items(), start=1):
            colour, dash = SERIES[i % len(SERIES)], DASHES[i % len(DASHES)]
            label = f"{legible(name, 20)}: {rate:.2g}"
            axes.axvline(rate, color=colour, linestyle=dash, linewidth=1.4, label=label)
        axes.set(xlabel="learning rate of the head", ylabel="training loss")
        if rates:
            _frame(axes, np.asarray(smoothed, float))
        axes.grid(axis="y")
        canvas.legend(loc="outside upper left", ncols=2, handlelength=2.6)
        rows = [[f"{rates[i]:.3g}", f"{losses[i]:.4g}", f"{smoothed[i]:.4g}"] for i in _chosen(len(rates))]
        return finish(canvas, title=title, caption=caption, header=("learning rate", "loss", "smoothed"), rows=rows)


def _frame(axes: Axes, smoothed: np.ndarray) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(numticks=8))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))  # no mathematics is parsed
    axes.tick_params(axis="x", labelsize=FONT_SIZE - 1)
    low, high = float(smoothed.min()), min(float(smoothed.max()), 2 * float(smoothed[0]) - float(smoothed.min()))
    room = _HEADROOM * max(high - low, 1e-3 * abs(high), 1e-9)
    axes.set_ylim(low - room, high + room)
    axes.axhline(float(smoothed[0]), color=INK, linewidth=0.8, linestyle=(0, (2, 3)), alpha=0.5)


def _chosen(num: int) -> list[int]:
    indices: list[int] = np.unique(np.linspace(0, num - 1, min(num, MAX_TABLE_ROWS)).round().astype(int)).tolist()
    return indices
