"""Masks that belong to another image, or were treated otherwise than their image was, as a model sees it that was
fitted without them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from snellen.audit.dense import Floats, HeldOutPlaces
from snellen.audit.dense_targets import Shares, class_shares
from snellen.audit.mask_edges import masks_off_edges
from snellen.audit.remedies import left_out_of_training
from snellen.audit.subject import MAX_IMAGES, AuditSubject, counted
from snellen.core.errors import ImageError
from snellen.core.finding import Finding
from snellen.core.thresholds import alpha
from snellen.data.mask_files import read_mask

_GRID = 20  # places across and down, of every image: what is asked is which mask belongs to it, not where it ends
_FAR = 0.6  # of the error of the mask as it is, is the most that the other may have
_AS_RIGHT = 0.9  # of all masks fit no better than a mask that belongs to its image need fit
_RANK = 0.1  # share of the masks of other images that fit no worse than one that belongs nowhere
_AGREED = 0.5  # correlation of masks and predictions, in the mean: with less the model knows too little
_TOLERATED = 0.01  # share of right masks that another one may fit better: scenes in which the model is lost
_FEWEST = 3
_MUCH = 0.10  # share of wrong masks from which no result can be trusted

_TURNS: dict[str, Callable[[Floats], Floats]] = {
    "mirrored left to right": lambda shares: shares[:, ::-1],
    "turned upside down": lambda shares: shares[::-1],
    "turned by 180 degrees": lambda shares: shares[::-1, ::-1],
    "transposed": lambda shares: shares.swapaxes(0, 1),
    "turned by 90 degrees to the left": lambda shares: np.rot90(shares, 1),
    "turned by 90 degrees to the right": lambda shares: np.rot90(shares, 3),
    "turned and mirrored": lambda shares: np.rot90(shares, 2).swapaxes(0, 1),
}
_ANOTHER = "fit another image"
_NOWHERE = "fit no worse if those of other images were theirs"


@dataclass(frozen=True, slots=True, eq=False)
class _Fits:
    """1 - the correlation of masks with what is predicted of images, which does not ask how surely it is predicted.

    ids     of the images [n]
    own     of the masks as they are, [n]
    better  the least of any other, [n]; by: which it is, an index of ``_TURNS`` or beyond them the place in ``ids``
    rank    share of the masks of other units that fit no worse than an image's own, [n]
    agreed  the mean correlation, of each mask as it is or turned, whichever is better
    """

    ids: list[str]
    own: Floats
    better: Floats
    by: npt.NDArray[np.intp]
    rank: Floats
    agreed: float


def suspect_masks(subject: AuditSubject) -> Iterator[Finding]:
    """Masks that fit their images far worse than they would turned, or than the mask of another image does.

    Each image's own mask, its seven turns and the masks of all other units are held against what a model predicts that
    has not seen the image; who wins by far, and fits as right masks do, is where the mask belongs. That is an
    experiment, so what it finds is confirmed.
    """
    fits = _fits(subject)
    if fits is None or fits.agreed < _AGREED:
        return
    elsewhere = (fits.better <= _FAR * fits.own) & (fits.better <= np.quantile(fits.own, _AS_RIGHT))
    found = elsewhere | (fits.rank > _RANK)
    units = np.unique([subject.unit_of(image_id) for image_id in fits.ids], return_inverse=True)[1]
    named = int(np.count_nonzero(np.bincount(units, found)))
    total = int(units.max()) + 1
    p = _at_least(named, total)
    if int(found.sum()) < _FEWEST or named <= 2 * _TOLERATED * total or p > alpha("suspect-masks"):
        return
    if any(masks_off_edges(subject)):
        return
    order = np.flatnonzero(found)[np.argsort((fits.better / fits.own)[found], kind="stable")]
    kinds = [_kind(fits.by[i]) if elsewhere[i] else _NOWHERE for i in order]
    often = Counter(kinds).most_common()
    share = float(found.mean())
    yield Finding(
        code="suspect-masks",
        severity="serious" if share > _MUCH else "warning",
        certainty="confirmed",
        message=f"{counted(len(order), 'mask')} of {len(fits.ids):,} ({share:.1%}) do not fit their images and would "
        f"{' or '.join(f'{kind} ({count:,})' for kind, count in often[:3])}, first that of {fits.ids[order[0]]}.",
        advice="Look at these masks drawn on their images, and correct them or leave the images out.",
        evidence={
            "num_suspects": len(order),
            "num_images": len(fits.ids),
            "p": p,
            "kinds": dict(often),
            "would_fit": {fits.ids[i]: _home(fits, i) if elsewhere[i] else None for i in order[:MAX_IMAGES]},
            "error": [round(float(fits.better[i] / fits.own[i]), 3) for i in order[:MAX_IMAGES]],
            "agreed": round(fits.agreed, 3),
        },
        images=tuple(fits.ids[i] for i in order[:MAX_IMAGES]),
        treatment=left_out_of_training(subject, [fits.ids[i] for i in order]),
    )


def _at_least(named: int, total: int) -> float:
    """That so many are named if no more than what is tolerated are wrong: exact, binomial."""
    from scipy.special import bdtrc

    return float(bdtrc(named - 1, total, _TOLERATED)) if named else 1.0


def _kind(by: np.intp) -> str:
    return f"fit {list(_TURNS)[by]}" if by < len(_TURNS) else _ANOTHER


def _home(fits: _Fits, i: int) -> str:
    by = int(fits.by[i])
    return list(_TURNS)[by] if by < len(_TURNS) else fits.ids[by - len(_TURNS)]


def _fits(subject: AuditSubject) -> _Fits | None:
    shares = _shares(subject)
    places = HeldOutPlaces.of({i: (subject.maps or {})[i] for i in shares}, subject.unit_of)
    if places is None:
        return None
    weights = places.weights(lambda image_id: shares[image_id].reshape(-1, shares[image_id].shape[2]))
    told = [_pooled(each.reshape(shares[image_id].shape)) for image_id, each in places.predicted(weights)]
    wanted = [_pooled(shares[image_id]) for image_id in places.ids]
    centre = np.mean([each.mean((0, 1)) for each in wanted], axis=0)
    told, wanted = ([each - centre for each in found] for found in (told, wanted))
    turned = [np.stack([turn(each).ravel() for each in wanted]) for turn in _TURNS.values()]
    units = [subject.unit_of(image_id) for image_id in places.ids]
    rows = [np.stack([each.ravel() for each in found]) for found in (told, wanted)]
    return _compared(list(places.ids), units, rows[0], rows[1], turned)


def _shares(subject: AuditSubject) -> dict[str, Shares]:
    """Of each class at each place, [rows, columns, k], by id; masks that cannot be read are passed over."""
    found: dict[str, Shares] = {}
    for image_id, seen in (subject.maps or {}).items():
        mask = subject.records[image_id].mask
        if mask is None:
            continue
        try:
            shape = (seen.shape[0], seen.shape[1])
            found[image_id] = class_shares(read_mask(mask), len(subject.manifest.classes), shape)
        except ImageError:
            continue
    return found


def _pooled(shares: npt.NDArray[Any]) -> Floats:
    """[rows, columns, k] -> the means of ``_GRID`` x ``_GRID`` parts of it."""
    down, right = (_parts(size) for size in shares.shape[:2])
    return np.asarray(np.einsum("ir,jc,rck->ijk", down, right, shares, optimize=True), np.float64)


def _parts(size: int) -> Floats:
    """How much each of ``size`` steps has of each part of a side, [_GRID, size]; rows sum to 1."""
    edges = np.linspace(0, size, _GRID + 1)
    steps = np.arange(size)
    shared = np.minimum(edges[1:, None], steps + 1) - np.maximum(edges[:-1, None], steps)
    return np.asarray(np.clip(shared, 0, None) * _GRID / size)


def _compared(ids: list[str], units: list[str], told: Floats, wanted: Floats, turned: list[Floats]) -> _Fits:
    """told, wanted, and each of turned: [n, places * classes], about the mean of each class"""
    told, wanted, turned = _unit(told), _unit(wanted), [_unit(each) for each in turned]
    own = 1 - (told * wanted).sum(1)
    turns = np.stack([1 - (told * each).sum(1) for each in turned], 1)
    strangers = 1 - told @ wanted.T
    codes = np.unique(units, return_inverse=True)[1]
    strangers[codes[:, None] == codes] = np.inf
    all_others = np.concatenate([turns, strangers], 1)
    by = all_others.argmin(1)
    return _Fits(
        ids=list(ids),
        own=own,
        better=all_others[np.arange(len(by)), by],
        by=by,
        rank=(strangers <= own[:, None]).sum(1) / np.maximum(np.isfinite(strangers).sum(1), 1),
        agreed=float(1 - np.minimum(own, turns.min(1)).mean()),
    )


def _unit(rows: Floats) -> Floats:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9))
