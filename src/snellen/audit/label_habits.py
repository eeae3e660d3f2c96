"""What is said where training calls one class another and the other side does not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from snellen.audit.other_side import Habit, OtherSide
from snellen.audit.subject import MAX_IMAGES, listed
from snellen.core.finding import Finding

_MUCH = 0.3  # of the images that are called so


def called_otherwise(other: OtherSide, habits: Sequence[Habit]) -> Finding:
    """habits: at least one, of any order."""
    seen, side = other.seen, other.side
    habits = sorted(habits, key=lambda each: each.count_side / each.num_side - each.count / each.num)
    told = [
        f"{each.count} of {each.num:,} images called {seen.classes[each.called]} look like what {side} calls "
        f"{seen.classes[each.looks_like]}, on {side} itself {each.count_side} of {each.num_side:,}"
        for each in habits
    ]
    rows = np.concatenate(
        [
            np.flatnonzero(seen.on("train") & (seen.codes == each.called) & (other.by_side == each.looks_like))
            for each in habits
        ]
    )
    return Finding(
        code="classes-confused",
        severity="serious" if any(each.count >= _MUCH * each.num for each in habits) else "warning",
        certainty="confirmed",
        message=f"Training and {side} do not call the same things the same: {listed(told, 2)}.",
        advice="Ask who labelled these what the difference is: a rule that two people read differently, or a class "
        "that was merged or renamed, is corrected as a whole.",
        evidence={
            "side": side,
            "pairs": [
                {
                    "looks_like": seen.classes[each.looks_like],
                    "called": seen.classes[each.called],
                    "count": each.count,
                    "num": each.num,
                    "count_on_side": each.count_side,
                    "num_on_side": each.num_side,
                    "p": each.p,
                }
                for each in habits
            ],
        },
        images=tuple(seen.ids[i] for i in rows[:MAX_IMAGES].tolist()),
        treatment={
            "overlay": [
                {"image": seen.ids[i], "action": "relabel", "value": seen.classes[int(other.by_side[i])]}
                for i in rows.tolist()
            ]
        },
    )
