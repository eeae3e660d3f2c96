"""What is marked, as a model sees it that was fitted without the image: place by place, by what a frozen network sees.

Least squares on the share of each place that a class covers. Its normal equations are sums over images, so a model
without some of them is a subtraction, and what else might have been marked costs one more column: that is what makes
it affordable to ask of dozens of readings which of them can be predicted from pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from snellen.core.seeds import keyed_permutation
from snellen.metrics.interval import group_codes

Floats = npt.NDArray[np.float64]
Maps = Mapping[str, npt.NDArray[np.float16]]

FOLDS = 5
FEWEST = 40  # units
_PENALTY = 1e-2  # times the number of places, on the squared weights of standardised features
_MOST_FOR_SCALE = 40  # images: their mean and spread are those of all


@dataclass(frozen=True, eq=False)
class HeldOutPlaces:
    """Images by their maps, and a way to predict what is marked in each from the others.

    ids     of the images
    maps    float [rows, columns, d] by id
    folds   of each image, [n]; those of one unit are in the same
    centre, spread  of the features, [d]
    grams   sums of their products in each fold, [folds, d + 1, d + 1]
    """

    ids: Sequence[str]
    maps: Maps
    folds: npt.NDArray[np.intp]
    centre: Floats
    spread: Floats
    grams: Floats

    @classmethod
    def of(cls, maps: Maps, unit_of: Callable[[str], str]) -> HeldOutPlaces | None:
        """None for fewer than ``FEWEST`` units: of so few, nothing that a model says is sure."""
        ids = list(maps)
        codes = group_codes([unit_of(image_id) for image_id in ids])
        if not ids or int(codes.max()) + 1 < FEWEST:
            return None
        folds = keyed_permutation(int(codes.max()) + 1, "folds of places")[codes] % FOLDS
        some = np.concatenate([_flat(maps[image_id]) for image_id in ids[:: -(-len(ids) // _MOST_FOR_SCALE)]])
        model = cls(
            ids=ids,
            maps=maps,
            folds=folds,
            centre=some.mean(0),
            spread=some.std(0) + 1e-6,
            grams=np.zeros((FOLDS, some.shape[1] + 1, some.shape[1] + 1)),
        )
        for image_id, fold in zip(ids, folds, strict=True):
            features = model.features(image_id)
            model.grams[fold] += features.T @ features
        return model

    def features(self, image_id: str) -> npt.NDArray[np.float32]:
        """[places, d + 1]"""
        scaled = (_flat(self.maps[image_id]) - self.centre) / self.spread
        return np.concatenate([scaled, np.ones((len(scaled), 1))], 1).astype(np.float32)

    def weights(self, targets: Callable[[str], npt.NDArray[np.float32]]) -> Floats:
        """[folds, d + 1, k]: fitted on all images of other folds. targets: of an image, [places, k]."""
        sums: Floats | None = None
        for image_id, fold in zip(self.ids, self.folds, strict=True):
            part = self.features(image_id).T @ targets(image_id)
            if sums is None:
                sums = np.zeros((FOLDS, *part.shape))
            sums[fold] += part
        assert sums is not None
        penalty = np.eye(self.grams.shape[1])
        penalty[-1, -1] = 0
        fits = []
        for fold in range(FOLDS):
            inner = self.grams.sum(0) - self.grams[fold]
            fits.append(np.linalg.solve(inner + _PENALTY * inner[-1, -1] * penalty, sums.sum(0) - sums[fold]))
        return np.stack(fits)

    def predicted(self, weights: Floats) -> Iterator[tuple[str, Floats]]:
        """Each image's id and what the model without it says, [places, k]; weights: those of ``weights``."""
        for image_id, fold in zip(self.ids, self.folds, strict=True):
            yield image_id, self.features(image_id) @ weights[fold]


def _flat(maps: npt.NDArray[np.float16]) -> npt.NDArray[np.float32]:
    return maps.reshape(-1, maps.shape[-1]).astype(np.float32)
