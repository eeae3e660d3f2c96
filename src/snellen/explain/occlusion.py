"""How far the answer falls while a patch hides one place after another (Zeiler and Fergus 2014, arXiv:1311.2901).

Nothing but answers is asked of the model, so that whatever answers can be explained: exported models as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from snellen.core.errors import ConfigError
from snellen.core.geometry import Size
from snellen.core.sample import Frame
from snellen.explain.asked import Asked
from snellen.explain.deletion import deletion_of
from snellen.explain.explanation import Explanation
from snellen.explain.pictures import drawing
from snellen.explain.scene import Fill, Pixels, Scene, scaled, seen_region
from snellen.explain.trials import Trials
from snellen.predict.answering import Answering

_PATCH = 5  # the patch is so small a part of the short side of what the model sees
_MOST_PLACES = 20_000  # of the patch in one image: hours even for a small network


@dataclass(frozen=True, slots=True)
class Patch:
    """A square that hides a part of the image.

    side, stride  pixels of the image on disk; None: a fifth of the short side of what the model sees, and half of the
                  patch
    fill          'blur' or 'grey': see ``scene.stand_in``
    """

    side: int | None = None
    stride: int | None = None
    fill: Fill = "blur"

    def __post_init__(self) -> None:
        for name, pixels in (("patch", self.side), ("stride", self.stride)):
            if pixels is not None and pixels < 1:
                raise ConfigError(f"{name} = {pixels} is no size: give pixels of the image, at least 1")
        if self.side is not None and self.stride is not None and self.stride > self.side:
            raise ConfigError(
                f"stride = {self.stride} is larger than the patch of {self.side} pixels, so that parts of the image "
                "would never be hidden: give a smaller one"
            )


def num_places(frame: Frame, patch: Patch) -> int:
    """How many answers a map costs beside its check."""
    width, height = _seen_on_disk(frame)
    side, stride = _sides(patch, (width, height))
    return len(_starts(width, side, stride)) * len(_starts(height, side, stride))


def occlusion_of(
    answering: Answering,
    pixels: Pixels,
    *,
    size: Size | None = None,
    of: str | None = None,
    patch: Patch | None = None,
    check: bool = True,
    only_first: bool = False,
    path: str = "",
) -> list[Explanation]:
    """A map for what the model says of one image, or of ``of``; several where it says several things.

    pixels      uint8 [H, W, 3], upright
    size        (width, height) of the image on disk, where it was decoded at a reduced scale
    check       whether the map is checked by removing what is hot (30 more answers, for each map)
    only_first  of several things that the model says, only of the one with the highest score; of numbers, of the first

    Raises ConfigError for an unknown class or a bad patch, DataError where the model finds none of the class here.
    """
    size = size or (pixels.shape[1], pixels.shape[0])
    patch = patch or Patch()
    scene = Scene.of(pixels, size, answering.preprocessing)
    places = num_places(scene.frame, patch)
    if places > _MOST_PLACES:
        raise ConfigError(f"{places:,} places of the patch in one image would take hours: give a larger stride")
    trials = Trials(answering, pixels, size, fill=patch.fill)
    asked = trials.asked(of)
    if only_first:
        asked = [max(asked, key=lambda each: 0.0 if each.either_way else trials.score(each))]
    [whole] = answering.decide([answering.prepare(pixels, size)])
    made = []
    for each, change in zip(asked, _changes(trials, asked, scene, patch), strict=True):
        before = trials.score(each)
        heat, peak = scaled(_at_size(change, scene), each.least_change(before))
        explanation = Explanation(
            path=path,
            how="occlusion",
            of=each.name,
            score=before,
            heat=heat,
            size=size,
            seen=scene.seen,
            peak=peak,
            scale=each.scale,
            deletion=deletion_of(trials, heat, each) if check else None,
        )
        made.append(drawing(explanation, scene, answering.task, whole))
    return made


def _changes(trials: Trials, asked: Sequence[Asked], scene: Scene, patch: Patch) -> NDArray[np.float64]:
    """For each that is asked, [h, w] of the trials: the mean change over the patches that hide a pixel."""
    x0, y0, x1, y1 = trials.seen
    on_disk = _seen_on_disk(scene.frame)
    side, stride = _sides(patch, on_disk)
    squares = list(product(_starts(on_disk[1], side, stride), _starts(on_disk[0], side, stride)))
    scale = (x1 - x0) / on_disk[0], (y1 - y0) / on_disk[1]

    def hidden(place: tuple[int, int]) -> tuple[slice, slice]:
        top, left = place
        edges = [
            (y0 + round(top * scale[1]), y0 + round((top + side) * scale[1])),
            (x0 + round(left * scale[0]), x0 + round((left + side) * scale[0])),
        ]
        limits = ((y0, y1), (x0, x1))
        rows, columns = (
            slice(max(low, start), min(high, max(stop, start + 1)))
            for (start, stop), (low, high) in zip(edges, limits, strict=True)
        )
        return rows, columns

    def copies() -> Iterator[Pixels]:
        for place in squares:
            copy = trials.pixels.copy()
            copy[hidden(place)] = trials.stand_in[hidden(place)]
            yield copy

    fallen = [
        [each.change(trials.score(each), score) for each, score in zip(asked, row, strict=True)]
        for row in trials.scores(copies(), asked)
    ]
    sums = np.zeros((len(asked), *trials.pixels.shape[:2]))
    counts = np.zeros(trials.pixels.shape[:2])
    for place, change in zip(squares, fallen, strict=True):
        rows, columns = hidden(place)
        sums[:, rows, columns] += np.array(change)[:, None, None]
        counts[rows, columns] += 1
    return sums / np.maximum(counts, 1)


def _at_size(change: NDArray[np.float64], scene: Scene) -> NDArray[np.floating]:
    found = Image.fromarray(change.astype(np.float32))
    return np.asarray(found.resize((scene.shape[1], scene.shape[0]), Image.Resampling.BILINEAR))


def _seen_on_disk(frame: Frame) -> Size:
    """Width and height of what the model sees, in pixels of the image on disk."""
    x0, y0, x1, y1 = seen_region(frame, frame.size)
    return x1 - x0, y1 - y0


def _sides(patch: Patch, seen: Size) -> tuple[int, int]:
    side = patch.side or max(1, round(min(seen) / _PATCH), patch.stride or 1)
    return side, patch.stride or max(1, side // 2)


def _starts(length: int, side: int, stride: int) -> range:
    """The first places hang over the edge, so that what lies there is hidden as often as what lies in the middle."""
    return range(stride - side, length, stride)
