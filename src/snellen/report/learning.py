"""The part about more data: whether twice or four times the images would make the model better."""

from __future__ import annotations

import json

from snellen.core.errors import RunError
from snellen.core.estimate import is_share
from snellen.draw.chart import Chart
from snellen.draw.learning import learning
from snellen.report.source import Source
from snellen.report.wording import metric_name


def learning_charts(source: Source) -> list[Chart]:
    """The learning curve of the run; none where it was not measured. Raises RunError when the file is damaged."""
    path = source.folder / "learning_curve.json"
    if not path.is_file():
        return []
    try:
        curve = json.loads(path.read_text(encoding="utf-8"))
        law, metric = curve["law"], str(curve["metric"])
        unit = 100.0 if is_share(metric) else 1.0
        measured = [(n, unit * value) for n, value in zip(curve["sizes"], curve["values"], strict=True)]
        drawn = [
            (n, unit * low, unit * (law["limit"] - law["b"] * n ** -law["c"]), unit * high)
            for n, low, high in zip(curve["drawn"], curve["low"], curve["high"], strict=True)
        ]
        caption = (
            f"{curve['sentence']} Measured on {curve['judged_on']:,} validation images; what is learnt from is a "
            "linear model on frozen features, so a network that is trained may gain more."
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} is damaged: {error!r}") from None
    label = metric_name(metric).lower() + (" in %" if is_share(metric) else "")
    return [learning("Would more images help?", caption, measured, drawn, y_label=label)]
