"""Test-time augmentation: a network looks at an image several times, each time moved, and its answers become one.

Each view is the placement of the image in the input, followed by a mirroring, quarter turns, another size of the input
or another crop: one matrix, so that the image is resampled once. What is found is taken back through the inverse of
that very matrix, which the ``Frame`` carries, and brought together by ``Task.decode_together``. Averaging over mirrored
images and crops: Krizhevsky, Sutskever and Hinton, NIPS 2012; over scales: Simonyan and Zisserman, arXiv:1409.1556.

It is a last resort: k views take k times as long, and gain little (``api.viewing`` measures both).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import ceil
from typing import Any

import numpy as np

from snellen.core.errors import ConfigError, did_you_mean
from snellen.core.geometry import (
    Matrix,
    Size,
    center_crop_steps,
    compose,
    hflip,
    identity,
    rot90,
    squash,
    translation,
)
from snellen.core.plan import Plan
from snellen.core.preprocessing import Preprocessing
from snellen.core.sample import Frame
from snellen.data.store import frame_of
from snellen.data.warp import warp_image
from snellen.predict.answering import NetworkAnswering, Seen
from snellen.tasks.base import Task

_CROP = 0.875  # share of each side that a corner crop shows, where the fit itself crops no more
_MULTIPLE = 32  # pixels: backbones halve an input five times
_LARGE = 128  # pixels; sides of less are changed in steps of _SMALL_MULTIPLE, or there would be hardly a step
_SMALL_MULTIPLE = 8

Corner = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One way to look at an image: as it is placed in the input, then mirrored, then turned.

    mirrored  left and right change places
    turns     quarter turns clockwise, 0 to 3
    scale     factor on the sides of the input: things appear so much larger
    corner    which corner is cut out: (0, 0) is the top left, (1, 1) the bottom right; None: the usual placement
    """

    mirrored: bool = False
    turns: int = 0
    scale: float = 1.0
    corner: Corner | None = None

    def then(self, other: View) -> View:
        """Both moves as one, the ``other`` last."""
        own = -self.turns if other.mirrored else self.turns  # a mirror image turns the other way
        return View(
            mirrored=self.mirrored != other.mirrored,
            turns=(own + other.turns) % 4,
            scale=self.scale * other.scale,
            corner=self.corner if other.corner is None else other.corner,
        )

    def frame(self, size: Size, preprocessing: Preprocessing) -> Frame:
        """How an image of ``size`` (width, height) on disk comes to be the input."""
        placed = self._placed(size, preprocessing)
        width, height = placed.input_size
        mirror = hflip(width) if self.mirrored else identity()
        matrix = compose(placed.matrix, mirror, rot90(self.turns, width, height))
        return Frame(size=size, matrix=matrix, input_size=(height, width) if self.turns % 2 else (width, height))

    def min_side(self, preprocessing: Preprocessing) -> int:
        """As ``Preprocessing.decode_min_side``, of this view."""
        scaled = replace(preprocessing, input_size=_scaled(preprocessing.input_size, self.scale))
        return scaled.decode_min_side if self.corner is None else ceil(scaled.decode_min_side / _CROP)

    def _placed(self, size: Size, preprocessing: Preprocessing) -> Frame:
        scaled = replace(preprocessing, input_size=_scaled(preprocessing.input_size, self.scale))
        if self.corner is None:
            return frame_of(size, scaled)
        whole, resized = _uncropped(size, scaled)
        shift = [at * (large - seen) for at, large, seen in zip(self.corner, resized, scaled.input_size, strict=True)]
        return Frame(size=size, matrix=compose(whole, translation(-shift[0], -shift[1])), input_size=scaled.input_size)


VIEWS: Mapping[str, tuple[View, ...]] = {
    "flip": (View(mirrored=True),),
    "vflip": (View(mirrored=True, turns=2),),
    "turns": (View(turns=1), View(turns=2), View(turns=3)),
    "d4": (
        View(mirrored=True),
        *(View(mirrored=mirrored, turns=turns) for turns in (1, 2, 3) for mirrored in (False, True)),
    ),
    "scale": (View(scale=0.8), View(scale=1.25)),
    "crops": (View(corner=(0, 0)), View(corner=(1, 0)), View(corner=(0, 1)), View(corner=(1, 1))),
}
"""What can be asked for by name: the views beside the plain one. ``d4`` is all turns and mirror images of a square."""


