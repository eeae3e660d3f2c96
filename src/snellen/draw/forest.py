"""Values with their intervals under each other: what overlaps, and what lies clear of a reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from snellen.draw.chart import FONT_SIZE, INK, SERIES, WIDTH, Chart, figure, finish
from snellen.draw.charts import MAX_CLASSES, NAME_LENGTH
from snellen.draw.text import legible


@dataclass(frozen=True, slots=True)
class Interval:
    """One row: a value, its interval where there is one, and whether it sums up the others."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    summary: bool = False

    @property
    def told(self) -> tuple[str, str]:
        span = "none" if self.low is None or self.high is None else f"{self.low:.4g} to {self.high:.4g}"
        return f"{self.value:.4g}", span


def forest(
    title: str, caption: str, rows: Sequence[Interval], *, x_label: str, reference: float | None = None
) -> Chart:
    """One row an interval, the first on top; ``reference`` is a value that all are held against.

    Of more than 30 rows the first 30 are drawn; the table has them all.
    """
    shown = rows[:MAX_CLASSES]
    with figure(WIDTH, 80 + 24 * len(shown)) as (canvas, axes):
        if reference is not None:
            axes.axvline(reference, color=INK, linewidth=0.9, linestyle=(0, (2, 2)), alpha=0.7)
        for place, row in enumerate(shown):
            colour = SERIES[1] if row.summary else SERIES[0]
            if row.low is not None and row.high is not None:
                axes.plot((row.low, row.high), (place, place), color=colour, linewidth=1.8, solid_capstyle="butt")
                axes.plot((row.low, row.high), (place, place), color=colour, linestyle="none", marker="|", markersize=9)
            marker = "D" if row.summary else "o"
            axes.plot((row.value,), (place,), color=colour, marker=marker, markersize=7 if row.summary else 6)
        axes.set_yticks(range(len(shown)), [legible(row.name, NAME_LENGTH) for row in shown])
        axes.set(xlabel=legible(x_label, 60), ylim=(len(shown) - 0.4, -0.6))
        axes.tick_params(axis="y", length=0, labelsize=FONT_SIZE - 1)
        axes.ticklabel_format(axis="x", useOffset=False)
        axes.grid(axis="x")
        table = [(row.name, *row.told) for row in rows]
        return finish(canvas, title=title, caption=caption, header=("", x_label, "95 % interval"), rows=table)
