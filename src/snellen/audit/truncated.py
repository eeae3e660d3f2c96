"""Pictures whose lower part was never received: a decoder filled it with grey, and somebody saved that."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from snellen.audit.subject import MAX_IMAGES, AuditSubject, counted, listed
from snellen.core.errors import ImageError
from snellen.core.finding import Finding
from snellen.data.image import decode
from snellen.data.scan import ImageFacts

_GREY = 128  # what a JPEG without data decodes to
_NEAR = 3  # grey levels from it: saved again, it is compressed once more
_SHARE = 0.05  # of the rows
_USUAL = 0.1  # of the images: a margin that so many have is padding
_BLOCK = 8  # pixels of a JPEG's block


def truncated_images(subject: AuditSubject) -> Iterator[Finding]:
    """Pictures that end in grey, with a step in its upper edge: data ends in the middle of a row of blocks.

    A broken file that was never saved again is told by ``broken_files``. Padding is straight, and passed over.
    """
    likely = [image_id for image_id in sorted(subject.rows) if _may_end_in_grey(subject.facts[image_id])]
    if len(likely) > max(MAX_IMAGES, _USUAL * len(subject.rows)):
        return
    shares = {image_id: share for image_id in likely if (share := _lost_share(subject, image_id))}
    if not shares:
        return
    found = sorted(shares, key=lambda image_id: (-shares[image_id], image_id))
    yield Finding(
        code="truncated-images",
        severity="warning",
        message=f"{counted(len(found), 'image')} of {len(subject.rows):,} {'ends' if len(found) == 1 else 'end'} in "
        f"grey where the rest of the file was missing when it was saved, {shares[found[0]]:.0%} of {found[0]}: "
        f"{listed(found, 3)}.",
        advice="Fetch these files again from where they came, or leave them out.",
        evidence={
            "num_truncated": len(found),
            "lost_share": {image_id: round(shares[image_id], 3) for image_id in found[:MAX_IMAGES]},
        },
        images=tuple(found[:MAX_IMAGES]),
        certainty="confirmed",
        treatment={"overlay": [{"image": image_id, "action": "leave out"} for image_id in found]},
    )


def _may_end_in_grey(facts: ImageFacts) -> bool:
    grey = facts.fingerprint.grey.astype(np.int64)
    rows = max(1, int(_SHARE * len(grey)))
    return bool((np.abs(grey[-rows:] - _GREY) <= _NEAR).all() and np.ptp(grey) > 2 * _NEAR)


def _lost_share(subject: AuditSubject, image_id: str) -> float:
    """The share of rows that are grey down to the end; 0 for less than 5 %, and for a straight edge."""
    try:
        pixels = decode(subject.records[image_id].path)
    except ImageError:
        return 0.0
    is_grey: NDArray[np.bool_] = np.abs(pixels.astype(np.int16) - _GREY) <= _NEAR
    grey = np.logical_and.reduce(is_grey, axis=2)
    other = np.flatnonzero(~grey.all(axis=1))
    if not len(other):
        return 0.0
    first = int(other[-1]) + 1
    share = 1 - first / len(grey)
    if share < _SHARE or first < _BLOCK:
        return 0.0
    ends = np.logical_and.reduce(grey[first - _BLOCK : first], axis=0)  # a row of blocks breaks off there
    width = int(np.argmin(ends[::-1])) if not ends.all() else len(ends)
    return share if _BLOCK <= width < len(ends) else 0.0
