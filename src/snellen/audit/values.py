"""Checks of numbers to be predicted: outliers, copies that disagree, short cuts, and enough images for the claim."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from snellen.audit.subject import MAX_IMAGES, AuditSubject, counted
from snellen.core.estimate import amount
from snellen.core.finding import Finding
from snellen.core.record import Split

Floats = npt.NDArray[np.float64]

_ENOUGH = 20  # images below which nothing counts as unusual
_FAR = 6.0  # robust standard deviations; a normal distribution has two in a thousand million beyond
_USUAL = 0.02  # what more than this share of the images does is not unusual
_MOST_PAIRS = 12  # spelt out in the evidence
_SAME = 1e-6  # of the spread: nearer than this, two numbers are one
_NEAR_TOLERANCE = 0.5  # spreads by which the numbers of near duplicates may differ
_FEWEST = 20  # images for a correlation
_STANDARD_ERRORS = 4.5
_CERTAIN_TO = 0.20
# |e| of a normal error has a standard deviation of 0.7555 times its mean: 95 % of mean errors over n images lie within
# 1.96 x 0.7555 / sqrt(n) of it.
_RELATIVE = 1.96 * 0.7555


def outlying_values(subject: AuditSubject) -> Iterator[Finding]:
    """A few numbers far from all others: more than 6 robust standard deviations (1.4826 x the median distance from the
    median) from the median. Where all are positive, on whichever scale, plain or logarithmic, fewer stand out."""
    for name, values in subject.values.items():
        ids, numbers = list(values), np.array(list(values.values()))
        scales = [numbers, np.log(numbers)] if len(numbers) and numbers.min() > 0 else [numbers]
        found = min(
            (_far(scale) for scale in scales), key=lambda far: (np.count_nonzero(far), float(far.max(initial=0)))
        )
        odd = [ids[i] for i in np.argsort(-found, kind="stable")[: np.count_nonzero(found)]]
        if not odd or len(ids) < _ENOUGH or len(odd) > max(1, _USUAL * len(ids)):
            continue
        low, middle, high = np.quantile(numbers, (0.05, 0.5, 0.95))
        yield Finding(
            code="outlying-values",
            severity="warning",
            certainty="observed",
            message=f"{counted(len(odd), 'image has', 'images have')} a number for '{name}' far from all others, as "
            f"{odd[0]} with {amount(values[odd[0]])}; nine in ten lie between {amount(low)} and {amount(high)}.",
            advice="Look whether these are typing errors, other units, or codes for 'unknown' such as 999: a squared "
            "error gives each of them the weight of many images. Correct or remove them, or train with --loss l1.",
            evidence={
                "name": name,
                "num_odd": len(odd),
                "median": float(middle),
                "values": {each: values[each] for each in odd[:MAX_IMAGES]},
            },
            images=tuple(odd[:MAX_IMAGES]),
        )


def conflicting_values(subject: AuditSubject) -> Iterator[Finding]:
    """Duplicates whose numbers differ: of exact copies at all, of near duplicates by more than half a spread."""
    known = [pair for pair in subject.pairs if pair.first in subject.rows and pair.second in subject.rows]
    for name, values in subject.values.items():
        spread = _spread(np.array(list(values.values())))
        limits = {"exact": _SAME * spread, "near": _NEAR_TOLERANCE * spread}
        pairs = [pair for pair in known if abs(values[pair.first] - values[pair.second]) > limits[pair.kind]]
        if not pairs:
            continue
        pairs.sort(key=lambda pair: -abs(values[pair.first] - values[pair.second]))
        exact = sum(pair.kind == "exact" for pair in pairs)
        worst = pairs[0]
        yield Finding(
            code="conflicting-values",
            severity="serious" if exact else "warning",
            message=f"{counted(len(pairs), 'pair')} of duplicates ({exact} exact) differ in '{name}': {worst.first} "
            f"has {amount(values[worst.first])} and {worst.second} has {amount(values[worst.second])}.",
            advice="Decide which number is right and correct it or remove the image; a model cannot learn both.",
            evidence={
                "name": name,
                "num_pairs": len(pairs),
                "num_exact": exact,
                "pairs": [
                    [pair.first, values[pair.first], pair.second, values[pair.second]] for pair in pairs[:_MOST_PAIRS]
                ],
            },
            images=tuple(dict.fromkeys(each for pair in pairs for each in (pair.first, pair.second)))[:MAX_IMAGES],
        )


def value_shortcuts(subject: AuditSubject) -> Iterator[Finding]:
    """A number that goes with the file rather than with what it shows: Spearman's correlation with the number of
    pixels, the shape or (at 0.9: it is part of the picture) the brightness. The most telling of the first two."""
    if not subject.values:
        return
    ids = list(subject.rows)
    facts = [subject.facts[image_id] for image_id in ids]
    properties = {
        "resolution": ("number of pixels", 0.6, np.array([float(each.width * each.height) for each in facts])),
        "shape": ("ratio of width to height", 0.6, np.array([each.width / each.height for each in facts])),
        "brightness": ("mean brightness", 0.9, np.array([each.brightness for each in facts])),
    }
    for name, values in subject.values.items():
        numbers = np.array([values[image_id] for image_id in ids])
        found = {}
        for code, (_, least, measured) in properties.items():
            rho = _rank_correlation(numbers, measured)
            if abs(rho) >= least and abs(rho) * len(ids) ** 0.5 > _STANDARD_ERRORS:
                found[code] = rho
        sizes = sorted((code for code in found if code != "brightness"), key=lambda code: -abs(found[code]))
        for code in [*sizes[:1], *(["brightness"] if "brightness" in found else [])]:
            yield _shortcut(name, code, properties[code][0], found[code])


def _shortcut(name: str, code: str, words: str, rho: float) -> Finding:
    return Finding(
        code=f"shortcut-{code}",
        severity="info" if code == "brightness" else "warning",
        certainty="observed",
        message=f"'{name}' goes with the {words} of the image (rank correlation {rho:.2f}).",
        advice="A model can learn this instead of what the picture shows, and fails on files from elsewhere. Make sure "
        "that the connection is real, or give all images the same source and processing.",
        evidence={"property": code, "name": name, "spearman": round(rho, 3)},
    )


def narrow_values(subject: AuditSubject) -> Iterator[Finding]:
    """Numbers that differ by less than a hundred-thousandth of their size, which a network's arithmetic cannot tell
    apart."""
    for name, values in subject.values.items():
        numbers = np.array(list(values.values()))
        size, spread = float(np.abs(numbers).max(initial=0.0)), float(numbers.std())
        if 0 < spread < 1e-5 * size:
            yield Finding(
                code="narrow-values",
                severity="serious",
                message=f"'{name}' lies around {amount(float(np.median(numbers)), 9)} and differs by about "
                f"{amount(spread)} only: single precision does not tell such numbers apart.",
                advice="Subtract a fixed number from the column, such as its smallest value.",
                evidence={"name": name, "spread": spread, "largest": size},
            )


def few_judged(subject: AuditSubject) -> Iterator[Finding]:
    """So few test images (val, where there is no test) that the mean error is not known to +-20 % of itself."""
    side: Split = "test" if "test" in subject.sides else "val"
    n = len(subject.manifest.ids(side))
    if not subject.values or n == 0 or _RELATIVE / n**0.5 <= _CERTAIN_TO:
        return
    enough = int(np.ceil((_RELATIVE / _CERTAIN_TO) ** 2))
    yield Finding(
        code="too-few-images",
        severity="warning",
        message=f"The result rests on {counted(n, f'{side} image')}: with normal errors their mean would be known to "
        f"+-{_RELATIVE / n**0.5:.0%} of itself only.",
        advice=f"At least {enough} {side} images are needed for +-{_CERTAIN_TO:.0%}; add images, or use "
        "cross-validation.",
        evidence={"num_images": n, "side": side, "relative": _RELATIVE / n**0.5, "enough": enough},
    )


def _far(numbers: Floats) -> Floats:
    """How many robust standard deviations each number is from the median, 0 for those within six."""
    spread = _spread(numbers)
    distance = np.abs(numbers - np.median(numbers)) / spread if spread > 0 else np.zeros(len(numbers))
    return np.where(distance > _FAR, distance, 0.0)


def _spread(numbers: Floats) -> float:
    """1.4826 x the median distance from the median; where half of the numbers are one, the standard deviation."""
    if not len(numbers):
        return 0.0
    robust = 1.4826 * float(np.median(np.abs(numbers - np.median(numbers))))
    return robust or float(numbers.std())


def _rank_correlation(one: Floats, other: Floats) -> float:
    """Spearman's, equal numbers sharing the mean of their ranks; 0 where one never changes or images are few."""
    if len(one) < _FEWEST or np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(np.corrcoef(_ranks(one), _ranks(other))[0, 1])


def _ranks(numbers: Floats) -> Floats:
    _, place, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    return np.asarray((counts.cumsum() - (counts - 1) / 2)[place])


def spread_over_sides(
    values: Mapping[str, float], sides: Mapping[Split, Sequence[str]], bins: int
) -> dict[str, object]:
    """Edges [bins + 1] over all numbers, counts [bins] and the median of each side. ``sides``: record ids by side."""
    edges = np.histogram_bin_edges(np.array(list(values.values())), bins=bins)
    found = {side: np.array([values[each] for each in ids]) for side, ids in sides.items()}
    return {
        "edges": [float(f"{edge:.6g}") for edge in edges],
        "counts": {side: np.histogram(numbers, bins=edges)[0].tolist() for side, numbers in found.items()},
        "medians": {side: float(np.median(numbers)) for side, numbers in found.items() if len(numbers)},
        "least": min(values.values()),
        "most": max(values.values()),
    }
