"""Does augmentation leave images the class that they have?"""

from __future__ import annotations

from collections.abc import Iterator

from scipy.special import bdtr

from snellen.core.finding import Finding
from snellen.core.thresholds import alpha
from snellen.doctor.case import Case
from snellen.doctor.experiments.measure import measurements

_KNOWN = 0.9  # recall of a class among plain images: the model knows it
_HALF = 0.5  # recall among augmented images that is shown not to be reached


def augmentation_changes_classes(case: Case) -> Iterator[Finding]:
    """A class that the model knows in plain training images is mostly missed in augmented ones, by an exact binomial
    test; the model is in evaluation mode for both.

    A signal: augmentation may also be only very strong. Training again without it tells the two apart.
    """
    seen = measurements(case, "classification")
    plain = None if seen is None else seen.side("plain")
    augmented = None if seen is None or plain is None else seen.side("train")
    if plain is None or augmented is None:
        return
    num = plain.outputs.shape[1]
    lost: dict[str, tuple[float, float]] = {}
    for label in range(num):
        before = plain.scores.values[plain.labels == label]
        after = augmented.scores.values[augmented.labels == label]
        if not len(before) or not len(after) or before.mean() < _KNOWN:
            continue
        if bdtr(int(after.sum()), len(after), _HALF) < alpha("augmentation-changes-classes", num):
            lost[_named(case, label)] = float(before.mean()), float(after.mean())
    if not lost:
        return
    worst = min(lost, key=lambda name: lost[name][1])
    yield Finding(
        code="augmentation-changes-classes",
        severity="warning",
        message=f"The model names {lost[worst][0]:.0%} of the training images of {worst} rightly as they are and "
        f"{lost[worst][1]:.0%} once they are augmented ({len(lost)} of {num} classes are lost like this).",
        advice="Look at augmented images: would you still give them their class? Leave out turns, mirrors or crops "
        "that make one class of another.",
        evidence={"recall_plain_and_augmented": {name: list(recalls) for name, recalls in lost.items()}},
        certainty="observed",
        treatment={"change": "plain images"},
    )


def _named(case: Case, label: int) -> str:
    classes = case.classes or (() if case.training is None else case.training.classes)
    return classes[label] if label < len(classes) else f"class {label}"
