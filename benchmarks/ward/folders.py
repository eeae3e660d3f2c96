"""The images of a plan as files ``side/class/row.png``, for those who look at files; and what an audit says of them."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from plans import Plan
from worlds import Side

from snellen.core.console import Console
from snellen.core.finding import Finding


def write(plan: Plan, folder: Path) -> None:
    """Both sides of a plan whose question has one class an image."""
    for name, side in (("train", plan.data.train), ("val", plan.data.val)):
        _write_side(side, plan.world.classes, folder / name)


def _write_side(side: Side, classes: tuple[str, ...], folder: Path) -> None:
    for name in classes:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for row, (image, target) in enumerate(zip(side.images, side.targets, strict=True)):
        picture(image).save(folder / classes[target] / f"{row}.png")


def picture(image: npt.NDArray[np.uint8]) -> Image.Image:
    """[3, h, w] or [1, h, w]."""
    return Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))


def audit(folder: Path) -> list[Finding]:
    """What Snellen's audit finds at its defaults."""
    import snellen

    with tempfile.TemporaryDirectory() as place:
        return list(snellen.audit(folder, out=Path(place) / "audit", console=Console(quiet=True)).findings)


def audit_of(plan: Plan) -> list[Finding]:
    if plan.world.question != "classification":
        return []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "images"
        write(plan, folder)
        return audit(folder)
