"""Exact and near-duplicates: the same picture, possibly resized, recompressed, cropped, mirrored, turned or brighter.

Descriptors propose pairs (proposals.py), a registration confirms them (registration.py). What counts as the same:

* exact: the decoded pixels are equal, whatever the files' bytes say.
* near: in one of the eight orientations of a square, after the best scale and shift, the two agree everywhere, not only
  on the whole: correlation at least 0.975 and no block of 1/64 of the picture off by more than 24 grey levels. A crop
  must keep about 70 % of the area.
* The more alike the images of a data set are anyway (a fixed camera, parts on a belt), the closer a pair has to be.
* Pictures that are flat for the most part (a shape on a plain ground) have nothing that fixes scale and shift, so they
  must agree as they are or mirrored, and more closely. Turned they may be another class: an arrow, a digit.
* Images with a side below 32 pixels must be of one size and equal to within 2 grey levels on average: of two 8 x 8
  digits by two writers, many are closer than a photograph and its crop.

Left out on purpose: copies turned by other angles than quarters, with other colours, grey copies of colour images.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from snellen.data.fingerprint import PARTS, SIDE, Floats, Pixels, oriented, stack
from snellen.data.proposals import Proposals, propose
from snellen.data.registration import Agreement, align, compare, largest_difference

if TYPE_CHECKING:
    from snellen.data.scan import ImageFacts

Mask = npt.NDArray[np.bool_]

TINY = 32  # pixels, the shorter side
MIN_CORRELATION = 0.975
MAX_DIFFERENCE = 24.0  # grey levels, root mean square of the worst block
# Coarse to fine: side, blur and steps of the registration, and the correlation without which a pair is given up.
_LEVELS = ((16, 1.0, 5, 0.8), (32, 0.8, 3, 0.93), (SIDE, 0.7, 1, MIN_CORRELATION))
_PLACES = np.array([[part.side, part.left, part.side, part.top] for part in PARTS], np.float32)
MAX_TINT = 36.0  # levels of red or blue less luma
_MIRRORED = 1  # the orientation
_BATCH = 64  # pairs registered at once: about 15 MB


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicate:
    """Two images, by id, that show the same picture. similarity is 1.0 for exact ones, else their correlation."""

    first: str
    second: str
    kind: Literal["exact", "near"]
    similarity: float


def find_duplicates(facts: Mapping[str, ImageFacts]) -> list[Duplicate]:
    """The duplicates among the images: exact ones first, then near ones, the most alike first.

    Of k exact copies k - 1 pairs are returned (each with the first by id), and only that first one is looked up among
    the near-duplicates; ``clusters`` puts them together. The result does not depend on the order of ``facts``.
    """
    twins: dict[str, list[str]] = {}
    for image_id in sorted(facts):
        twins.setdefault(facts[image_id].pixel_hash, []).append(image_id)
    exact = [
        Duplicate(first=ids[0], second=other, kind="exact", similarity=1.0)
        for ids in twins.values()
        for other in ids[1:]
    ]
    unlike = sorted(ids[0] for ids in twins.values())
    tiny = [image_id for image_id in unlike if min(facts[image_id].width, facts[image_id].height) < TINY]
    ample = [image_id for image_id in unlike if min(facts[image_id].width, facts[image_id].height) >= TINY]
    near = _tiny_duplicates(tiny, facts) + _near_duplicates(ample, facts)
    return exact + sorted(near, key=lambda pair: (-pair.similarity, pair.first, pair.second))


def clusters(ids: Iterable[str], pairs: Iterable[Duplicate]) -> list[tuple[str, ...]]:
    """Sets of two or more ids that are linked by pairs, directly or through others; sorted within and among themselves.

    Pairs with an id that isn't in ``ids`` are ignored.
    """
    parent = {image_id: image_id for image_id in ids}
    link(parent, ((pair.first, pair.second) for pair in pairs))
    members: dict[str, list[str]] = {}
    for image_id in sorted(parent):
        members.setdefault(root(parent, image_id), []).append(image_id)
    return sorted(tuple(found) for found in members.values() if len(found) > 1)


def root(parent: dict[str, str], image_id: str) -> str:
    """The representative of an id in a union-find forest; flattens the path to it."""
    while parent[image_id] != image_id:
        parent[image_id] = parent[parent[image_id]]
        image_id = parent[image_id]
    return image_id


def link(parent: dict[str, str], edges: Iterable[tuple[str, str]]) -> None:
    """Join the trees of both ends of every edge; the smaller id becomes the representative."""
    for first, second in edges:
        if first in parent and second in parent:
            one, two = root(parent, first), root(parent, second)
            parent[max(one, two)] = min(one, two)


# ---- ample images


def _near_duplicates(ids: Sequence[str], facts: Mapping[str, ImageFacts]) -> list[Duplicate]:
    if len(ids) < 2:
        return []
    grey, colour = stack([facts[image_id].fingerprint for image_id in ids])
    proposals = propose(grey)
    needed = _needed_correlation(grey)
    found = []
    for start in range(0, len(proposals), _BATCH):
        batch = slice(start, start + _BATCH)
        rows, correlation = _confirmed(grey, colour, proposals, batch, needed)
        for row, value in zip(rows, correlation, strict=True):
            first, second = sorted((ids[proposals.first[row]], ids[proposals.second[row]]))
            found.append(Duplicate(first=first, second=second, kind="near", similarity=round(float(value), 4)))
    return found


def _confirmed(
    grey: Pixels, colour: Pixels, proposals: Proposals, batch: slice, needed: float
) -> tuple[npt.NDArray[np.int64], Floats]:
    """Rows of the batch's proposals that hold, and their correlations."""
    rows = np.arange(len(proposals), dtype=np.int64)[batch]
    placement = _PLACES[proposals.part[rows]]
    for side, blur, steps, hopeful in _LEVELS:
        first = _reduced(oriented(grey[proposals.first[rows]], proposals.orientation[rows]), side)
        second = _reduced(grey[proposals.second[rows]], side)
        placement = align(first, second, placement, blur=blur, steps=steps)
        agreement = compare(first, second, placement)
        if side < SIDE:
            kept = agreement.correlation > hopeful
        else:
            kept = _same_picture(agreement, placement, proposals.orientation[rows], needed)
        rows, placement, correlation = rows[kept], placement[kept], agreement.correlation[kept]
    first_colour = oriented(colour[proposals.first[rows]], proposals.orientation[rows])
    same = _same_colours(first_colour, colour[proposals.second[rows]], placement)
    return rows[same], correlation[same]


