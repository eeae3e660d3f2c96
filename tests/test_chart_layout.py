"""A chart is laid out once, and as matplotlib does it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from snellen.draw import chart
from snellen.draw.charts import heatmap, histogram


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
    monkeypatch.setattr(chart, "_lay_out", lambda canvas: None)
    assert charts() == ours
    assert len(drawings) == 6
