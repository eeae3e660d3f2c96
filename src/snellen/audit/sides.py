"""Are the sides of a given split of one kind? A classifier that tells train from test by the pictures says no."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from snellen.audit.labelled import Floats, Mask
from snellen.audit.subject import MAX_IMAGES, AuditSubject
from snellen.core.finding import Finding
from snellen.core.record import Split
from snellen.core.seeds import keyed_seed
from snellen.core.thresholds import alpha
from snellen.metrics.held_out_classifier import HeldOutClassifier
from snellen.metrics.ranking_test import stratified_auc

_LEAST_AUC = 0.60  # by which one side's images must be told from the other's of the same class
_FEWEST_UNITS = 25  # on each side, in each half
_LEAST_MOVED = 0.10  # share of the images that would have to change class for the sides to have the same shares


def sides_differ(subject: AuditSubject) -> Iterator[Finding]:
    """Images of one class that look otherwise on val or test than on train.

    A classifier learns on one half of the images which side each is on, and ranks the other half. Whatever it has
    learnt, images of one class that were drawn from one source are ranked by chance: the p-value is that of the ranks.
    Snellen's own division draws them so, and is not looked at.
    """
    if subject.features is None or subject.manifest.origin != "user":
        return
    others = [side for side in subject.sides if side != "train"]
    for side in others if "train" in subject.sides else []:
        yield from _different(subject, side, looks=2 * len(others))


def _different(subject: AuditSubject, side: Split, looks: int) -> Iterator[Finding]:
    assert subject.features is not None
    rows = [row for row in subject.manifest.rows if row.id in subject.features and row.split in ("train", side)]
    units = [subject.unit_of(row.id) for row in rows]
    there = np.array([row.split == side for row in rows], np.bool_)
    strata = _strata(subject, [row.id for row in rows])
    half = np.array([keyed_seed("half", unit) % 2 == 0 for unit in units], np.bool_)
    if not _enough(units, there, half):
        return
    classifier = HeldOutClassifier.of(
        np.stack([subject.features[row.id] for row in rows]), there.astype(np.int64), units
    )
    told = []
    for learnt in (half, ~half):
        score = classifier.learnt(there.astype(np.int64), 2, learnt)[:, 1]
        kept = np.flatnonzero(~learnt & _one_side(units, there))
        told.append((*stratified_auc(*_by_unit(score, there, strata, [units[i] for i in kept], kept)), score, learnt))
    auc, p = float(np.mean([each[0] for each in told])), min(each[1] for each in told)
    if auc < _LEAST_AUC or p > alpha("sides-differ", looks):
        return
    score = np.where(told[0][3], told[1][2], told[0][2])  # each image by the classifier that has not seen it
    order = np.flatnonzero(there)[np.argsort(-score[there], kind="stable")]
    yield Finding(
        code="sides-differ",
        severity="warning",
        certainty="observed",
        message=f"The {side} images look otherwise than the train images of the same class: of one from either side, a "
        f"model tells in {auc:.0%} of the cases which is which (50 % is chance).",
        advice=f"Find out where the {side} images come from. If that is how it will be used, the result is honest and "
        "training images of that kind will help most; if not, divide the data anew.",
        evidence={"side": side, "auc": auc, "p": p, "num_images": len(rows), "num_on_side": int(there.sum())},
        images=tuple(rows[i].id for i in order[:MAX_IMAGES]),
    )


def _strata(subject: AuditSubject, ids: Sequence[str]) -> npt.NDArray[np.int64]:
    """The class of each image where it has one; else all are of one kind."""
    if subject.manifest.multi_label or subject.manifest.numeric or subject.is_marked:
        return np.zeros(len(ids), np.int64)
    place = {name: i for i, name in enumerate(subject.manifest.classes)}
    return np.array([place[subject.rows[image_id].labels[0]] for image_id in ids], np.int64)


def _one_side(units: Sequence[str], there: Mask) -> Mask:
    """Images of units that are all on one side; the others belong to neither."""
    sides: dict[str, set[bool]] = {}
    for unit, side in zip(units, there.tolist(), strict=True):
        sides.setdefault(unit, set()).add(side)
    return np.array([len(sides[unit]) == 1 for unit in units], np.bool_)


def _enough(units: Sequence[str], there: Mask, half: Mask) -> bool:
    one, names = _one_side(units, there), np.array(units, np.str_)
    return all(
        len(np.unique(names[one & (there == side) & (half == part)])) >= _FEWEST_UNITS
        for side in (True, False)
        for part in (True, False)
    )


def _by_unit(
    score: Floats, there: Mask, strata: npt.NDArray[np.int64], units: Sequence[str], kept: npt.NDArray[np.int64]
) -> tuple[Floats, Mask, npt.NDArray[np.int64]]:
    """The mean score of each unit, its side, and the class of its first image."""
    _, first, code = np.unique(np.array(units, np.str_), return_index=True, return_inverse=True)
    means = np.bincount(code, score[kept]) / np.bincount(code)
    return np.asarray(means), there[kept][first], strata[kept][first]


def class_shares_differ(subject: AuditSubject) -> Iterator[Finding]:
    """Classes that are more common on val or test than on train: by an exact test for each class."""
    manifest = subject.manifest
    if manifest.origin != "user" or manifest.multi_label or manifest.numeric or subject.is_marked:
        return
    others = [side for side in subject.sides if side != "train"]
    for side in others if "train" in subject.sides else []:
        counts = np.array([[counts["train"], counts[side]] for counts in subject.class_counts.values()], np.float64)
        if not counts[counts.any(1)].all():  # missing_classes tells
            continue
        shares = counts / counts.sum(0)
        moved = float(np.abs(shares[:, 0] - shares[:, 1]).sum() / 2)
        if moved < _LEAST_MOVED:
            continue
        units = np.array([_units(subject, name, side) for name in subject.class_counts], np.int64)
        p = _fisher(units)
        most = int(np.abs(shares[:, 0] - shares[:, 1]).argmax())
        if p > alpha("class-shares-differ", len(others) * len(units)):
            continue
        names = list(subject.class_counts)
        yield Finding(
            code="class-shares-differ",
            severity="info",
            certainty="observed",
            message=f"The classes have other shares on {side} than on train: {names[most]} has {shares[most, 0]:.0%} "
            f"of the train images and {shares[most, 1]:.0%} of the {side} images.",
            advice="Read the recall of each class and their mean: the accuracy depends on the shares.",
            evidence={
                "side": side,
                "moved": moved,
                "p": p,
                "train": {name: float(share) for name, share in zip(names[:20], shares[:20, 0], strict=True)},
                side: {name: float(share) for name, share in zip(names[:20], shares[:20, 1], strict=True)},
            },
        )


def _units(subject: AuditSubject, name: str, side: Split) -> tuple[int, int]:
    """Units of a class on train and on ``side``: images of one patient are not drawn one by one."""
    there: dict[str, set[str]] = {"train": set(), side: set()}
    for row in subject.manifest.rows:
        if row.split in there and name in row.labels:
            there[row.split].add(subject.unit_of(row.id))
    return len(there["train"]), len(there[side])


def _fisher(units: npt.NDArray[np.int64]) -> float:
    """The least p-value of Fisher's exact tests, two-sided by doubling, of each class [k, 2] against the others."""
    from scipy.stats import hypergeom

    totals = units.sum(0)
    of_class = units.sum(1)
    law = hypergeom(int(totals.sum()), of_class, int(totals[1]))
    tails = np.minimum(law.cdf(units[:, 1]), law.sf(units[:, 1] - 1))
    return float(min(1.0, 2 * tails.min()))