def _reduced(pictures: Pixels, side: int) -> Floats:
    """Averages over blocks: uint8 [n, 64, 64] -> float32 [n, side, side]."""
    reduced: Floats = pictures.astype(np.float32)
    while reduced.shape[1] > side:
        reduced = reduced[:, ::2] + reduced[:, 1::2]
        reduced = (reduced[:, :, ::2] + reduced[:, :, 1::2]) * np.float32(0.25)
    return reduced


def _same_picture(agreement: Agreement, placement: Floats, orientation: npt.NDArray[np.int64], needed: float) -> Mask:
    close = (agreement.correlation >= needed) & (agreement.worst <= MAX_DIFFERENCE)
    close &= (agreement.contrast >= 6.0) & (agreement.overlap >= 0.7) & (agreement.area >= 0.6)
    close &= (agreement.gain >= 0.65) & (agreement.gain <= 1.55) & (np.abs(agreement.shift) <= 45.0)
    unmoved = (np.abs(placement - np.array([1.0, 0.0, 1.0, 0.0])) < 0.01).all(axis=1) & (orientation <= _MIRRORED)
    fixed = unmoved & (agreement.correlation >= max(needed, 0.995)) & (agreement.worst <= MAX_DIFFERENCE / 3)
    return np.asarray(close & ((agreement.texture >= 0.5) | fixed))


def _same_colours(first: Pixels, second: Pixels, placement: Floats) -> Mask:
    """True where no spot of the small pictures, [n, 16, 16, 3],, differs much in hue or saturation."""
    one, two = _chroma(first), _chroma(second)
    differences = [largest_difference(one[..., i], two[..., i], placement) for i in range(2)]
    return np.asarray(np.maximum(*differences) <= MAX_TINT)


def _chroma(colour: Pixels) -> Floats:
    """Red and blue less luma: float32 [n, 16, 16, 2]."""
    values = colour.astype(np.float32)
    luma = values @ np.array([0.299, 0.587, 0.114], np.float32)
    return np.stack([values[..., 0] - luma, values[..., 2] - luma], axis=-1)


def _needed_correlation(grey: Pixels, samples: int = 2_000) -> float:
    """The correlation a pair must reach: MIN_CORRELATION, or nearer to 1 where unrelated images correlate as well.

    Unrelated means pairs at random; the threshold leaves a tenth of the distance that 90 % of them keep from 1. A few
    images say nothing about what is usual. (Many images of fewer than about ten distinct pictures look like a fixed
    camera's.)
    """
    if len(grey) < 30:
        return MIN_CORRELATION
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, len(grey), (2, samples))
    first, second = first[first != second], second[first != second]
    one, two = (_standardised(grey[rows].reshape(-1, SIDE * SIDE).astype(np.float32)) for rows in (first, second))
    usual = float(np.quantile((one * two).sum(axis=1), 0.9))
    return max(MIN_CORRELATION, 1.0 - 0.1 * (1.0 - usual))


def _standardised(rows: Floats) -> Floats:
    centred = rows - rows.mean(axis=1, keepdims=True)
    return np.asarray(centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-3))


# ---- tiny images


def _tiny_duplicates(ids: Sequence[str], facts: Mapping[str, ImageFacts]) -> list[Duplicate]:
    if len(ids) < 2:
        return []
    grey, colour = stack([facts[image_id].fingerprint for image_id in ids])
    sizes = np.array([(facts[image_id].width, facts[image_id].height) for image_id in ids])
    proposals = propose(grey, threshold=0.99, as_they_are=True)
    first, second = proposals.first, proposals.second
    if not len(first):
        return []
    distance = np.abs(grey[first].astype(np.int16) - grey[second]).reshape(len(first), -1)
    tint = np.abs(colour[first].astype(np.int16) - colour[second]).reshape(len(first), -1)
    same = (sizes[first] == sizes[second]).all(axis=1)
    same &= (
        (distance.mean(axis=1) <= 2.0) & (distance.max(axis=1, initial=0) <= 16) & (tint.max(axis=1, initial=0) <= 16)
    )
    found = []
    for row in np.flatnonzero(same):
        one, two = sorted((ids[first[row]], ids[second[row]]))
        closeness = 1.0 - float(distance[row].mean()) / 255
        found.append(Duplicate(first=one, second=two, kind="near", similarity=round(closeness, 4)))
    return found
