"""Do boxes lie where the image has edges, or would they if their numbers meant something else?

The boxes of each image are scored as they were read, and as each of ``MISREADINGS`` and ``SHIFTS`` would have them
(``EdgeMap.side_scores``: 0 is chance, whatever the texture). That is an experiment (trials.py), so what it finds is
confirmed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from snellen.audit.dense_readings import box_trials
from snellen.audit.edges import EdgeMap, Floats
from snellen.audit.readings import FRACTIONS, MISREADINGS, SHIFTS, Reading, turned_readings
from snellen.audit.subject import MAX_IMAGES, AuditSubject, counted
from snellen.audit.trials import Trial, best_trial, mean_over, trial
from snellen.core.finding import Finding
from snellen.core.thresholds import alpha

_INSIDE = 0.9  # of the boxes lie in their images when rightly read
_SLACK = 0.02  # of an image's side that a box may reach beyond it
_MOVED = 1.0  # pixel of the small image: sides that a reading moves by less say nothing of it
_MOST_BOXES = 50  # that are looked at in an image
_FEWEST = 20  # boxes, all of them within the first pixel: fractions
_SMALLEST = 32  # pixels of an image's shorter side, of which the first is next to nothing


def boxes_off_edges(subject: AuditSubject) -> Iterator[Finding]:
    """Boxes that fit the edges of the images much better if they are read otherwise."""
    if _are_fractions(subject):
        yield _fractions(subject)
        return
    readings = (*MISREADINGS, *SHIFTS)
    images = {image_id: readings for image_id in subject.small_images if subject.facts[image_id].orientation == 1}
    best = best_trial(_trials(subject, images), alpha("boxes-off-edges", 2 * len(readings)))
    if best is None:
        yield from _unpredicted(subject, 2 * len(readings))
    else:
        yield Finding(
            code="boxes-off-edges",
            severity="serious",
            message=f"In {best.won:,} of {counted(best.total, 'image')} the boxes fit the edges better when read as "
            f"{best.words}: they score {best.better:.2f} instead of {best.stated:.2f}, where 0 is chance.",
            advice="Look at the boxes drawn on these images; then convert them, and audit the data again.",
            evidence={**best.evidence(), "experiment": "edges"},
            images=best.images,
            certainty="confirmed",
        )


def _unpredicted(subject: AuditSubject, looks: int) -> Iterator[Finding]:
    """What edges do not show: boxes that can be predicted from the images much better if they are read otherwise."""
    best = best_trial(box_trials(subject), alpha("boxes-off-edges", looks))
    if best is not None:
        yield Finding(
            code="boxes-off-edges",
            severity="serious",
            message=f"In {best.won:,} of {counted(best.total, 'image')} a model of the other images predicts the boxes "
            f"better when read as {best.words}: {best.better:.0%} of the variance instead of {best.stated:.0%}.",
            advice="Look at the boxes drawn on these images; then convert them, and audit the data again.",
            evidence={**best.evidence(), "experiment": "predicted"},
            images=best.images,
            certainty="confirmed",
        )


def boxes_of_turned_images(subject: AuditSubject) -> Iterator[Finding]:
    """Boxes that do not follow the EXIF orientation of their images, or follow one that they should not."""
    turned = {
        image_id: turned_readings(subject.facts[image_id].orientation)
        for image_id in subject.small_images
        if subject.facts[image_id].orientation != 1
    }
    if not turned:
        return
    looks = len(next(iter(turned.values())))
    best = best_trial(_trials(subject, turned), alpha("boxes-of-turned-images", looks))
    if best is not None:
        yield Finding(
            code="boxes-of-turned-images",
            severity="serious",
            message=f"In {best.won:,} of {counted(best.total, 'image')} with an EXIF orientation the boxes fit the "
            f"edges better as {best.words}: they score {best.better:.2f} instead of {best.stated:.2f}, where 0 "
            "is chance.",
            advice="Save these images upright, without an orientation, and correct their boxes; the other images are "
            "not concerned.",
            evidence=best.evidence(),
            images=best.images,
            certainty="confirmed",
        )


def _trials(subject: AuditSubject, images: Mapping[str, Sequence[Reading]]) -> list[Trial]:
    """Each place of the readings, tried on all images; what undoes a misreading may differ between images.

    Readings that put boxes outside of their images are no readings of them.
    """
    looks = {image_id: _look(subject, image_id, readings) for image_id, readings in images.items()}
    seen = {image_id: look for image_id, look in looks.items() if look is not None}
    if not seen:
        return []
    names = list(seen)
    units = np.unique([subject.unit_of(image_id) for image_id in names], return_inverse=True)[1]
    stated, better, inside = (np.stack(each) for each in zip(*seen.values(), strict=True))
    found = []
    for i, reading in enumerate(images[names[0]]):
        if not np.nan_to_num(mean_over(inside[:, i], 0)) >= _INSIDE:
            continue
        scores = stated[:, i, list(reading.sides)], better[:, i, list(reading.sides)]
        found.append(trial(reading.name, reading.words, names, units, scores, each_gains=reading.paired))
    return found


def _look(subject: AuditSubject, image_id: str, readings: Sequence[Reading]) -> tuple[Floats, Floats, Floats] | None:
    """Scores of the boxes as stated, and of the same sides by each reading, [readings, 4] each, and the share of boxes
    that a reading leaves in the image, [readings]. None for an image without boxes."""
    record = subject.records[image_id]
    boxes = np.array([each.box for each in record.objects or () if not each.crowd], np.float64).reshape(-1, 4)
    if not len(boxes) or record.size is None:
        return None
    boxes = boxes[:: -(-len(boxes) // _MOST_BOXES)]
    small = subject.small_images[image_id]
    size = np.array(record.size, np.float64)
    scale = np.tile(np.array(small.shape[1::-1]) / size, 2)
    read = np.stack([boxes, *(reading.move(boxes, size) for reading in readings)])
    scores = EdgeMap(small).side_scores((read * scale).reshape(-1, 4)).reshape(len(read), -1, 4)
    moves = np.abs(read[1:] - read[:1]) * scale >= _MOVED
    stated = np.where(np.isfinite(scores[1:]) & moves, scores[:1], np.nan)
    better = np.where(np.isfinite(stated), scores[1:], np.nan)
    known = np.isfinite(read[1:]).all(axis=2)
    fits = ((read[1:] >= -_SLACK * size.max()) & (read[1:] <= np.tile(size, 2) + _SLACK * size.max())).all(axis=2)
    return mean_over(stated, 1), mean_over(better, 1), mean_over(np.where(known, fits, np.nan), 1)


def _are_fractions(subject: AuditSubject) -> bool:
    """Whether all boxes lie in the first pixel of large enough images: no slips of the mouse do."""
    objects = subject.objects
    if len(objects) < _FEWEST:
        return False
    return bool(objects.boxes.max() <= 1.0 and objects.sizes[objects.image].min() >= _SMALLEST)


def _fractions(subject: AuditSubject) -> Finding:
    objects = subject.objects
    return Finding(
        code="boxes-off-edges",
        severity="serious",
        message=f"All {counted(len(objects), 'box', 'boxes')} lie within the first pixel of their images: they are "
        f"{FRACTIONS.words}.",
        advice="Multiply x and width by the image's width, y and height by its height, and audit the data again.",
        evidence={"reading": FRACTIONS.name, "num_boxes": len(objects), "largest": float(objects.boxes.max())},
        images=objects.images_of(np.arange(len(objects)))[:MAX_IMAGES],
    )
