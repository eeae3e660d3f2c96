"""Checks of files and pictures: broken, unused, odd in size or shape, of mixed kinds, empty, very dark or light."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import numpy.typing as npt

from snellen.audit.remedies import left_out_of_training
from snellen.audit.subject import MAX_IMAGES, AuditSubject, counted, listed
from snellen.core.finding import Finding
from snellen.data.scan import ImageFacts

_ENOUGH = 20  # images below which nothing counts as unusual
_USUAL = 0.1  # what more than this share of the images does is not unusual
_MOST_EMPTY = 0.8  # of the training images, that may be left out: they teach nothing

KINDS: Mapping[str, str] = {
    **dict.fromkeys(("1", "L"), "grey"),
    **dict.fromkeys(("RGB", "P", "YCbCr", "LAB", "HSV"), "colour"),
    **dict.fromkeys(("RGBA", "LA", "PA", "RGBa", "La", "RGBX"), "transparent"),
    "CMYK": "CMYK",
    **dict.fromkeys(("I", "F", "I;16", "I;16B", "I;16L", "I;16N"), "16-bit or float"),
}
"""Pillow's modes by what they mean to a user."""


def broken_files(subject: AuditSubject) -> Iterator[Finding]:
    """Images that could not be decoded. Serious when they are more than a tenth."""
    listed_ids = {record.id for record in subject.listing.records}
    broken = [each for each in subject.left_out if each.path in listed_ids]
    if not broken:
        return
    share = len(broken) / len(listed_ids)
    reasons = Counter(each.reason for each in broken)
    yield Finding(
        code="broken-files",
        severity="serious" if share > 0.1 else "warning",
        message=f"{counted(len(broken), 'image')} of {len(listed_ids):,} cannot be decoded and "
        f"{'is' if len(broken) == 1 else 'are'} left out: {broken[0].path} {broken[0].reason}.",
        advice="Replace these files, or leave them out for good; training goes on without them.",
        evidence={
            "num_broken": len(broken),
            "share": share,
            "reasons": dict(reasons.most_common(10)),
            "files": {each.path: each.reason for each in broken[:MAX_IMAGES]},
        },
        images=tuple(each.path for each in broken[:MAX_IMAGES]),
    )


def left_out(subject: AuditSubject) -> Iterator[Finding]:
    """Everything else that is not used, by reason."""
    listed_ids = {record.id for record in subject.listing.records}
    others = [each for each in subject.left_out if each.path not in listed_ids]
    if not others:
        return
    reasons = Counter(each.reason for each in others)
    (reason, times), *_ = reasons.most_common(1)
    total = len(listed_ids) + len(others)
    yield Finding(
        code="left-out",
        severity="info",
        message=f"{counted(len(others), 'file')} of {total:,} found {'is' if len(others) == 1 else 'are'} not used, "
        f"{times:,} of them because: {reason}.",
        advice="Look through the list: a label or a folder that is spelt differently hides images.",
        evidence={
            "num_left_out": len(others),
            "reasons": dict(reasons.most_common(10)),
            "files": {each.path: each.reason for each in others[:MAX_IMAGES]},
        },
    )


def odd_sizes(subject: AuditSubject) -> Iterator[Finding]:
    """A few images much larger or smaller than the rest: sqrt(width * height) farther than three interquartile ranges
    from the quartiles."""
    odd = _unusual(subject, lambda facts: (facts.width * facts.height) ** 0.5, reach=3.0, floor=0.05)
    if odd:
        sizes = {image_id: f"{subject.facts[image_id].width} x {subject.facts[image_id].height}" for image_id in odd}
        yield Finding(
            code="odd-sizes",
            severity="info",
            certainty="observed",
            message=f"{counted(len(odd), 'image')} of {len(subject.facts):,} differ much in size from the rest, "
            f"for example {odd[0]} with {sizes[odd[0]]} pixels.",
            advice="Look at them: thumbnails and scans among photographs often came in by mistake.",
            evidence={"num_odd": len(odd), "sizes": dict(list(sizes.items())[:MAX_IMAGES])},
            images=odd[:MAX_IMAGES],
        )


