"""Checks of masks: pixels that mean nothing, and classes that hardly have any. They look at 300 masks at most."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from snellen.audit.subject import MAX_IMAGES, AuditSubject, counted, listed
from snellen.core.finding import Finding

_MOSTLY = 0.5  # of a mask's pixels
_MUCH = 0.05  # of the masks
_RARE = 0.001  # of the pixels that are not void
_MAX_CLASSES = 20  # classes spelt out in the evidence


def void_masks(subject: AuditSubject) -> Iterator[Finding]:
    """Masks that are void for the most part: these pixels are neither learnt nor judged."""
    pixels = subject.mask_pixels
    order = np.argsort(-pixels.void, kind="stable")
    mostly = order[: np.count_nonzero(pixels.void > _MOSTLY)]
    if not len(mostly):
        return
    share, whole = len(mostly) / len(pixels.ids), int(np.count_nonzero(pixels.void == 1))
    yield Finding(
        code="void-masks",
        severity="warning" if share > _MUCH else "info",
        message=f"{counted(len(mostly), 'mask')} of {len(pixels.ids):,} looked at {'is' if len(mostly) == 1 else 'are'}"
        f" void for more than half ({whole:,} wholly), for example that of {pixels.ids[mostly[0]]}.",
        advice="See whether a value that means a class was taken for void: the option void_values says which do.",
        evidence={
            "num_void": len(mostly),
            "num_wholly_void": whole,
            "shares": {pixels.ids[i]: round(float(pixels.void[i]), 3) for i in mostly[:MAX_IMAGES]},
        },
        images=tuple(pixels.ids[i] for i in mostly[:MAX_IMAGES]),
    )


def rare_pixels(subject: AuditSubject) -> Iterator[Finding]:
    """Classes with less than a thousandth of the pixels."""
    pixels = subject.mask_pixels
    counts = pixels.counts[:, :-1].sum(axis=0)
    shares = counts / max(1, int(counts.sum()))
    rare = [i for i in np.argsort(shares, kind="stable").tolist() if 0 < shares[i] < _RARE]
    if not rare:
        return
    names = subject.manifest.classes
    told = [f"{names[i]} ({shares[i]:.2%})" for i in rare]
    yield Finding(
        code="rare-pixels",
        severity="info",
        message=f"{counted(len(rare), 'class has', 'classes have')} less than {_RARE:.1%} of the pixels: "
        f"{listed(told)}.",
        advice="Accuracy over pixels does not notice them: read the IoU of each class. A loss by overlap (dice) gives "
        "them more weight.",
        evidence={"num_classes": len(rare), "shares": {names[i]: float(shares[i]) for i in rare[:_MAX_CLASSES]}},
        images=tuple(pixels.ids[i] for i in np.flatnonzero(pixels.counts[:, rare].any(axis=1))[:MAX_IMAGES]),
    )
