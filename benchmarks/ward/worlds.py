"""Worlds: a set of images and a question. All are drawn or come with scikit-learn, so none needs a network.

``WORLDS[name].make(seed)`` gives a training and a validation side, as a user has them, and a hidden test that is clean
and large, which neither a training nor a doctor sees. Worlds with ``held_out`` are for the last measurement.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pictures

from snellen.doctor.case import Question

Targets = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Side:
    """images [n, c, h, w] of bytes; targets [n] classes, [n, h, w] classes of pixels, or [n, 1] numbers; facts [n]."""

    images: npt.NDArray[np.uint8]
    targets: Targets
    facts: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.images)

    def at(self, rows: npt.NDArray[np.int64]) -> Side:
        """Some of the images, in the order of ``rows``."""
        facts = {name: [column[row] for row in rows] for name, column in self.facts.items()}
        return Side(images=self.images[rows], targets=self.targets[rows], facts=facts)


@dataclass(frozen=True, kw_only=True, eq=False)
class Data:
    train: Side
    val: Side
    hidden: Side


@dataclass(frozen=True, kw_only=True, eq=False)
class World:
    """held_out: no threshold was chosen by looking at it. admits: findings that are true of it and no false alarms."""

    name: str
    question: Question
    classes: tuple[str, ...]
    make: Callable[[int], Data]
    held_out: bool = False
    admits: tuple[str, ...] = ()


Draw = Callable[[np.random.Generator, int], Side]


def _sides(draw: Draw, train: int, val: int, hidden: int = 1000) -> Callable[[int], Data]:
    def make(seed: int) -> Data:
        rng = np.random.default_rng([seed, 77])
        return Data(train=draw(rng, train), val=draw(rng, val), hidden=draw(rng, hidden))

    return make


def _shapes(rng: np.random.Generator, number: int) -> Side:
    kinds = rng.permutation(np.arange(number) % len(pictures.SHAPES))
    return Side(images=np.stack([pictures.shape(rng, kind) for kind in kinds]), targets=kinds)


def _scenes(rng: np.random.Generator, number: int) -> Side:
    drawn = [pictures.scene(rng) for _ in range(number)]
    return Side(images=np.stack([image for image, _ in drawn]), targets=np.stack([truth for _, truth in drawn]))


def _counting(rng: np.random.Generator, number: int) -> Side:
    drawn = [pictures.dots(rng) for _ in range(number)]
    counts = np.array([[count] for _, count in drawn], np.float32)
    return Side(images=np.stack([image for image, _ in drawn]), targets=counts)


def _textures(rng: np.random.Generator, number: int) -> Side:
    kinds = rng.permutation(np.arange(number) % len(pictures.TEXTURES))
    return Side(images=np.stack([pictures.texture(rng, kind) for kind in kinds]), targets=kinds)


def _digits(seed: int) -> Data:
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng([seed, 78]).permutation(len(digits.target))
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[:, None]
    whole = Side(images=images[order], targets=digits.target[order].astype(np.int64))
    parts = np.split(np.arange(len(whole)), [500, 750])
    return Data(train=whole.at(parts[0]), val=whole.at(parts[1]), hidden=whole.at(parts[2]))


@cache
def _photographs() -> tuple[npt.NDArray[np.uint8], ...]:
    from sklearn.datasets import load_sample_images

    return tuple(load_sample_images().images)


def _patches(seed: int) -> Data:
    """Pieces of 18 pixels; the class is the photograph and the third of its height. Sides share no column of pixels."""
    rng = np.random.default_rng([seed, 79])
    strips = rng.permutation(np.arange(0, 620, 20))
    parts = np.split(strips, [12, 18])

    def side(number: int, strips: npt.NDArray[np.int64]) -> Side:
        kinds = rng.permutation(np.arange(number) % 6)
        images = [_piece(rng, int(kind), int(rng.choice(strips))) for kind in kinds]
        return Side(images=np.stack(images), targets=kinds)

    return Data(train=side(720, parts[0]), val=side(300, parts[1]), hidden=side(1000, parts[2]))


def _piece(rng: np.random.Generator, kind: int, left: int) -> npt.NDArray[np.uint8]:
    photograph = _photographs()[kind // 3]
    third = photograph.shape[0] // 3
    top = (kind % 3) * third + int(rng.integers(third - 18))
    left += int(rng.integers(3))
    return photograph[top : top + 18, left : left + 18].transpose(2, 0, 1)


# What is odd about a healthy world: each takes a world's ``make`` and gives another.


def _darker(make: Callable[[int], Data]) -> Callable[[int], Data]:
    """Night: a fifth of the light."""
    return _each_side(make, lambda side, rng: replace(side, images=(side.images * 0.2).astype(np.uint8)))


def _grey(make: Callable[[int], Data]) -> Callable[[int], Data]:
    return _each_side(make, lambda side, rng: replace(side, images=side.images.mean(1, keepdims=True).astype(np.uint8)))


def _imbalanced(make: Callable[[int], Data]) -> Callable[[int], Data]:
    """The rarest class has a fifth of the images of the commonest, on every side, as in nature."""
    return _each_side(make, _thinned)


def _thinned(side: Side, rng: np.random.Generator) -> Side:
    classes = int(side.targets.max()) + 1
    keep = rng.random(len(side)) < np.geomspace(1, 0.2, classes)[side.targets]
    return side.at(np.flatnonzero(keep))


def _ambiguous(make: Callable[[int], Data]) -> Callable[[int], Data]:
    """Three images in ten show nothing but noise: no model can tell their class, though it is on record."""

    def blot(side: Side, rng: np.random.Generator) -> Side:
        images = side.images.copy()
        rows = rng.random(len(side)) < 0.3
        images[rows] = rng.integers(0, 256, images[rows].shape)
        return replace(side, images=images)

    return _each_side(make, blot)


def _small_val(make: Callable[[int], Data]) -> Callable[[int], Data]:
    def cut(seed: int) -> Data:
        data = make(seed)
        return replace(data, val=data.val.at(np.arange(60)))

    return cut


def _each_side(
    make: Callable[[int], Data], change: Callable[[Side, np.random.Generator], Side]
) -> Callable[[int], Data]:
    def changed(seed: int) -> Data:
        data, rng = make(seed), np.random.default_rng([seed, 80])
        return Data(train=change(data.train, rng), val=change(data.val, rng), hidden=change(data.hidden, rng))

    return changed


_SHAPES = _sides(_shapes, 720, 400)
_DIGITS = tuple("0123456789")
_PIECES = tuple(f"{photograph} {third}" for photograph in ("china", "flower") for third in ("top", "middle", "bottom"))

WORLDS = {
    world.name: world
    for world in (
        World(name="digits", question="classification", classes=_DIGITS, make=_digits),
        World(
            name="digits-small-val",
            question="classification",
            classes=_DIGITS,
            make=_small_val(_digits),
            admits=("too-few-images",),
        ),
        World(name="shapes", question="classification", classes=pictures.SHAPES, make=_SHAPES),
        World(name="shapes-dark", question="classification", classes=pictures.SHAPES, make=_darker(_SHAPES)),
        World(name="shapes-grey", question="classification", classes=pictures.SHAPES, make=_grey(_SHAPES)),
        World(
            name="shapes-imbalanced",
            question="classification",
            classes=pictures.SHAPES,
            make=_imbalanced(_sides(_shapes, 1400, 700, 2000)),
        ),
        World(
            name="shapes-ambiguous",
            question="classification",
            classes=pictures.SHAPES,
            make=_ambiguous(_SHAPES),
        ),
        World(
            name="scenes",
            question="segmentation",
            classes=("ground", "disc", "square", "triangle"),
            make=_sides(_scenes, 200, 80),
        ),
        World(name="counting", question="regression", classes=(), make=_sides(_counting, 600, 300)),
        World(
            name="textures",
            question="classification",
            classes=pictures.TEXTURES,
            make=_sides(_textures, 720, 300),
            held_out=True,
        ),
        World(name="patches", question="classification", classes=_PIECES, make=_patches, held_out=True),
    )
}
