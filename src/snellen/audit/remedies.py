"""What a finding may change in the data: an overlay, as ``Finding.treatment`` has it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from snellen.audit.subject import AuditSubject

_MOST = 0.5  # of the training images: what would take more is no remedy
_MOST_OF_CLASS = 0.5  # of its training images
_TIMES = 1.5  # the share that all classes lose: one that loses more is perhaps meant to be like that


def left_out_of_training(subject: AuditSubject, ids: Iterable[str], most: float = _MOST) -> dict[str, Any]:
    """The training images among ``ids`` left out; nothing where more than ``most`` of all would go, or all or far more
    than of the others of a class.

    What a model is judged by stays as it is, so that the scores before and after are of the same images.
    """
    train = [row for row in subject.manifest.rows if row.split == "train"]
    named = set(ids)
    gone = [row for row in train if row.id in named]
    share = len(gone) / max(1, len(train))
    sizes = Counter(label for row in train for label in set(row.labels))
    lost = Counter(label for row in gone for label in set(row.labels))
    shares = [count / sizes[label] for label, count in lost.items()]
    if not gone or share > most or max(shares, default=0) > max(_MOST_OF_CLASS, min(_TIMES * share, 1 - 1e-9)):
        return {}
    return {"overlay": [{"image": row.id, "action": "leave out"} for row in gone]}
