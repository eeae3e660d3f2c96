"""Parts of the images that a model may fail on: candidates, made and ranked on one half of the images.

A candidate says of every image whether it belongs, by rules that were learnt on the learning half alone, so that the
other half can judge it. Candidates from features look at what the network sees and answers, never at the truth: which
images of a class lie among those of another is no property of a part, but what being wrong means.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Codes = NDArray[np.int64]
Rows = NDArray[np.intp]

FEWEST = 10  # images of a part, in each half: exact tests do the rest
TIMES, MORE = 2.0, 0.10  # error rate of a part against what is expected of it: at least twice, and 10 points more
_MAX_VALUES, _MAX_COLUMNS = 40, 12
_QUANTILES = (0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95)
_MAX_COMPONENTS = 24
_BASIS = 1000  # images that a kernel function is fitted on: the cost grows with the cube
_WIDTHS = (0.5, 1.0, 2.0)  # of the median distance
_FEWEST_FOR_FEATURES = 40
_PENALTY = 3.0
_SHARES = (0.025, 0.05, 0.10, 0.20)


@dataclass(frozen=True, eq=False)
class Candidate:
    """words for the rule, and which images belong, [n]."""

    words: str
    members: Mask


def confidence_strata(confidence: Floats) -> Codes:
    """Strata of like confidence, [n]: each holds as many expected errors as the next, so low confidences are told
    finely apart. At least 40 images a stratum on average, and 12 strata at most."""
    num = int(np.clip(len(confidence) // 40, 1, 12))
    order = np.argsort(confidence, kind="stable")
    mass = np.cumsum(1 - confidence[order] + 1e-3)
    strata = np.empty(len(confidence), np.int64)
    strata[order] = np.minimum((mass / mass[-1] * num).astype(np.int64), num - 1)
    return strata


def expected_errors(wrong: Mask, strata: Codes, learned: Mask) -> Floats:
    """The error rate of each image's stratum on the learning half, [n]."""
    num = int(strata.max()) + 1
    n = np.bincount(strata[learned], minlength=num)
    return np.asarray(((np.bincount(strata[learned], wrong[learned], num) + 0.5) / (n + 1))[strata], np.float64)


def most_telling(
    candidates: Sequence[Candidate], wrong: Mask, expected: Floats, learned: Mask, most: int
) -> list[Candidate]:
    """The candidates with the clearest excess of errors on the learning half, those that share half their images with
    a clearer one left out."""
    if not candidates:
        return []
    members = np.array([candidate.members[learned] for candidate in candidates], np.float64)
    n, errors, chance = members.sum(1), members @ wrong[learned], members @ expected[learned]
    spread = np.sqrt(members @ (expected * (1 - expected))[learned] + 1)
    telling = (errors - chance) / spread
    fit = (n >= FEWEST) & (errors >= TIMES * chance) & (errors >= chance + MORE * n)
    kept: list[int] = []
    for index in np.argsort(-telling, kind="stable"):
        if len(kept) < most and fit[index] and all(_shared(members[index], members[other]) < 0.5 for other in kept):
            kept.append(int(index))
    return [candidates[index] for index in kept]


def _shared(first: Floats, second: Floats) -> float:
    return float(np.minimum(first, second).sum() / max(1.0, np.maximum(first, second).sum()))


def by_facts(
    facts: Mapping[str, Sequence[Any]], truth: Codes, classes: Sequence[str], learned: Mask
) -> list[Candidate]:
    """Values and ranges of each column, of pairs of columns, and of each column within each class."""
    names = dict(enumerate(classes))
    columns = [list(_parts(name, values, learned)) for name, values in list(facts.items())[:_MAX_COLUMNS]]
    single = [part for column in columns for part in column]
    pairs = [
        Candidate(f"{one.words} and {other.words}", one.members & other.members)
        for first, second in combinations(columns, 2)
        for one in first
        for other in second
    ]
    within = [
        Candidate(f"{names.get(int(index), index)} with {part.words}", part.members & (truth == index))
        for part in single
        for index in np.unique(truth)
    ]
    enough = [part for part in (*single, *pairs, *within) if np.count_nonzero(part.members & learned) >= FEWEST]
    return [part for part in enough if np.count_nonzero(part.members & learned) <= 0.5 * np.count_nonzero(learned)]


