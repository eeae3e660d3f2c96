"""The images whose one class can be looked at from what a frozen network sees: features, labels, and what a classifier
says of each image that it was fitted without."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from snellen.core.record import Split
from snellen.data.manifest import Manifest, Row
from snellen.metrics.held_out_classifier import HeldOutClassifier
from snellen.metrics.label_errors import LabelErrors, find_label_errors

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

FEWEST = 60  # images: of fewer, nothing that a model says of them is sure
_FEWEST_OF_CLASS = 8  # of fewer there may be none in what the model learns from


@dataclass(frozen=True, kw_only=True, eq=False)
class Labelled:
    """Images of classes, one each, in the order of their ids; classes with fewer than 8 of them are left out.

    ids, sides, units   of each image [n]; images of one unit are not independent
    codes               [n], places in ``classes``
    features            float [n, d]
    """

    ids: Sequence[str]
    sides: Sequence[Split]
    units: Sequence[str]
    codes: Codes
    classes: tuple[str, ...]
    features: npt.NDArray[Any]

    @classmethod
    def of(
        cls, manifest: Manifest, features: Mapping[str, npt.NDArray[Any]], unit_of: Callable[[str], str]
    ) -> Labelled | None:
        """None where too few images have features and a class, or all have the same."""
        if manifest.numeric or manifest.multi_label:
            return None
        rows: list[Row] = [row for row in manifest.rows if row.id in features and len(row.labels) == 1]
        counts = Counter(row.labels[0] for row in rows)
        classes = tuple(name for name in manifest.classes if counts[name] >= _FEWEST_OF_CLASS)
        rows = [row for row in rows if row.labels[0] in classes]
        if len(classes) < 2 or len(rows) < FEWEST:
            return None
        place = {name: i for i, name in enumerate(classes)}
        return cls(
            ids=[row.id for row in rows],
            sides=[row.split for row in rows],
            units=[unit_of(row.id) for row in rows],
            codes=np.array([place[row.labels[0]] for row in rows], np.int64),
            classes=classes,
            features=np.stack([features[row.id] for row in rows]),
        )

    @cached_property
    def classifier(self) -> HeldOutClassifier:
        return HeldOutClassifier.of(self.features, self.codes, self.units)

    @cached_property
    def scores(self) -> Floats:
        """About the probability of each class, [n, k], by a model that has not seen the image's unit."""
        return self.classifier.scores(self.codes, len(self.classes))

    @cached_property
    def errors(self) -> LabelErrors:
        return find_label_errors(self.classifier, self.codes, len(self.classes))

    def on(self, *sides: Split) -> Mask:
        """Which images are on one of these sides, [n]."""
        return np.array([side in sides for side in self.sides], np.bool_)

    def first_of_units(self) -> Mask:
        """One image of each unit, [n]."""
        first = np.zeros(len(self.units), np.bool_)
        first[np.unique(np.array(self.units, np.str_), return_index=True)[1]] = True
        return first
