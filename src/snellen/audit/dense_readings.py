"""Are marks where a model that has not seen the image expects them, or would they be if they meant something else?

For each reading of the marks a model is fitted on them as they would be by it, from what a frozen network sees at each
place (dense.py), and each image is held against the model of the others. Right marks can be predicted from pixels and
wrong ones cannot, so the share of the variance that is predicted tells them apart, with no edges needed. The vote is
that of the other experiments (trials.py): 0 is chance and 1 is all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np
import numpy.typing as npt

from snellen.audit.dense import Floats, HeldOutPlaces
from snellen.audit.dense_targets import Shares, class_shares, covered
from snellen.audit.readings import MISREADINGS, SHIFTS, Reading
from snellen.audit.subject import AuditSubject
from snellen.audit.trials import Trial, trial
from snellen.core.errors import ImageError
from snellen.core.record import Record
from snellen.data.image import Pixels
from snellen.data.mask_files import read_mask

MOST_IMAGES = 100  # every reading is one more model of all of them
_INSIDE = 0.9  # of the boxes lie in their images when rightly read
_SLACK = 0.02

Targets = Callable[[str], Shares]


def box_trials(subject: AuditSubject) -> list[Trial]:
    """Of each reading of boxes that leaves them in their images; none without maps of enough images."""
    places = _few(subject, lambda record: bool(record.objects) and subject.facts[record.id].orientation == 1)
    if places is None:
        return []
    fitting = [r for r in (*MISREADINGS, *SHIFTS) if _fits([subject.records[i] for i in places.ids], r)]

    def targets(image_id: str) -> Shares:
        record, shape = subject.records[image_id], places.maps[image_id].shape[:2]
        boxes, size = _boxes(record), np.array(record.size, np.float64)
        read = np.stack([boxes, *(_known(reading.move(boxes, size), boxes) for reading in fitting)])
        return covered(read / np.tile(size, 2), (shape[0], shape[1])).reshape(len(read), -1).T

    names = [(reading.name, reading.words, reading in SHIFTS) for reading in fitting]
    return _tried(subject, places, names, _explained(places, targets, len(fitting) + 1))


def mask_trials(subject: AuditSubject, changes: Sequence[tuple[str, str, Callable[[Pixels], Pixels]]]) -> list[Trial]:
    """Of each change of masks: its name, what masks are by it, and the change."""
    masks: dict[str, Pixels] = {}
    for image_id in subject.maps or {}:
        mask = subject.records[image_id].mask
        if mask is not None and len(masks) < MOST_IMAGES:
            with suppress(ImageError):
                masks[image_id] = read_mask(mask)
    places = _few(subject, lambda record: record.id in masks)
    if places is None:
        return []
    num_classes = len(subject.manifest.classes)

    def targets(image_id: str) -> Shares:
        mask, shape = masks[image_id], places.maps[image_id].shape[:2]
        turned = [mask, *(change(mask) for _, _, change in changes)]
        shares = [class_shares(each, num_classes, (shape[0], shape[1])) for each in turned]
        return np.concatenate([each.reshape(-1, num_classes) for each in shares], 1)

    names = [(name, words, False) for name, words, _ in changes]
    return _tried(subject, places, names, _explained(places, targets, len(changes) + 1))


def _few(subject: AuditSubject, asked: Callable[[Record], bool]) -> HeldOutPlaces | None:
    maps = subject.maps or {}
    ids = [image_id for image_id in maps if asked(subject.records[image_id])]
    ids = ids[:: -(-len(ids) // MOST_IMAGES) or 1]
    return HeldOutPlaces.of({image_id: maps[image_id] for image_id in ids}, subject.unit_of)


def _explained(places: HeldOutPlaces, targets: Targets, readings: int) -> Floats:
    """[images, readings]: 1 - squared error / the mean squared deviation of all images from the mean of all places."""
    weights = places.weights(targets)
    total, squares, count, errors = 0.0, 0.0, 0, []
    for image_id, told in places.predicted(weights):
        wanted = targets(image_id)
        errors.append(np.square(wanted - told).sum(0).reshape(readings, -1).sum(1))
        total, squares = total + wanted.sum(0, dtype=np.float64), squares + np.square(wanted).sum(0, dtype=np.float64)
        count += len(wanted)
    deviation = np.asarray(squares - np.square(total) / count).reshape(readings, -1).sum(1)
    return np.asarray(1 - np.array(errors) * len(errors) / np.maximum(deviation, 1e-9))


def _tried(
    subject: AuditSubject, places: HeldOutPlaces, names: Sequence[tuple[str, str, bool]], scores: Floats
) -> list[Trial]:
    units = np.unique([subject.unit_of(image_id) for image_id in places.ids], return_inverse=True)[1]
    return [
        trial(name, words, places.ids, units, (scores[:, :1], scores[:, [i]]), by_little=by_little)
        for i, (name, words, by_little) in enumerate(names, start=1)
    ]


def _boxes(record: Record) -> Floats:
    return np.array([each.box for each in record.objects or () if not each.crowd], np.float64).reshape(-1, 4)


def _known(read: Floats, stated: Floats) -> Floats:
    """What a reading cannot tell of boxes that were cut off stays as it is stated."""
    return np.where(np.isfinite(read).all(1, keepdims=True), read, stated)


def _fits(records: Sequence[Record], reading: Reading) -> bool:
    inside: list[npt.NDArray[np.bool_]] = []
    for record in records:
        size = np.array(record.size, np.float64)
        read = reading.move(_boxes(record), size)
        read, slack = read[np.isfinite(read).all(1)], _SLACK * size.max()
        inside.append(((read >= -slack) & (read <= np.tile(size, 2) + slack)).all(1))
    found = np.concatenate(inside)
    return bool(len(found) and found.mean() >= _INSIDE)
