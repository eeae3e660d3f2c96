"""Two measures of the same things as bars beside each other, where one scale cannot serve both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from snellen.draw.chart import FONT_SIZE, SERIES, WIDTH, Chart, figure, finish
from snellen.draw.charts import NAME_LENGTH
from snellen.draw.text import legible


@dataclass(frozen=True, slots=True)
class Twin:
    """A thing with both of its lengths; ``meaning`` stands in the table."""

    name: str
    left: float
    right: float
    meaning: str = ""


def twin_bars(title: str, caption: str, rows: Sequence[Twin], *, labels: tuple[str, str], about: str = "") -> Chart:
    """A row of two bars for each: whole numbers on the left, values of three digits on the right (not below 0 drawn).

    labels  what each side measures; about heads the column of names in the table
    """
    with figure(WIDTH, 74 + 22 * len(rows)) as (canvas, axes):
        axes.remove()
        places = np.arange(len(rows))
        panels = canvas.subplots(1, 2, sharey=True)
        for i, (panel, label) in enumerate(zip(panels, labels, strict=True)):
            lengths = np.array([(row.left, row.right)[i] for row in rows], float)
            panel.barh(places, np.maximum(lengths, 0), 0.66, color=SERIES[i])
            for place, length in zip(places.tolist(), lengths.tolist(), strict=True):
                at = (max(length, 0), place)
                text = panel.annotate(_told(length, i), at, (4, 0), textcoords="offset points", va="center")
                text.set(fontsize=FONT_SIZE - 1, in_layout=False)
            most = float(lengths.max(initial=0.0)) or 1.0
            panel.set(xlabel=legible(label, 40), xlim=(0, most * 1.4), ylim=(len(rows) - 0.4, -0.6), xticks=())
            panel.tick_params(axis="y", length=0)
            panel.spines["bottom"].set_visible(False)
        panels[0].set_yticks(places, [legible(row.name, NAME_LENGTH) for row in rows])
        table = [(row.name, _told(row.left, 0), _told(row.right, 1), row.meaning) for row in rows]
        header = (about, *labels, "what it means")
        return finish(canvas, title=title, caption=caption, header=header, rows=table)


def _told(value: float, side: int) -> str:
    return f"{value:.3f}" if side else f"{value:,.0f}"
