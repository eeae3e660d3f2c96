"""Values between 0 and 1 by name, a dot for each of two or three kinds, joined by a thin line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from snellen.draw.chart import FONT_SIZE, INK, SERIES, WIDTH, Chart, figure, finish
from snellen.draw.charts import MAX_CLASSES, MAX_TABLE_ROWS, NAME_LENGTH
from snellen.draw.text import legible

_MARKERS = ("o", "D", "s")


def dots(
    title: str, caption: str, values: Mapping[str, Mapping[str, float]], *, x_label: str, about: str = ""
) -> Chart:
    """``values[kind][name]``, 0..1, in the order of the names of the first kind; NaN is not drawn.

    about  heads the column of names in the table. The first 30 names are drawn, the table has 100.
    """
    names = list(next(iter(values.values()), {}))
    shown = names[:MAX_CLASSES]
    with figure(WIDTH, 84 + 22 * len(shown)) as (canvas, axes):
        places = np.arange(len(shown))
        table = np.array([[each.get(name, np.nan) for name in shown] for each in values.values()]).reshape(
            -1, len(shown)
        )
        for place in places[np.isfinite(table).sum(axis=0) > 1]:
            column = table[:, place][np.isfinite(table[:, place])]
            axes.plot((column.min(), column.max()), (place, place), color=INK, linewidth=1.2, alpha=0.25)
        for i, (kind, row) in enumerate(zip(values, table, strict=True)):
            style: dict[str, Any] = {"color": SERIES[i], "marker": _MARKERS[i % len(_MARKERS)], "markersize": 6 - i % 2}
            axes.plot(row, places, linestyle="none", label=legible(kind, NAME_LENGTH), **style)
        axes.set_yticks(places, [legible(name, NAME_LENGTH) for name in shown])
        axes.set(xlabel=legible(x_label, 60), xlim=(-0.02, 1.02), ylim=(len(shown) - 0.4, -0.6))
        axes.tick_params(axis="y", length=0, labelsize=FONT_SIZE - 1)
        axes.grid(axis="x")
        if len(values) > 1:
            canvas.legend(loc="outside upper left", ncols=len(values), handlelength=1.2)
        rows = [[name, *(_told(each.get(name, np.nan)) for each in values.values())] for name in names[:MAX_TABLE_ROWS]]
        return finish(canvas, title=title, caption=caption, header=(about, *values), rows=rows)


def _told(value: float) -> str:
    return f"{value:.3f}" if np.isfinite(value) else "–"