def _parts(name: str, values: Sequence[Any], learned: Mask) -> Iterator[Candidate]:
    column = np.asarray(values)
    if column.dtype.kind in "fiu" and len(np.unique(column)) > 10:
        numbers = column.astype(np.float64)
        finite = numbers[learned & np.isfinite(numbers)]
        if not len(finite):
            return
        edges = dict(zip(_QUANTILES, np.quantile(finite, _QUANTILES), strict=True))
        for share in (0.05, 0.10, 0.25):
            low, high = edges[share], edges[1 - share]
            yield Candidate(f"{name} <= {low:.4g}", numbers <= low)
            yield Candidate(f"{name} >= {high:.4g}", numbers >= high)
        for start, end in ((0.25, 0.50), (0.50, 0.75)):
            inside = (numbers > edges[start]) & (numbers <= edges[end])
            yield Candidate(f"{edges[start]:.4g} < {name} <= {edges[end]:.4g}", inside)
        return
    texts = np.asarray([str(value) for value in values])
    found, counts = np.unique(texts[learned], return_counts=True)
    for value in found[np.argsort(-counts, kind="stable")][:_MAX_VALUES]:
        yield Candidate(f"{name} = {value}", texts == value)


def by_features(features: Floats, probabilities: Floats, residual: Floats, learned: Mask) -> list[Candidate]:
    """Regions where errors are more frequent than expected, as smooth functions of what the network sees foretell it.

    residual  error minus expected error, [n]; that of the learning half alone is read

    The functions are ridge regressions, linear and with Gaussian kernels of several widths (Saunders, Gammerman and
    Vovk, ICML 1998), of the leading principal components and the probabilities. A region is where one of them is
    highest; within the learning half it is ranked by what it foretells of images that it was not fitted on.
    """
    if np.count_nonzero(learned) < _FEWEST_FOR_FEATURES:
        return []
    seen = _seen(features, probabilities, learned)
    rows = np.flatnonzero(learned)
    basis = rows[np.linspace(0, len(rows) - 1, min(len(rows), _BASIS)).astype(np.intp)]
    found = []
    for kernel in _kernels(seen, basis):
        told = _foretold(kernel, basis, residual[basis])
        for share in _SHARES:
            cut = np.quantile(told[learned], 1 - share)
            found.append(Candidate("images alike in what the network sees", told > cut))
    return found


def _seen(features: Floats, probabilities: Floats, learned: Mask) -> Floats:
    """Principal components of the learning half and probabilities, each block of variance 1, [n, d]."""
    centred = features - features[learned].mean(axis=0)
    spread = centred[learned].std(axis=0)
    centred = centred / np.where(spread > 1e-9, spread, np.inf)
    num = int(min(_MAX_COMPONENTS, np.count_nonzero(learned) // 8, features.shape[1]))
    _, _, axes = np.linalg.svd(centred[learned], full_matrices=False)
    components = centred @ axes[:num].T
    blocks = [components / max(1e-9, float(np.sqrt((components[learned] ** 2).sum(1).mean())))]
    offset = probabilities - probabilities[learned].mean(axis=0)
    blocks.append(offset / max(1e-9, float(np.sqrt((offset[learned] ** 2).sum(1).mean()))))
    return np.asarray(np.hstack(blocks), np.float64)


def _kernels(seen: Floats, basis: Rows) -> Iterator[Floats]:
    """Similarities of every image to those of the basis, [n, basis]."""
    some = seen[basis]
    yield seen @ some.T * seen.shape[1]
    squares = (seen**2).sum(1)[:, None] + (some**2).sum(1)[None] - 2 * seen @ some.T
    middle = float(np.median(squares))
    for width in _WIDTHS:
        yield np.exp(-squares.clip(0) / (2 * width**2 * max(middle, 1e-12) / 4))


def _foretold(kernel: Floats, basis: Rows, target: Floats) -> Floats:
    """The residual that ridge regression foretells, [n]; of each image of the basis, by all the others of it (the
    closed form for leaving one out, Rifkin and Lippert, MIT-CSAIL-TR-2007-025)."""
    inverse = np.linalg.inv(kernel[basis] + _PENALTY * np.eye(len(basis)))
    weights = inverse @ target
    told = kernel @ weights
    told[basis] = target - weights / np.diag(inverse)
    return np.asarray(told, np.float64)
