"""Places outside of all boxes that look as what is boxed does, to a model that has not seen the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from snellen.audit.dense import Floats, HeldOutPlaces
from snellen.audit.dense_targets import Shares, covered
from snellen.audit.regions import empty_regions
from snellen.core.seeds import keyed_generator

_OWN = 0.5  # of a place must be covered by a box for it to be the box's, and no more of it by any other
_EMPTY = 3  # places of an image, drawn by lot, that stand for those without an object
_CLEAR = 90.0  # percent of these score less than ...
_WEAK = 0.25  # of the boxes; else the model does not know an object from its surroundings
_SIZES = (20.0, 50.0, 80.0)  # percentiles of the boxes by area, whose sizes are looked for


@dataclass(frozen=True, slots=True, eq=False)
class Overlooked:
    """What a model says of the boxes, of places without one, and of the one place in each image that it would have
    boxed first. Scores are means of what is predicted of any object in what nothing else covers, about 0 to 1.

    ids     of the images
    image   of each box, an index of ``ids``; row: its place among the boxes of the image; boxes: its score, [n]
    empty   scores of places drawn by lot, [m]
    scores  [images], and places [images, 4] in shares of the image's sides: what would have been boxed
    kinds   the class that it looks like, an index, [images]
    """

    ids: list[str]
    image: npt.NDArray[np.intp]
    row: npt.NDArray[np.intp]
    boxes: Floats
    empty: Floats
    scores: Floats
    places: Floats
    kinds: npt.NDArray[np.intp]

    @property
    def as_boxes(self) -> npt.NDArray[np.bool_]:
        """Which images have a place that scores as the better half of the boxes do, [images]."""
        return np.asarray(self.scores >= np.median(self.boxes))

    @property
    def alike(self) -> float:
        """Of the places that score no less than the weakest fifth of the boxes, the share that scores as their better
        half; of the boxes themselves it is 5/8, of what only resembles them less."""
        near = self.scores >= np.quantile(self.boxes, 0.2)
        return float(self.as_boxes.sum() / max(1, near.sum()))

    @property
    def as_empty(self) -> Floats:
        """For each box the share of empty places that score less, [n]: uniform if boxes were put anywhere."""
        return np.asarray(np.searchsorted(np.sort(self.empty), self.boxes) / len(self.empty))


def find_overlooked(
    model: HeldOutPlaces, boxes: dict[str, Floats], labels: dict[str, npt.NDArray[np.intp]], num_classes: int
) -> Overlooked | None:
    """boxes [n, 4] in shares of the image's sides and labels [n] of each image.

    None where the model does not know objects from their surroundings.
    """
    everything = np.concatenate([boxes[image_id] for image_id in model.ids])
    sizes = everything[:, 2:] - everything[:, :2]
    order = sizes.prod(1).argsort()
    looked_for = sizes[order[[int(share / 100 * (len(order) - 1)) for share in _SIZES]]]
    own: list[Floats] = []
    empty: list[float] = []
    found: list[Any] = []
    weights = model.weights(lambda image_id: _targets(model, image_id, boxes[image_id], labels[image_id], num_classes))
    for image_id, told in model.predicted(weights):
        shape = model.maps[image_id].shape
        seen = told.reshape(shape[0], shape[1], -1)
        own.append(_own(seen[..., 0], boxes[image_id]))
        free = 1 - covered(boxes[image_id], (shape[0], shape[1]))
        places = empty_regions(boxes[image_id], sizes, 2 * _EMPTY, keyed_generator("empty", image_id))[::2]
        empty.extend(_mean(seen[..., 0], free * covered(place[None], (shape[0], shape[1]))) for place in places)
        found.append(_best(seen * free[..., None], looked_for))
    scores = np.concatenate(own)
    known = np.isfinite(scores)
    if not known.any() or not empty or np.percentile(empty, _CLEAR) >= np.quantile(scores[known], _WEAK):
        return None
    return Overlooked(
        ids=list(model.ids),
        image=np.repeat(np.arange(len(own)), [len(each) for each in own])[known],
        row=np.concatenate([np.arange(len(each)) for each in own])[known],
        boxes=scores[known],
        empty=np.array(empty),
        scores=np.array([score for score, _, _ in found]),
        places=np.stack([place for _, place, _ in found]),
        kinds=np.array([kind for _, _, kind in found], np.intp),
    )


def _targets(
    model: HeldOutPlaces, image_id: str, boxes: Floats, labels: npt.NDArray[np.intp], num_classes: int
) -> Shares:
    """[places, 1 + k]: of any object, then of each class."""
    shape = model.maps[image_id].shape[:2]
    columns = [boxes, *(boxes[labels == label] for label in range(num_classes))]
    return np.stack([covered(each, (shape[0], shape[1])).ravel() for each in columns], 1)


def _own(seen: Floats, boxes: Floats) -> Floats:
    """The mean of what each box covers and no other does, [n]; NaN where that is nothing."""
    shape = (seen.shape[0], seen.shape[1])
    covers = [covered(box[None], shape) >= _OWN for box in boxes]
    alone = np.sum(covers, axis=0) == 1 if covers else np.zeros(shape, np.bool_)
    return np.array([seen[each & alone].mean() if (each & alone).any() else np.nan for each in covers], np.float64)


def _mean(seen: Floats, inside: Shares) -> float:
    return float((seen * inside).sum() / max(float(inside.sum()), 1e-9))


def _best(free: Floats, sizes: Floats) -> tuple[float, Floats, int]:
    """The place of one of ``sizes`` where most is predicted: its mean, its box, and the class."""
    rows, columns = free.shape[:2]
    sums = np.zeros((rows + 1, columns + 1, free.shape[2]))
    sums[1:, 1:] = free.cumsum(0).cumsum(1)
    best: tuple[float, Floats, int] = (-np.inf, np.zeros(4), 0)
    for width, height in sizes:
        w, h = (int(np.clip(round(side * size), 1, size)) for side, size in ((width, columns), (height, rows)))
        means = (sums[h:, w:] - sums[:-h, w:] - sums[h:, :-w] + sums[:-h, :-w]) / (w * h)
        row, column = np.unravel_index(means[..., 0].argmax(), means.shape[:2])
        score = float(means[row, column, 0])
        if score > best[0]:
            box = np.array([column / columns, row / rows, (column + w) / columns, (row + h) / rows])
            best = score, box, int(means[row, column, 1:].argmax())
    return best