def odd_shapes(subject: AuditSubject) -> Iterator[Finding]:
    """A few very long images: the short side below 0.35 of the long one."""
    shape = {image_id: min(f.width, f.height) / max(f.width, f.height) for image_id, f in subject.facts.items()}
    odd = sorted((image_id for image_id in shape if shape[image_id] < 0.35), key=lambda each: (shape[each], each))
    if odd and len(odd) <= _USUAL * len(shape):
        yield Finding(
            code="odd-shapes",
            severity="info",
            certainty="observed",
            message=f"{counted(len(odd), 'image')} of {len(shape):,} are much longer than wide or wider than long "
            f"(short side below 0.35 of the long one), the most extreme is {odd[0]}.",
            advice="Made square they are squeezed or cut: see whether what matters is still visible.",
            evidence={"num_odd": len(odd), "ratios": {each: round(shape[each], 3) for each in odd[:MAX_IMAGES]}},
            images=tuple(odd[:MAX_IMAGES]),
        )


def mixed_modes(subject: AuditSubject) -> Iterator[Finding]:
    """Grey, colour, transparent, CMYK and 16-bit files side by side."""
    kinds = {image_id: KINDS.get(facts.mode, facts.mode) for image_id, facts in subject.facts.items()}
    counts = Counter(kinds.values())
    if len(counts) < 2:
        return
    usual = counts.most_common(1)[0][0]
    rare = sorted((each for each in kinds if kinds[each] != usual), key=lambda each: (counts[kinds[each]], each))
    yield Finding(
        code="mixed-modes",
        severity="info",
        message="The files are of several kinds: "
        + ", ".join(f"{count:,} {kind}" for kind, count in counts.most_common())
        + ". All are read as RGB.",
        advice="Nothing needs doing unless the kind goes with the class (that is checked too) or 16-bit values "
        "carry detail that 8 bits lose.",
        evidence={"kinds": dict(counts.most_common()), "modes": dict(Counter(f.mode for f in subject.facts.values()))},
        images=tuple(rare[:MAX_IMAGES]),
    )


def shows_nothing(facts: ImageFacts) -> bool:
    """One flat shade: the standard deviation of the luma is below half a grey level."""
    return facts.contrast < 0.5 / 255


def empty_images(subject: AuditSubject) -> Iterator[Finding]:
    """Pictures of one flat grey or colour: the standard deviation of the luma is below half a grey level."""
    flat = sorted(image_id for image_id, facts in subject.facts.items() if shows_nothing(facts))
    if flat:
        yield Finding(
            code="empty-images",
            severity="warning",
            message=f"{counted(len(flat), 'image')} of {len(subject.facts):,} show nothing but one flat shade: "
            f"{listed(flat, 3)}.",
            advice="Remove them, unless an empty picture is what their class means.",
            evidence={
                "num_empty": len(flat),
                "brightness": {each: round(subject.facts[each].brightness, 3) for each in flat[:MAX_IMAGES]},
            },
            images=tuple(flat[:MAX_IMAGES]),
            treatment=left_out_of_training(subject, flat, most=_MOST_EMPTY),
        )


def odd_brightness(subject: AuditSubject) -> Iterator[Finding]:
    """A few images much darker or lighter than the rest. Night shots and X-rays may well be meant: information only."""
    odd = _unusual(subject, lambda facts: facts.brightness, reach=3.0, floor=0.05)
    odd = tuple(image_id for image_id in odd if not shows_nothing(subject.facts[image_id]))
    if odd:
        values = {image_id: round(subject.facts[image_id].brightness, 3) for image_id in odd[:MAX_IMAGES]}
        yield Finding(
            code="odd-brightness",
            severity="info",
            certainty="observed",
            message=f"{counted(len(odd), 'image')} of {len(subject.facts):,} are much darker or lighter than the rest, "
            f"for example {odd[0]} with a mean brightness of {values[odd[0]]:.2f}.",
            advice="Look at them: a failed exposure teaches little.",
            evidence={"num_odd": len(odd), "brightness": values},
            images=odd[:MAX_IMAGES],
        )


def _unusual(
    subject: AuditSubject, value: Callable[[ImageFacts], float], *, reach: float, floor: float
) -> tuple[str, ...]:
    """Ids whose value lies farther than ``reach`` interquartile ranges outside the quartiles, the farthest first.

    The range counts as at least ``floor`` times the median. Empty when there are few images or many such: what a tenth
    of the images does is no exception.
    """
    ids = list(subject.facts)
    if len(ids) < _ENOUGH:
        return ()
    values: npt.NDArray[np.float64] = np.array([value(subject.facts[image_id]) for image_id in ids])
    low, median, high = np.quantile(values, (0.25, 0.5, 0.75))
    spread = max(high - low, floor * median)
    excess = np.maximum(low - values, values - high) - reach * spread
    rows = sorted(np.flatnonzero(excess > 0), key=lambda row: (-excess[row], ids[row]))
    return tuple(ids[row] for row in rows) if len(rows) <= _USUAL * len(ids) else ()
