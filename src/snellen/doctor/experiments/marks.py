"""Does the answer hang on a mark at the border, and not on what the image shows?

A piece of the border is taken from an image that is answered otherwise. In good health the answer hardly ever changes
to that of the other image; where it does, and does not when all but this piece is taken from the other image, the piece
is what the network looks at. Exchange between real images leaves nothing unnatural in them that the network never met,
as grey patches would (Zeiler and Fergus 2014 occlude instead).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from snellen.core.finding import Finding
from snellen.core.thresholds import alpha
from snellen.doctor.case import Case, Training
from snellen.doctor.changes import PAINTED_OVER
from snellen.doctor.experiments.measure import measurements
from snellen.doctor.modes import in_evaluation
from snellen.doctor.regions import REGIONS, Region, have_borders
from snellen.doctor.safety import untouched

_IMAGES, _FEWEST, _BATCH = 256, 40, 64
_LEARNT = 0.3  # of what there is to learn: of a network that knows less nothing is said
_FOLLOWS = 0.5  # of the answers go with the piece: it was 0.04 at most in healthy trainings of digits and shapes
_CHANCE = 0.25  # of the answers, that the exact binomial test must exclude


class _Exchange(NamedTuple):
    """Of n images: how many are answered as their partner, given this region of it, and given all but this."""

    region: Region
    follows: int
    follows_rest: int


def answer_hangs_on_a_mark(case: Case) -> Iterator[Finding]:
    """A corner or an edge decides the answer."""
    seen = measurements(case, "classification")
    val = None if seen is None else seen.side("val")
    if seen is None or val is None or len(val) < _FEWEST or not val.share_learnt >= _LEARNT:
        return
    images = seen.some_images(_IMAGES, "val")
    if images is None or not have_borders(images[0]):
        return
    with untouched(seen.training), in_evaluation(seen.training.model), torch.no_grad():
        exchanges, count = _exchanges(seen.training, images[0], case.seed)
    if count < _FEWEST:
        return
    level = alpha("shortcut-border", 2 * len(REGIONS))  # the audit looks at the images alone for it
    best = max(exchanges, key=lambda each: each.follows)
    p = float(stats.binomtest(best.follows, count, _CHANCE, alternative="greater").pvalue)
    if best.follows < _FOLLOWS * count or best.follows <= best.follows_rest or p >= level:
        return
    share, rest = best.follows / count, best.follows_rest / count
    yield Finding(
        code="shortcut-border",
        severity="serious",
        message=f"The answer hangs on the {best.region.name}: taken from an image that is answered otherwise, it takes"
        f" that answer along in {share:.0%} of {count} images; all the rest of that image does so in {rest:.0%}.",
        advice="Look at this place in images of several classes. A mark that goes with the class is learnt instead of "
        "what they show: paint it over or crop it away in all images, or see that all classes have it. Validation "
        "images with the same mark do not show the harm.",
        evidence={"region": best.region.name, "num_images": count, "follows": share, "follows_rest": rest, "p": p},
        certainty="confirmed",
        treatment={"change": PAINTED_OVER, "region": best.region.name},
    )


def _exchanges(training: Training, inputs: Tensor, seed: int) -> tuple[list[_Exchange], int]:
    """Each region tried, and the number of images that have a partner."""
    said = _answers(training, inputs)
    partner = _partners(said, seed)
    rows = np.flatnonzero(partner >= 0)
    own, other = inputs[rows], inputs[partner[rows]]
    wanted = said[partner[rows]]
    found = []
    for region in REGIONS.values():
        mask = region.mask(inputs)
        taken = [_answers(training, torch.where(mask, *pair)) for pair in ((other, own), (own, other))]
        found.append(_Exchange(region, *(int((answers == wanted).sum()) for answers in taken)))
    return found, len(rows)


def _partners(said: np.ndarray, seed: int) -> np.ndarray:
    """For each image another one that is answered otherwise, [n]; -1 where there is none."""
    rng = np.random.default_rng(seed)
    partner = np.full(len(said), -1)
    for answer in np.unique(said):
        others = np.flatnonzero(said != answer)
        own = np.flatnonzero(said == answer)
        if len(others):
            partner[own] = rng.choice(others, len(own))
    return partner


def _answers(training: Training, inputs: Tensor) -> np.ndarray:
    device = training.device
    outputs = [training.model(part.to(device)).argmax(1).cpu() for part in torch.split(inputs, _BATCH)]
    return np.asarray(torch.cat(outputs).numpy()) if outputs else np.zeros(0, np.int64)
