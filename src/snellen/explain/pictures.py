"""An explanation and what it is drawn from."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from snellen.core.estimate import amount
from snellen.explain.explanation import Explanation
from snellen.explain.scene import Scene
from snellen.tasks.base import Task

if TYPE_CHECKING:
    from PIL import Image


def drawing(explanation: Explanation, scene: Scene, task: Task[Any], answer: Any) -> Explanation:
    """``explanation`` with its picture, which is drawn when it is looked at.

    answer  what the task says of the image: shown on it where it is about places
    """

    def draw() -> Image.Image:
        from snellen.draw.heat import draw_heat

        assert explanation.heat is not None
        photograph = task.draw(scene.pixels, answer) if task.dense else scene.pixels
        lines = [f"{explanation.caption}, {explanation.how}"]
        if explanation.deletion is not None:
            lines.append(str(explanation.deletion))
        return draw_heat(
            scene.pixels,
            explanation.heat,
            photograph=photograph,
            seen=scene.seen,
            lines=lines,
            hottest=_key(explanation),
        )

    return replace(explanation, _draw=draw)


def _key(explanation: Explanation) -> str:
    """What the hottest colour stands for."""
    if explanation.peak is None:
        return "what the answer hangs on most"
    verb, unit = ("moves", "") if explanation.scale == "number" else ("falls", explanation.scale.replace("share", ""))
    return f"{verb} by {amount(explanation.peak, 2)} {unit}".strip()
