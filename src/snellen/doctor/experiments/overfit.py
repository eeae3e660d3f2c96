"""Can the network learn sixty-four images by heart, and if not, what keeps it from that?"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from snellen.core.finding import Finding
from snellen.core.seeds import keyed_seed
from snellen.core.thresholds import alpha
from snellen.doctor.alter import new_weights, no_dropout
from snellen.doctor.case import Batch, Case, Training
from snellen.doctor.experiments.measure import (
    Measurements,
    batch_statistics,
    gain_of,
    has_trained,
    look,
    measurements,
)
from snellen.doctor.experiments.reference import answers_of_reference, featured
from snellen.doctor.loaders import Affine, statistics
from snellen.doctor.safety import untouched
from snellen.doctor.scores import Scores

_IMAGES, _STEPS, _LOOK_EVERY = 64, 150, 25
_RATES = (1e-3, 1e-2, 1e-4)
_ENOUGH = {"classification": 0.9, "segmentation": 0.75, "regression": 0.8}  # of the errors of one answer for all
_SECONDS = 20.0  # of computing for one way of learning; what takes longer is not known
_HALF = 0.5  # of the errors gone in the real training: a network that learnt so much is not asked
_LEAST_LEAD = 0.05  # of accuracy, of the reference over the network


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way of learning the images: the user's own step, or AdamW at a rate, perhaps from other weights or of images
    that are standardised."""

    says: str
    rate: float = 0.0  # 0: the user's own step
    anew: bool = False
    standardised: bool = False


WAYS = (
    Way(says="its own step"),
    *(Way(says=f"AdamW at {rate:g}", rate=rate) for rate in _RATES),
    *(Way(says=f"new weights and AdamW at {rate:g}", rate=rate, anew=True) for rate in _RATES[:2]),
    Way(says=f"standardised images and AdamW at {_RATES[0]:g}", rate=_RATES[0], standardised=True),
    Way(says=f"all of these and AdamW at {_RATES[1]:g}", rate=_RATES[1], anew=True, standardised=True),
)


def cannot_overfit(case: Case) -> Iterator[Finding]:
    """The network at its beginning is given the same 64 plain training images 150 times.

    Asked only of a model that learnt little in its training. Where its own step fails, AdamW is tried at three rates
    without dropout, then with weights drawn anew, then of standardised images: what succeeds says where to look. Where
    nothing does, and a reference that has learnt the training images is right for significantly more validation images,
    the network itself is unfit.
    Karpathy, A Recipe for Training Neural Networks, 2019.
    """
    seen = measurements(case, *_ENOUGH)
    own = None if seen is None or not has_trained(case) else seen.side("plain")
    if seen is None or seen.training.build is None or own is None or own.share_learnt > _HALF:
        return
    images = seen.some_images(_IMAGES)
    if images is None:
        return
    learnt: dict[str, float] = {}
    for way in WAYS:
        share = _share_learnt(seen, way, images)
        if share is None:
            return
        learnt[way.says] = share
        if share >= _ENOUGH[seen.training.question]:
            if len(learnt) > 1:
                yield _observed(learnt, way)
            return
    yield _observed(learnt, None)
    yield from _network_unfit(case, seen, learnt)


def _observed(learnt: dict[str, float], way: Way | None) -> Finding:
    own, best = learnt[WAYS[0].says], max(0.0, *learnt.values())
    helped = f"with {'the best of all ways tried' if way is None else way.says} {best:.0%}"
    return Finding(
        code="cannot-overfit",
        severity="warning" if way is None else "info",
        message=f"Given {_IMAGES} training images {_STEPS} times, the training rids itself of {max(0.0, own):.0%} of "
        f"the errors of one answer for all; {helped}.",
        advice=f"Look at {where(way)} first.",
        evidence={"learnt": learnt},
        certainty="observed",
    )


def where(way: Way | None) -> str:
    """What to look at first where ``way`` learnt the images and those before it did not; None: no way did."""
    if way is None:
        return "the network, its loss or the images themselves"
    if way.standardised:
        return "the scale of the inputs"
    return "the weights that it begins with" if way.anew else "the optimizer, its rate and the step"


def _network_unfit(case: Case, seen: Measurements, learnt: dict[str, float]) -> Iterator[Finding]:
    sides = featured(case)
    if sides is None:
        return
    val = sides.val
    lead = gain_of(val.scores, Scores(values=(answers_of_reference(sides, case.seed) == val.labels).astype(float)))
    if lead is None or lead.mean < _LEAST_LEAD or lead.p >= alpha("network-unfit", 2):  # the forks look as well
        return
    yield Finding(
        code="network-unfit",
        severity="serious",
        message=f"The network learns {_IMAGES} images in none of {len(learnt)} ways, while a linear model on patches "
        f"of the same images is right for {val.scores.mean + lead.mean:.1%} of the validation images instead of "
        f"{val.scores.mean:.1%}.",
        advice="Use a network of known make, and look for what differs in yours: width, depth without shortcuts or "
        "norms, activations.",
        evidence={"learnt": learnt, "network": val.scores.mean, "lead": lead.mean, "p": lead.p},
        certainty="confirmed",
        treatment={"change": "usual network"},
    )


def _share_learnt(seen: Measurements, way: Way, images: Batch) -> float | None:
    """The most that was learnt at any look; None where it takes too long."""
    build = seen.training.build
    assert build is not None
    with untouched(seen.training):
        fresh = build(seen.seed)
        images = _standardised(images) if way.standardised else images
        torch.manual_seed(keyed_seed("overfit", seen.seed))
        step: Callable[[Batch], Any] = house_step(fresh, way) if way.rate else fresh.take_step
        begun, best = time.thread_time(), -math.inf
        for number in range(_STEPS):
            step(images)
            if (number + 1) % _LOOK_EVERY == 0:
                best = max(best, _learnt(fresh, images))
                if best >= _ENOUGH[fresh.question]:
                    break
            if time.thread_time() - begun > _SECONDS:
                return None
        return best


def _standardised(images: Batch) -> Batch:
    mean, std = statistics([images])
    return Affine(scale=1 / std, offset=-mean / std)(images[0]), images[1]


def house_step(fresh: Training, way: Way) -> Callable[[Batch], float]:
    """A step of AdamW on all weights, without dropout; gives its loss."""
    if way.anew:
        new_weights(fresh)
    no_dropout(fresh)
    for parameter in fresh.model.parameters():
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(fresh.model.parameters(), lr=way.rate, weight_decay=0.0)

    def step(batch: Batch) -> float:
        fresh.model.train()
        optimizer.zero_grad()
        loss = fresh.loss_of(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return float(loss.detach())

    return step


def _learnt(fresh: Training, images: Batch) -> float:
    """By whichever statistics of batch norms are kinder: those that are kept need time to follow."""
    with batch_statistics(fresh.model):
        as_in_training = look(fresh, [images])
    found = [each.share_learnt for each in (as_in_training, look(fresh, [images])) if each is not None]
    return max((each for each in found if math.isfinite(each)), default=-math.inf)
