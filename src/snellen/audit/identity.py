"""Does the split leak identity: can a model recognise on val or test the very patient, plant or scene it learnt from?

The random-label test: two groups of one class, each on both sides, get the labels 0 and 1 by lot, a model learns them
from the train images alone and is asked about the others. The labels mean nothing, so that whoever is right oftener
than half of the times has recognised the group. Each pair of groups is one trial, and no group is in two of them.

Groups are those that are named, or that the file names tell. Else they are the bursts of one camera
(capture_times.py), or sought: small sets of images that are all more alike than any of them is to the rest. These are
found in one half of the features and tried by the other half.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from snellen.audit.labelled import FEWEST, Floats
from snellen.audit.neighbours import nearest
from snellen.audit.subject import MAX_IMAGES, AuditSubject
from snellen.core.finding import Finding
from snellen.core.record import Split
from snellen.core.seeds import keyed_permutation
from snellen.core.thresholds import alpha
from snellen.metrics.held_out_classifier import HeldOutClassifier

_LARGEST = 12  # images of a sought group: what is larger may be a kind of thing
_SMALLEST = 3
_APART = 1.3  # how much farther the rest must be than the farthest of the group
_LEAST_RIGHT = 0.75  # of the trials; 0.5 is chance
_LEAST_SHARE = 0.10  # of a side's images that are of groups which train has too
_LEAST_PURE = 0.5  # of the way from chance to certainty, by which a group's class on train tells that on the other side
_LEAST_HARM = 0.05  # of the shared images, told rightly only by whoever knows the own group

_ALIKE = "sets of images that are more alike than any is to the rest"

Rows = npt.NDArray[np.int64]
Groups = Mapping[str, Sequence[int]]  # name -> rows
Parts = Mapping[str, tuple[Rows, Rows]]  # name -> its rows on train, and on the other side


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Seen:
    """ids, sides and kinds (classes as text) of the images [n]; features [n, d]."""

    ids: Sequence[str]
    sides: Sequence[Split]
    kinds: Sequence[str]
    features: npt.NDArray[np.float32]


def identity_leak(subject: AuditSubject) -> Iterator[Finding]:
    """Groups on train and on another side of a given split that are recognised, and whose class goes with them.

    The nearest train image must tell the class better with the own group than without, and than a classifier of the
    classes that has not seen the group. If without it is right far less
    often than by chance, the next that looks alike is of another class: the same background, and no group of its own.
    Where there are no classes the images are taken to be of one kind, and nothing can be said.
    """
    if subject.features is None or subject.manifest.origin != "user" or len(subject.features) < FEWEST:
        return
    others = [side for side in subject.sides if side != "train"]
    seen = _seen(subject)
    ways = _ways(subject, seen)
    for side in others:
        for what, groups, features in ways:
            found = list(_recognised(seen, groups, features, side, what=what, looks=len(others) * len(ways)))
            if found:
                yield from found
                break


def _ways(subject: AuditSubject, seen: _Seen) -> list[tuple[str, Groups, npt.NDArray[np.float32]]]:
    """Kinds of groups, each with the features that it is tried by."""
    named = _named(subject, seen)
    if named:
        return [("groups", named, seen.features)]
    place = {image_id: i for i, image_id in enumerate(seen.ids)}
    bursts = {name: [place[each] for each in ids if each in place] for name, ids in subject.bursts.items()}
    bursts = {name: rows for name, rows in bursts.items() if rows}
    return [
        *([("bursts of one camera", bursts, seen.features)] if bursts else []),
        (_ALIKE, _sought(seen), seen.features[:, 1::2]),
    ]


def _recognised(
    seen: _Seen, groups: Groups, features: npt.NDArray[np.float32], side: Split, *, what: str, looks: int
) -> Iterator[Finding]:
    from scipy.special import bdtrc

    sides = np.array(seen.sides, np.str_)
    parts = {
        name: (rows[sides[rows] == "train"], rows[sides[rows] == side])
        for name, rows in ((name, np.array(members)) for name, members in groups.items())
    }
    parts = {name: each for name, each in parts.items() if len(each[0]) and len(each[1])}
    there = int((sides == side).sum())
    shared = sum(len(rows) for _, rows in parts.values())
    if shared < _LEAST_SHARE * there or not _class_goes_with(seen, parts):
        return
    pairs = _pairs(seen, parts)
    right = sum(_is_right(features, parts[one], parts[other]) for one, other in pairs)
    p = float(bdtrc(right - 1, len(pairs), 0.5)) if right else 1.0
    if right < _LEAST_RIGHT * len(pairs) or p > alpha("identity-leak", looks):
        return
    with_them, without = _nearest_right(seen, seen.features, parts)
    if with_them - without < _LEAST_HARM or without < _chance(seen) / 2:
        return
    honest = _classified_without(seen, seen.features, parts)
    if with_them - honest < _LEAST_HARM:
        return
    order = sorted(parts, key=lambda name: (-len(parts[name][0]) - len(parts[name][1]), name))
    images = [seen.ids[i] for name in order for i in (parts[name][0][0], parts[name][1][0])]
    yield Finding(
        code="identity-leak",
        severity="serious",
        certainty="confirmed",
        message=f"{shared} of {there} {side} images are of {len(parts)} {what} that train has too, and a model "
        f"recognises them: of labels drawn by lot it tells {right} of {len(pairs)} rightly.",
        advice="The result rewards memory. Keep each patient, plant, scene or film on one side: name the groups, or "
        "let Snellen divide the data by them.",
        evidence={
            "side": side,
            "num_shared": shared,
            "num_groups": len(parts),
            "named": what == "groups",
            "num_trials": len(pairs),
            "num_right": right,
            "p": p,
            "nearest_neighbour_right": with_them,
            "nearest_neighbour_right_without_own_group": without,
            "classifier_right_without_own_group": honest,
            "groups": [[seen.ids[i] for i in np.concatenate(parts[name])[:6]] for name in order[:12]],
        },
        images=tuple(dict.fromkeys(images))[:MAX_IMAGES],
        treatment={
            "overlay": [
                {"image": seen.ids[i], "action": "group", "value": name}
                for name in sorted(parts)
                for i in np.concatenate(parts[name]).tolist()
            ]
        },
    )


def _seen(subject: AuditSubject) -> _Seen:
    """One image of each set of duplicates on a side: copies across sides are told by ``leak_across_splits``."""
    assert subject.features is not None
    taken: set[str] = set()
    rows = []
    for row in subject.manifest.rows:
        if row.id in subject.features and (row.cluster is None or row.cluster not in taken):
            taken.update([row.cluster] if row.cluster is not None else [])
            rows.append(row)
    told = not (subject.is_marked or subject.manifest.numeric)
    return _Seen(
        ids=[row.id for row in rows],
        sides=[row.split for row in rows],
        kinds=["\n".join(sorted(row.labels)) if told else "" for row in rows],
        features=np.stack([subject.features[row.id] for row in rows]),
    )


def _named(subject: AuditSubject, seen: _Seen) -> Groups:
    groups: dict[str, list[int]] = {}
    for i, image_id in enumerate(seen.ids):
        group = subject.rows[image_id].group
        if group is not None:
            groups.setdefault(group, []).append(i)
    return groups


def _sought(seen: _Seen) -> Groups:
    """Sets of 3 to 12 images of which each has all the others as its nearest, and then a gap."""
    most = min(_LARGEST, len(seen.ids) // 4)
    found = nearest(seen.features[:, ::2], seen.ids, most)
    gaps = found.distances[:, 1:] / np.maximum(found.distances[:, :-1], 1e-9)
    gaps[:, : _SMALLEST - 2] = 0.0
    wide = gaps >= _APART
    last = np.where(wide.any(1), wide.shape[1] - 1 - wide[:, ::-1].argmax(1), 0)  # the outermost: a film, not its parts
    sets = [
        frozenset([i, *found.index[i, : last[i] + 1].tolist()]) if gaps[i, last[i]] >= _APART else frozenset()
        for i in range(len(seen.ids))
    ]
    agreed = {each for each in sets if each and all(sets[j] == each for j in each)}
    return {f"like {seen.ids[min(each)]}": sorted(each) for each in agreed}


def _class_goes_with(seen: _Seen, parts: Parts) -> bool:
    """Whether a group's class on train tells its class on the other side: else knowing the group helps nobody.

    Of a background that recurs with every class it does not.
    """
    chance = _chance(seen)
    if chance == 1 or not parts:
        return bool(parts)
    same = np.mean([seen.kinds[one[0]] == seen.kinds[other[0]] for one, other in parts.values()])
    return bool(same >= chance + _LEAST_PURE * (1 - chance))


def _chance(seen: _Seen) -> float:
    """That two images at random are of one class."""
    _, counts = np.unique(np.array(seen.kinds, np.str_), return_counts=True)
    return float(np.square(counts / counts.sum()).sum())


def _pairs(seen: _Seen, parts: Parts) -> list[tuple[str, str]]:
    """Groups of one class, two by two, each once."""
    names = sorted(parts)
    waiting: dict[str, str] = {}
    pairs = []
    for i in keyed_permutation(len(names), "pairs of groups").tolist():
        one, other = parts[names[i]]
        kinds = {seen.kinds[row] for row in (*one.tolist(), *other.tolist())}
        if len(kinds) != 1:
            continue
        partner = waiting.pop(kind := kinds.pop(), None)
        if partner is None:
            waiting[kind] = names[i]
        else:
            pairs.append((partner, names[i]))
    return pairs


def _is_right(
    features: npt.NDArray[np.float32],
    one: tuple[Rows, Rows],
    other: tuple[Rows, Rows],
) -> bool:
    """Whether the nearest train images tell the two groups' other images the right way round rather than the wrong.

    If which is which could not be seen, either way round would be as likely.
    """
    own = _distance(features, one[1], one[0]) + _distance(features, other[1], other[0])
    crossed = _distance(features, one[1], other[0]) + _distance(features, other[1], one[0])
    return own < crossed


def _distance(features: npt.NDArray[np.float32], asked: Rows, known: Rows) -> float:
    """The mean distance of those that are asked to the nearest of those that are known."""
    apart: Floats = np.linalg.norm(features[asked][:, None].astype(np.float64) - features[known][None], axis=2)
    return float(apart.min(1).mean())


def _nearest_right(
    seen: _Seen,
    features: npt.NDArray[np.float32],
    parts: Parts,
) -> tuple[float, float]:
    """How many of the shared images the nearest train image tells rightly, with those of its own group and without."""
    train = np.flatnonzero(np.array(seen.sides, np.str_) == "train")
    group = np.full(len(seen.ids), -1)
    for number, (one, other) in enumerate(parts.values()):
        group[one] = group[other] = number
    kinds = np.array(seen.kinds, np.str_)
    right = np.zeros(2)
    rows = np.concatenate([other for _, other in parts.values()])
    known = features[train].astype(np.float64)
    for i in rows.tolist():
        apart = np.square(known - features[i]).sum(1)
        alone = np.where(group[train] == group[i], np.inf, apart)
        right += [kinds[train[apart.argmin()]] == kinds[i], kinds[train[alone.argmin()]] == kinds[i]]
    return float(right[0] / len(rows)), float(right[1] / len(rows))


def _classified_without(seen: _Seen, features: npt.NDArray[np.float32], parts: Parts) -> float:
    """How many of the shared images a classifier tells rightly that has seen all images but those of their group.

    It learns what changes within a class and looks past it, as a network does: where backgrounds recur within a class
    and the class shows beside them, it loses nothing with the group, and the result is as good as it looks.
    """
    units: list[str | None] = [None] * len(seen.ids)
    for name, (one, other) in parts.items():
        for i in (*one.tolist(), *other.tolist()):
            units[i] = name
    kinds, codes = np.unique(np.array(seen.kinds, np.str_), return_inverse=True)
    scores = HeldOutClassifier.of(features, codes.astype(np.int64), units).scores(codes.astype(np.int64), len(kinds))
    rows = np.concatenate([other for _, other in parts.values()])
    return float((scores.argmax(1) == codes)[rows].mean())