class Views:
    """A network that looks at each image in several views: ``Answering``.

    names     of VIEWS
    views     every combination of theirs, the plain one first
    warnings  what is to be said of them, a sentence each
    """

    def __init__(self, answering: NetworkAnswering, asked: str = "auto") -> None:
        """``asked``: names of VIEWS with commas between them, of which every combination is looked at; 'auto': the
        mirror image if the training knew it, and where answers are about places two further scales as well.

        Raises ConfigError for a name that is not known, for views that do not fit the task or the network, and where
        'auto' finds none.
        """
        self._answering = answering
        if asked == "auto":
            self.names, self.warnings = self._usual()
            self.views = combined(self.names)
            return
        self.names = tuple(named(asked, answering.task))
        self.views = combined(self.names)
        self.warnings = tuple(_warned(self.views, answering.plan))
        refused = self._refused(self.views)
        if refused is not None:
            raise refused

    @property
    def task(self) -> Task[Any]:
        return self._answering.task

    @property
    def preprocessing(self) -> Preprocessing:
        return self._answering.preprocessing

    @property
    def min_side(self) -> int:
        return max(view.min_side(self.preprocessing) for view in self.views)

    @property
    def batch(self) -> int:
        """Fewer images than without views where what is said of each of them is large, for the same memory."""
        if not self.task.dense:
            return self._answering.batch
        return max(1, int(self._answering.batch / sum(view.scale**2 for view in self.views)))

    def prepare(self, pixels: np.ndarray, size: Size) -> list[Seen]:
        """An image as each of the views shows it."""
        decoded = (pixels.shape[1], pixels.shape[0])
        to_disk = identity() if decoded == size else squash(decoded, size)
        frames = [view.frame(size, self.preprocessing) for view in self.views]
        return [Seen(warp_image(pixels, compose(to_disk, each.matrix), each.input_size), each) for each in frames]

    def decide(self, seen: Sequence[Sequence[Seen]]) -> Sequence[Any]:
        if not seen:
            return []
        views = list(zip(*seen, strict=True))
        outputs = [self._answering.outputs([each.pixels for each in view]) for view in views]
        frames = [[each.frame for each in view] for view in views] if self.task.dense else ()
        return self.task.decode_together(outputs, frames)

    def _usual(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What 'auto' stands for, as far as the network can take it, and what is said of the rest."""
        names = usual(self.task, self._answering.plan)
        possible = tuple(name for name in names if self._refused(VIEWS[name]) is None)
        if not possible:
            raise ConfigError(
                "tta = 'auto' finds no view to add: the training did not mirror images, and other sizes are for "
                "answers about places, from a network that takes them. Name views yourself "
                f"({', '.join(VIEWS)}), or leave tta out"
            )
        return possible, tuple(
            f"tta: {name} is left out, as the network takes no input but that of its own size"
            for name in names
            if name not in possible
        )

    def _refused(self, views: Iterable[View]) -> ConfigError | None:
        """The error where the network cannot take the input of one of the views."""
        own = self.preprocessing.input_size
        sizes = {view.frame(own, self.preprocessing).input_size for view in views} - {own}
        for width, height in sorted(sizes):
            try:
                self._answering.outputs([np.zeros((height, width, 3), np.uint8)])
            except (RuntimeError, ValueError, AssertionError, ConfigError) as error:
                reason = str(error).partition("\n")[0][:120]
                return ConfigError(
                    f"the network takes no input of {width} x {height} pixels beside its own {own[0]} x {own[1]}, as "
                    f"tta asks ({reason}): leave out scale, and turns of an input that is no square"
                )
        return None


def usual(task: Task[Any], plan: Plan) -> list[str]:
    """The names that 'auto' stands for."""
    return [*(["flip"] if plan.augmentation.get("hflip") else []), *(["scale"] if task.dense else [])]


def named(asked: str, task: Task[Any]) -> list[str]:
    """'flip,scale' -> its names. Raises ConfigError for one that is not known, or does not fit the task."""
    names = [name.strip() for name in asked.split(",")]
    for name in names:
        if name not in VIEWS:
            raise ConfigError(
                f"tta = '{asked}': '{name}' is not known: give 'auto', or some of {', '.join(VIEWS)} "
                f"with commas between them{did_you_mean(name, VIEWS)}"
            )
    if task.dense and "crops" in names:
        raise ConfigError(
            f"tta = '{asked}': crops show parts of an image, and the task '{task.name}' answers about all of it: use "
            "tile for small things, or flip, scale"
        )
    return list(dict.fromkeys(names))


def combined(names: Sequence[str]) -> tuple[View, ...]:
    """Every combination of the views of those names and the plain one, each once, the plain one first."""
    found: dict[View, None] = {}
    for each in product(*((View(), *VIEWS[name]) for name in names)):
        whole = View()
        for view in each:
            whole = whole.then(view)
        found[whole] = None
    return tuple(found)


def _warned(views: Sequence[View], plan: Plan) -> Iterable[str]:
    """A sentence for what views do that the training never did: it may have been found to change what is shown."""
    known = _known(plan)
    odd = {(view.mirrored, view.turns) for view in views} - known
    if odd:
        words = ", ".join(_WORDS[each] for each in sorted(odd))
        reason = plan.reasons.get("augmentation", "")
        because = f" ({reason})" if "switched off" in reason else ""
        yield (
            f"warning: tta shows images {words}, and the training never did{because}: where that changes what an image "
            "shows, the answers get worse"
        )


_WORDS: Mapping[tuple[bool, int], str] = {
    (True, 0): "mirrored",
    (True, 2): "upside down and mirrored",
    (False, 1): "turned by a quarter",
    (False, 2): "turned by half",
    (False, 3): "turned by three quarters",
    (True, 1): "mirrored and turned by a quarter",
    (True, 3): "mirrored and turned by three quarters",
}


def _known(plan: Plan) -> set[tuple[bool, int]]:
    """(mirrored, turns) of what the training showed, by itself and put together."""
    told = plan.augmentation
    turned = 180.0 if told.get("rotate90") else float(told.get("rotate_degrees", 0.0))
    moves = [view for name, view in (("hflip", VIEWS["flip"][0]), ("vflip", VIEWS["vflip"][0])) if told.get(name)]
    moves += [View(turns=turns) for turns in (1, 2, 3) if turned >= (180 if turns == 2 else 90)]
    known = {View()}
    while True:
        more = known | {one.then(move) for one in known for move in moves}
        if more == known:
            return {(view.mirrored, view.turns) for view in known}
        known = more


def _scaled(size: Size, scale: float) -> Size:
    """The sides times ``scale``, rounded to what networks take, and never rounded back to what they were."""
    return size if scale == 1.0 else (_side(size[0], scale), _side(size[1], scale))


def _side(side: int, scale: float) -> int:
    multiple = _MULTIPLE if side >= _LARGE else _SMALL_MULTIPLE
    near = round(side * scale / multiple) * multiple
    if near == side:
        near += multiple if scale > 1 else -multiple
    return max(multiple, near)


def _uncropped(size: Size, preprocessing: Preprocessing) -> tuple[Matrix, Size]:
    """What crops of the input's size are cut from: the whole image on a larger canvas, and the size of that."""
    if preprocessing.fit == "center crop":
        fraction = min(preprocessing.crop_fraction, _CROP)
        resized, _ = center_crop_steps(size, preprocessing.input_size, fraction)
        return squash(size, resized), resized
    width, height = preprocessing.input_size
    canvas = (round(width / _CROP), round(height / _CROP))
    return frame_of(size, replace(preprocessing, input_size=canvas)).matrix, canvas
