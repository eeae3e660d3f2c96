"""Do the borders between classes lie on the edges of the images, or would they if masks were mirrored, turned, moved?

As boxes in ``places``: the gradient across a mask's borders is held against that across the same borders moved a few
pixels away, so that textures draw nothing (0 is chance); each image votes for the mask as it is or as it would be
otherwise, and the exact sign test counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from snellen.audit.dense_readings import mask_trials
from snellen.audit.edges import Floats, colour_steps
from snellen.audit.small_images import LONG_SIDE
from snellen.audit.subject import AuditSubject, counted
from snellen.audit.trials import best_trial, trial
from snellen.core.errors import ImageError
from snellen.core.finding import Finding
from snellen.core.thresholds import alpha
from snellen.data.image import Pixels
from snellen.data.mask_files import VOID, read_mask

Places = NDArray[np.intp]

_AROUND = 7  # pixels of the small image: so far away are the borders that a mask's are held against
_STEPS = (2, 4, 8)  # pixels that a mask may be moved by; less is within what hands do
_FEWEST, _MOST = 30, 1_000  # steps across and down a border that are looked at: fewer tell nothing
_DIRECTIONS = tuple((x, y) for y in (-1, 0, 1) for x in (-1, 0, 1) if x or y)


@dataclass(frozen=True, slots=True)
class _Change:
    """words: the borders fit better when the masks are {words}"""

    name: str
    words: str
    turn: Callable[[Pixels], Pixels] = lambda mask: mask
    across: int = 0
    down: int = 0

    @property
    def is_step(self) -> bool:
        return bool(self.across or self.down)


_TURNED = (
    _Change("mirrored", "mirrored left to right", lambda mask: mask[:, ::-1]),
    _Change("upside-down", "turned upside down", lambda mask: mask[::-1]),
    _Change("half-turn", "turned by 180 degrees", lambda mask: mask[::-1, ::-1]),
    _Change("transposed", "transposed", lambda mask: mask.T),
    _Change("quarter-left", "turned by 90 degrees to the left", lambda mask: np.rot90(mask, 1)),
    _Change("quarter-right", "turned by 90 degrees to the right", lambda mask: np.rot90(mask, 3)),
    _Change("anti-transposed", "turned and mirrored", lambda mask: np.rot90(mask, 2).T),
)


def _moved(across: int, down: int, step: int) -> _Change:
    where = [f"{step} pixels to the {'right' if across > 0 else 'left'}"] * (across != 0)
    where += [f"{step} pixels {'down' if down > 0 else 'up'}"] * (down != 0)
    return _Change(
        f"moved{across * step:+d}{down * step:+d}",
        f"moved {' and '.join(where)} in images of {LONG_SIDE} at most",
        across=across * step,
        down=down * step,
    )


_STEPPED = tuple(_moved(across, down, step) for step in _STEPS for across, down in _DIRECTIONS)
_CHANGES = (*_TURNED, *_STEPPED)


def masks_off_edges(subject: AuditSubject) -> Iterator[Finding]:
    """Masks whose borders fit the edges of the images much better mirrored, turned or moved."""
    names, units, scores = [], [], []
    for image_id, pixels in subject.small_images.items():
        record = subject.records[image_id]
        if record.mask is None:
            continue
        try:
            mask = _resized(read_mask(record.mask), pixels.shape[:2])
        except ImageError:
            continue
        names.append(image_id)
        units.append(subject.unit_of(image_id))
        scores.append(_scores(pixels, mask))
    if not names:
        yield from _unpredicted(subject)
        return
    table = np.array(scores)
    places = np.unique(units, return_inverse=True)[1]
    trials = [
        trial(change.name, change.words, names, places, (table[:, :1], table[:, [i]]), by_little=change.is_step)
        for i, change in enumerate(_CHANGES, start=1)
    ]
    best = best_trial(trials, alpha("masks-off-edges", len(_CHANGES) + len(_TURNED)))
    if best is None:
        yield from _unpredicted(subject)
    else:
        yield Finding(
            code="masks-off-edges",
            severity="serious",
            message=f"In {best.won:,} of {counted(best.total, 'image')} the borders of the classes fit the edges "
            f"better when the masks are {best.words}: they score {best.better:.2f} instead of {best.stated:.2f}, where "
            "0 is chance.",
            advice="Look at the masks drawn on these images; then save masks that were treated as the images were.",
            evidence={**best.evidence(), "experiment": "edges", "long_side": LONG_SIDE},
            images=best.images,
            certainty="confirmed",
        )


def _unpredicted(subject: AuditSubject) -> Iterator[Finding]:
    """What edges do not show: masks that can be predicted from the images much better if they are turned."""
    changes = [(change.name, change.words, change.turn) for change in _TURNED]
    best = best_trial(mask_trials(subject, changes), alpha("masks-off-edges", len(_CHANGES) + len(_TURNED)))
    if best is not None:
        yield Finding(
            code="masks-off-edges",
            severity="serious",
            message=f"In {best.won:,} of {counted(best.total, 'image')} a model of the other images predicts the mask "
            f"better when masks are {best.words}: {best.better:.0%} of the variance instead of {best.stated:.0%}.",
            advice="Look at the masks drawn on these images; then save masks that were treated as the images were.",
            evidence={**best.evidence(), "experiment": "predicted"},
            images=best.images,
            certainty="confirmed",
        )


def _resized(mask: Pixels, shape: tuple[int, ...]) -> Pixels:
    """The nearest value for each pixel of an image of ``shape`` (height, width)."""
    rows, columns = (
        np.minimum(((np.arange(new) + 0.5) * old / new).astype(np.intp), old - 1)
        for new, old in zip(shape, mask.shape, strict=True)
    )
    return np.asarray(mask[rows][:, columns])


def _scores(pixels: Pixels, mask: Pixels) -> list[float]:
    """Of the mask as it is, then by each change; NaN where it has too little of a border."""
    across, down = colour_steps(pixels)
    steps = _wide(across), _wide(down)
    as_it_is = _gradients(steps, mask, [(0, 0), *((c.across, c.down) for c in _STEPPED)])
    turned = [_gradients(steps, _resized(change.turn(mask), pixels.shape[:2]), [(0, 0)])[0] for change in _TURNED]
    return [as_it_is[0], *turned, *as_it_is[1:]]


def _wide(steps: Floats) -> Floats:
    """The mean of 3 x 3: borders drawn a pixel too far in or out, as sharp pictures would show, are right."""
    padded = np.pad(steps, 1, mode="edge")
    across = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    return np.asarray((across[:-2] + across[1:-1] + across[2:]) / 9)


def _gradients(steps: tuple[Floats, Floats], mask: Pixels, moves: Sequence[tuple[int, int]]) -> list[float]:
    """For each move of a mask's borders: the gradient across them against that around them, -1 to 1; NaN for few."""
    offsets = np.array([(x + _AROUND * i, y + _AROUND * j) for x, y in moves for i, j in ((0, 0), *_DIRECTIONS)])
    reach = int(np.abs(offsets).max())
    total, count = np.zeros(len(offsets)), np.zeros(len(offsets))
    for values, (rows, columns) in zip(steps, _borders(mask), strict=True):
        wide = np.pad(values, reach, constant_values=np.nan)
        places = (rows + reach) * wide.shape[1] + columns + reach
        found = wide.ravel()[places + (offsets[:, 1] * wide.shape[1] + offsets[:, 0])[:, None]]
        known = np.isfinite(found)
        total += np.where(known, found, 0.0).sum(axis=1)
        count += known.sum(axis=1)
    means = np.divide(total, count, out=np.full(len(offsets), np.nan), where=count >= _FEWEST)
    here, *around = means.reshape(len(moves), -1).T
    away = np.mean(around, axis=0)
    scores = np.divide(here - away, here + away, out=np.full(len(moves), np.nan), where=here + away > 0)
    return [float(score) for score in scores]


def _borders(mask: Pixels) -> tuple[tuple[Places, Places], tuple[Places, Places]]:
    """Where two classes meet: (rows, columns) of the steps to the right, and of those down; void counts for none."""
    known = mask != VOID
    right = (mask[:, 1:] != mask[:, :-1]) & known[:, 1:] & known[:, :-1]
    down = (mask[1:] != mask[:-1]) & known[1:] & known[:-1]
    return _some(right), _some(down)


def _some(places: NDArray[np.bool_]) -> tuple[Places, Places]:
    rows, columns = np.nonzero(places)
    every = -(-len(rows) // _MOST) or 1
    return rows[::every], columns[::every]
