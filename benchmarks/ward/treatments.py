"""How what a finding prescribes is done to a plan: a change of the training, or of the data by an overlay."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from plans import Plan
from worlds import Data, Side

from snellen.doctor.case import Training

Change = Callable[[Training], Training]


def treated(plan: Plan, seed: int, treatment: Mapping[str, Any] | None) -> tuple[Plan, Change | None] | None:
    """(plan, change) for the next training; None for a treatment that is for something else, such as settings."""
    if treatment is None:
        return plan, None
    if "change" in treatment:
        from snellen.doctor.changes import change_of

        change = change_of(treatment)
        return None if change is None else (plan, change.apply)
    if "overlay" in treatment:
        return _overlaid(plan, treatment["overlay"]), None
    return None


def _overlaid(plan: Plan, changes: list[Mapping[str, Any]]) -> Plan:
    """Images are named ``side/class/row.png``, as ``folders.write`` wrote them."""
    sides = {"train": plan.data.train, "val": plan.data.val}
    targets = {name: side.targets.copy() for name, side in sides.items()}
    kept = {name: np.ones(len(side), bool) for name, side in sides.items()}
    moved: list[Side] = []
    for change in changes:
        name, row = place_of(str(change["image"]))
        if change["action"] == "leave out":
            kept[name][row] = False
        elif change["action"] == "relabel":
            targets[name][row] = plan.world.classes.index(str(change["value"]))
        elif change["action"] == "side" and change["value"] != name:
            kept[name][row] = False
            moved.append(sides[name].at(np.array([row])))
    new = {name: replace(side, targets=targets[name]).at(np.flatnonzero(kept[name])) for name, side in sides.items()}
    return replace(plan, data=Data(train=new["train"], val=new["val"], hidden=plan.data.hidden))


def place_of(image: str) -> tuple[str, int]:
    """The side and the row of an image by its name."""
    parts = image.replace("\\", "/").split("/")
    return parts[-3], int(parts[-1].split(".")[0].split("-")[0])
