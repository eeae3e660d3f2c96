"""Charts and panels are laid out once, and charts as matplotlib does it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from snellen.draw import chart
from snellen.draw.charts import heatmap, histogram
from snellen.draw.panels import panels


def test_a_chart_is_drawn_once_and_to_the_byte_as_when_saving_lays_it_out(monkeypatch: pytest.MonkeyPatch) -> None:
    drawings, draw = [], Figure.draw
    monkeypatch.setattr(Figure, "draw", lambda *given: (drawings.append(1), draw(*given)))

    def charts() -> list[Any]:
        counts = np.array([[5, 1], [0, 9]])
        return [
            heatmap("a", "b", counts, ["a name that is long", "bees"]),
            histogram("a", "b", [1, 2], [0, 1, 2], x_label="x"),
        ]

    ours = charts()
    assert len(drawings) == 2
    monkeypatch.setattr(chart, "lay_out", lambda canvas: None)
    assert charts() == ours
    assert len(drawings) == 6


def test_panels_are_drawn_once_and_nothing_of_them_lies_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawings, draw = [], Figure.draw
    monkeypatch.setattr(Figure, "draw", lambda *given: (drawings.append(1), draw(*given)))
    with panels(tmp_path / "a.png", "what there is to see", columns=2) as (left, right):
        for axes in (left, right):
            axes.set(ylabel="a long name of an axis", xlabel="steps", ylim=(0, 1e6))
    assert len(drawings) == 1
    width = left.figure.bbox.width
    lefts, rights = (axes.get_tightbbox() for axes in (left, right))
    assert 0 <= lefts.x0 < lefts.x1 <= rights.x0 < rights.x1 <= width
