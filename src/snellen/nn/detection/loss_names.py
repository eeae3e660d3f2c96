"""The losses of the dense detector by name, without torch: one for the scores, one for the boxes, as "focal+ciou"."""

from __future__ import annotations

from snellen.core.errors import ConfigError, did_you_mean

SCORES = ("quality-focal", "varifocal", "focal")
BOXES = ("giou", "iou", "diou", "ciou", "l1", "smooth-l1")
USUAL_LOSS = f"{SCORES[0]}+{BOXES[0]}"


def chosen_losses(text: str) -> dict[str, str]:
    """``focal+ciou``, or one of the two, beside which the usual other one stands -> arguments of ``DenseDetector``.

    Raises ConfigError for a name that is none of SCORES or BOXES, and for two of a kind.
    """
    chosen: dict[str, str] = {}
    for name in (part.strip() for part in text.split("+")):
        kind = "score_loss" if name in SCORES else "box_loss"
        if name not in (*SCORES, *BOXES):
            known = did_you_mean(name, (*SCORES, *BOXES))
            raise ConfigError(f"loss = '{text}': a detector has no loss '{name}'{known}")
        if kind in chosen:
            raise ConfigError(
                f"loss = '{text}' names two losses for the same: give one of {', '.join(SCORES)} and one of "
                f"{', '.join(BOXES)}, as in '{USUAL_LOSS}'"
            )
        chosen[kind] = name
    return {"score_loss": SCORES[0], "box_loss": BOXES[0], **chosen}
