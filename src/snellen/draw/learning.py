"""A learning curve: what was measured on ever more images, and the law through it drawn on, with its band."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from snellen.draw.chart import INK, SERIES, WIDTH, Chart, figure, finish
from snellen.draw.text import legible

_TICKS = 5


def learning(
    title: str,
    caption: str,
    measured: Sequence[tuple[float, float]],
    law: Sequence[tuple[float, float, float, float]],
    *,
    y_label: str,
) -> Chart:
    """measured: (images, value), ascending. law: (images, low, value, high), which may go on beyond what was measured.

    The axis of images is logarithmic; a line marks how many there are now.
    """
    images, low, value, high = (np.array(column, float) for column in zip(*law, strict=True))
    sizes, values = (np.array(column, float) for column in zip(*measured, strict=True))
    with figure(WIDTH, 260) as (canvas, axes):
        axes.fill_between(images, low, high, color=SERIES[0], alpha=0.16, linewidth=0, label="95 % band")
        axes.plot(images, value, color=SERIES[0], linewidth=1.8, label="power law")
        axes.plot(sizes, values, color=SERIES[1], linestyle="none", marker="o", markersize=5, label="measured")
        axes.axvline(sizes[-1], color=INK, linewidth=0.9, linestyle=(0, (2, 2)), alpha=0.7)
        axes.set_xscale("log")
        places = np.unique(np.geomspace(images[0], images[-1], _TICKS).round())
        axes.set_xticks(places, [f"{place:,.0f}" for place in places])
        axes.set_xticks([], minor=True)
        axes.set(xlabel="training images", ylabel=legible(y_label, 40))
        axes.grid(axis="y")
        canvas.legend(loc="outside upper left", ncols=3, handlelength=2.0)
        rows = [(f"{n:,.0f}", f"{y:.4g}", "measured", "") for n, y in zip(sizes, values, strict=True)]
        ahead = images > sizes[-1]
        rows += [
            (f"{n:,.0f}", f"{y:.4g}", "expected", f"{least:.4g} to {most:.4g}")
            for n, least, y, most in zip(images[ahead], low[ahead], value[ahead], high[ahead], strict=True)
        ]
        header = ("training images", legible(y_label, 40), "", "95 % band")
        return finish(canvas, title=title, caption=caption, header=header, rows=rows)
