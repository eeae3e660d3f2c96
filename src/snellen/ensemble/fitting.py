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
from snellen.ensemble.panel import Images, Panel, headline
from snellen.ensemble.pixels import PixelPanel
from snellen.ensemble.soup import Soups, greedy_soup
from snellen.ensemble.together import Ensemble
from snellen.ensemble.ways import FEWEST
from snellen.ensemble.weights import greedy_selection, halves, least_loss, numbers_of

_MOST_FUSED = 300


class Joining(Protocol):
    """A way to join models that has something to fit."""

    def fit(self, images: Images) -> Any:
        """By some of the validation images [n]."""
        ...

    def predictions(self, fitted: Any, images: Images) -> Sequence[Any]:
        """For some of the validation images [n], in order."""
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
    if side.num_units < FEWEST:
        raise DataError(
            f"{side.num_units} validation images that all members share, and none learnt from, are too few to fit "
            f"anything by, {FEWEST} are needed: use way = mean"
        )
    units = [record.id for record in side.records] if side.groups is None else list(side.groups)
    first = halves(units, [record.labels for record in side.records], seed)
    honest: list[Any] = [None] * len(units)
    for half in (first, ~first):
        said = joining.predictions(joining.fit(half), ~half)
        for i, each in zip(np.flatnonzero(~half).tolist(), said, strict=True):
            honest[i] = each
    everything = np.ones(len(units), bool)
    fitted = joining.fit(everything)
    return Fitted(fitted, joining.predictions(fitted, everything), honest)


class Weighing:
    """Weights, by the least loss where answers are numbers, and by the headline metric where they are about places:
    over all objects, or over some pixels of each image (``PixelPanel``)."""

    def __init__(self, panel: Panel) -> None:
        self._panel, task = panel, panel.members.task
        self._numbers = numbers_of(task, panel.alone, panel.side.truth)
        self._pixels: PixelPanel | None = None
        if self._numbers is None and not panel.members.joins_predictions:
            self._pixels = PixelPanel.of(panel.members, panel.side.records, panel.side.truth, panel.heard())

    def fit(self, images: Images) -> tuple[float, ...]:
        if self._numbers is not None:
            return least_loss(self._numbers.of(np.flatnonzero(images).tolist()))
        known: dict[tuple[float, ...], float] = {}  # rounds ask for some mixtures again
        if self._pixels is None:
            images = _some(images)

        def score(weights: tuple[float, ...]) -> float:
            if weights not in known:
                known[weights] = self._headline(weights, images)
            return known[weights]

        return greedy_selection(len(self._panel.alone), score)

    def _headline(self, weights: tuple[float, ...], images: Images) -> float:
        """No predictions are kept: there would be as many sets of them as mixtures are tried."""
        joined = self._panel.members.joined("weighted", weights)
        if self._pixels is not None:
            found = self._pixels.headline(joined.task.headline, weights, images, joined.task.decision)
            return found if np.isfinite(found) else -np.inf
        truth = [self._panel.side.truth[i] for i in np.flatnonzero(images).tolist()]
        return headline(joined.task, self._panel.said_by(joined, images), truth)

    def predictions(self, fitted: tuple[float, ...], images: Images) -> Sequence[Any]:
        return self._panel.said_by(self._panel.members.joined("weighted", fitted), images)


def _some(images: Images) -> Images:
    """At most ``_MOST_FUSED`` of them, evenly: to fuse the objects of one and judge them takes some milliseconds, for
    each mixture that is tried."""
    places = np.flatnonzero(images)
    few = np.zeros_like(images)
    few[places[np.linspace(0, len(places) - 1, min(len(places), _MOST_FUSED)).astype(int)]] = True
    return few


class Ranking:
    """The scores of validation images that a label's scores are ranked among."""

    def __init__(self, panel: Panel) -> None:
        self._panel = panel
        self._scores = np.array([[each.scores for each in said] for said in panel.alone], np.float32)

    def fit(self, images: Images) -> np.ndarray:
        found: np.ndarray = self._scores[:, images]
        return found

    def predictions(self, fitted: np.ndarray, images: Images) -> Sequence[Any]:
        return self._panel.said_by(self._panel.members.joined("rank", reference=fitted), images)


class Souping:
    """Which members the soup is made of, by the headline metric."""

    def __init__(self, panel: Panel, soups: Soups) -> None:
        self._panel, self.soups = panel, soups
        self._known: dict[tuple[int, ...], Sequence[Any]] = {(k,): said for k, said in enumerate(panel.alone)}

    def fit(self, images: Images) -> tuple[int, ...]:
        panel = self._panel
        alone = [panel.headline(said, images) for said in panel.alone]
        order = sorted(range(len(alone)), key=lambda k: -alone[k])
        return greedy_soup(order, lambda chosen: panel.headline(self._said(chosen), images))

    def predictions(self, fitted: tuple[int, ...], images: Images) -> Sequence[Any]:
        said = self._said(fitted)
        return [said[i] for i in np.flatnonzero(images).tolist()]

    def _said(self, fitted: tuple[int, ...]) -> Sequence[Any]:
        chosen = tuple(sorted(fitted))
        if chosen not in self._known:
            model, _ = self.soups.mixed(chosen)
            self._known[chosen] = Ensemble([model]).answers(self._panel.side.records)
        return self._known[chosen]
