"""What is fitted on validation images when models are joined, and how good that is on images it was not fitted on.

Weights that were fitted on the images that judge them look better than they are. So they are fitted on one half and
judged on the other, both ways; what ships is fitted on all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from snellen.core.errors import DataError
from snellen.ensemble.panel import Images, Panel
from snellen.ensemble.soup import Soups, greedy_soup
from snellen.ensemble.together import Ensemble
from snellen.ensemble.weights import greedy_selection, halves, least_loss, numbers_of

_FEWEST = 8  # independent images: four to fit by, and four to judge


class Joining(Protocol):
    """A way to join models that has something to fit."""

    def fit(self, images: Images) -> Any:
        """By some of the validation images [n]."""
        ...

    def predictions(self, fitted: Any) -> Sequence[Any]:
        """For all validation images."""
        ...


@dataclass(frozen=True, slots=True)
class Fitted:
    """fitted   on all validation images
    flattered   predictions for the images that it was fitted on
    honest      predictions for each image by what was fitted on the half without it
    """

    fitted: Any
    flattered: Sequence[Any]
    honest: Sequence[Any]


def cross_fitted(joining: Joining, panel: Panel, seed: int) -> Fitted:
    """Raises DataError for too few images to fit anything by."""
    side = panel.side
    if side.num_units < _FEWEST:
        raise DataError(
            f"{side.num_units} validation images that all members share, and none learnt from, are too few to fit "
            f"anything by, {_FEWEST} are needed: use way = mean"
        )
    units = [record.id for record in side.records] if side.groups is None else list(side.groups)
    first = halves(units, [record.labels for record in side.records], seed)
    honest: list[Any] = [None] * len(units)
    for half in (first, ~first):
        said = joining.predictions(joining.fit(half))
        for i in np.flatnonzero(~half).tolist():
            honest[i] = said[i]
    fitted = joining.fit(np.ones(len(units), bool))
    return Fitted(fitted, joining.predictions(fitted), honest)


class Weighing:
    """Weights, by the least loss where answers are numbers, and by the headline metric where they are about places."""

    def __init__(self, panel: Panel) -> None:
        self._panel = panel
        self._numbers = numbers_of(panel.members.task, panel.alone, panel.side.truth)
        self._known: dict[tuple[float, ...], Sequence[Any]] = {}

    def fit(self, images: Images) -> tuple[float, ...]:
        if self._numbers is not None:
            return least_loss(self._numbers.of(np.flatnonzero(images).tolist()))
        panel = self._panel
        return greedy_selection(len(panel.alone), lambda w: panel.headline(self.predictions(w), images))

    def predictions(self, fitted: tuple[float, ...]) -> Sequence[Any]:
        if fitted not in self._known:  # the halves and the whole often ask for the same
            self._known[fitted] = self._panel.said_by(self._panel.members.joined("weighted", fitted))
        return self._known[fitted]


class Ranking:
    """The scores of validation images that a label's scores are ranked among."""

    def __init__(self, panel: Panel) -> None:
        self._panel = panel
        self._scores = np.array([[each.scores for each in said] for said in panel.alone], np.float32)

    def fit(self, images: Images) -> np.ndarray:
        found: np.ndarray = self._scores[:, images]
        return found

    def predictions(self, fitted: np.ndarray) -> Sequence[Any]:
        return self._panel.said_by(self._panel.members.joined("rank", reference=fitted))


class Souping:
    """Which members the soup is made of, by the headline metric."""

    def __init__(self, panel: Panel, soups: Soups) -> None:
        self._panel, self.soups = panel, soups
        self._known: dict[tuple[int, ...], Sequence[Any]] = {(k,): said for k, said in enumerate(panel.alone)}

    def fit(self, images: Images) -> tuple[int, ...]:
        panel = self._panel
        alone = [panel.headline(said, images) for said in panel.alone]
        order = sorted(range(len(alone)), key=lambda k: -alone[k])
        return greedy_soup(order, lambda chosen: panel.headline(self.predictions(chosen), images))

    def predictions(self, fitted: tuple[int, ...]) -> Sequence[Any]:
        chosen = tuple(sorted(fitted))
        if chosen not in self._known:
            model, _ = self.soups.mixed(chosen)
            self._known[chosen] = Ensemble([model]).answers(self._panel.side.records)
        return self._known[chosen]
