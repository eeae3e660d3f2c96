"""Whether a map says anything: how far the answer falls without what is hot, and without other places of that shape.

After Petsiuk et al. 2018 (RISE, arXiv:1806.07421). Single random pixels would be an easy opponent, since a network
hardly sees one of them go: the map's own shapes are taken to random places instead.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from snellen.core.estimate import amount
from snellen.explain.asked import Asked
from snellen.explain.scene import Heat
from snellen.explain.trials import Trials

_SHARES = (0.05, 0.1, 0.2)  # of what the model sees is removed
_ELSEWHERE = 9  # random places
_ENOUGH = 8  # of them that a map has to beat: one that says nothing does so once in five times; some lie on the object


@dataclass(frozen=True, slots=True)
class Deletion:
    """The score before and after a twentieth, a tenth and a fifth of what the model sees is removed; their means.

    before     of the image as it is, at the scale at which copies of it are made
    after      without the hottest places
    elsewhere  without the same shapes at random places
    beaten     of how many of the ``tried`` random places the fall is smaller (of numbers: the change)
    telling    whether the map found what matters: it beats all of them but one, by more than next to nothing
    """

    before: float
    after: float
    elsewhere: float
    beaten: int
    tried: int
    telling: bool

    def __str__(self) -> str:
        if not self.tried:
            return "the map is flat: nothing of what was tried moves the score"
        before, after, elsewhere = (_written(each) for each in (self.before, self.after, self.elsewhere))
        numbers = f"score {before}, without what is hot {after}, without random places of that shape {elsewhere}"
        return numbers if self.telling else f"{numbers}: this map says no more than chance"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def _written(score: float) -> str:
    return f"{score:.3f}" if 0 <= score <= 1 else amount(score)


def deletion_of(trials: Trials, heat: Heat, asked: Asked, seed: int = 0) -> Deletion:
    """The check of a map of what is ``asked``; heat [H, W] 0..1, of any size."""
    before = trials.score(asked)
    x0, y0, x1, y1 = trials.seen
    own = np.asarray(Image.fromarray(heat).resize(trials.pixels.shape[1::-1], Image.Resampling.BILINEAR))
    hot = own[y0:y1, x0:x1]
    if not hot.max(initial=0) > 0:
        return Deletion(before, before, before, beaten=0, tried=0, telling=False)
    rng = np.random.default_rng(seed)
    moves = [(0, 0), *((int(rng.integers(hot.shape[0])), int(rng.integers(hot.shape[1]))) for _ in range(_ELSEWHERE))]
    masks = [_hottest(hot, share) for share in _SHARES]
    scores = trials.scores((_removed(trials, np.roll(mask, move, (0, 1))) for move in moves for mask in masks), [asked])
    after = scores.reshape(len(moves), len(masks))
    falls = np.array([[asked.change(before, score) for score in row] for row in after]).mean(axis=1)
    beaten = int((falls[1:] < falls[0]).sum())
    return Deletion(
        before,
        float(after[0].mean()),
        float(after[1:].mean()),
        beaten=beaten,
        tried=_ELSEWHERE,
        telling=beaten >= _ENOUGH and float(falls[0]) > asked.least_change(before),
    )


def _hottest(heat: Heat, share: float) -> NDArray[np.bool_]:
    """The pixels of that share that are hottest, and none that are cold."""
    count = max(1, min(round(share * heat.size), int((heat > 0).sum())))
    chosen = np.zeros(heat.size, np.bool_)
    chosen[np.argsort(-heat.ravel(), kind="stable")[:count]] = True
    return chosen.reshape(heat.shape)


def _removed(trials: Trials, mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    x0, y0, x1, y1 = trials.seen
    whole = np.zeros(trials.pixels.shape[:2], np.bool_)
    whole[y0:y1, x0:x1] = mask
    return trials.without(whole)
