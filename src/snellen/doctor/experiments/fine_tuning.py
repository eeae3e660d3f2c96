"""Was the pretrained network better before it was trained?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from snellen.core.finding import Finding
from snellen.core.seeds import keyed_permutation
from snellen.doctor.alter import load_weights
from snellen.doctor.case import Case, Training
from snellen.doctor.experiments.measure import Measurements, Seen, gain_of, is_shown, look, measurements
from snellen.doctor.experiments.reference import learnt
from snellen.doctor.safety import untouched
from snellen.doctor.scores import Scores, last_linear

_MOST_IMAGES = 1200  # that a probe learns from
_LOOKS = 2  # over the trained model, and over a probe on what it has become


def fine_tuning_hurts(case: Case) -> Iterator[Finding]:
    """A linear probe on the pretrained features, as they were, against the trained model, and against a probe on the
    features as they are now; both by McNemar's test on the validation images.

    A head that was trained too little also loses to a probe: that one wins with the features of now as well. Only where
    the features themselves have become worse was it the fine-tuning. Kumar et al., ICLR 2022 (arXiv:2202.10054).
    """
    seen = measurements(case, "classification")
    if seen is None or seen.training.pretrained is None or seen.training.build is None:
        return
    own, val = seen.side("plain"), seen.side("val")
    before = _pretrained(seen)
    if own is None or val is None or before is None or not _body_has_moved(seen.training):
        return
    order = keyed_permutation(len(own), "probe", seen.seed)[:_MOST_IMAGES]
    then, now = _probed(*before, order, seen.seed), _probed(own, val, order, seen.seed)
    if then is None or now is None:
        return
    gains = gain_of(val.scores, then), gain_of(now, then)
    if not all(each is not None and is_shown(each, "classification", "fine-tuning-hurts", _LOOKS) for each in gains):
        return
    yield Finding(
        code="fine-tuning-hurts",
        severity="serious",
        message=f"A linear probe on the pretrained features is right for {then.mean:.1%} of the validation images, the "
        f"fine-tuned model for {val.scores.mean:.1%}, and a probe on its features for {now.mean:.1%}.",
        advice="Train the head alone first, then everything with a tenth of the rate for what was pretrained.",
        evidence={
            "probe_before": then.mean,
            "probe_now": now.mean,
            "model": val.scores.mean,
            "p": max(each.p for each in gains if each is not None),
        },
        certainty="confirmed",
        treatment={"change": "body rate/10"},
    )


def _pretrained(seen: Measurements) -> tuple[Seen, Seen] | None:
    """The training and validation images as the network saw them before it was trained."""
    training = seen.training
    if training.build is None or training.plain is None:
        return None
    with untouched(training):
        fresh = training.build(seen.seed)
        own_shapes = {name: each.shape for name, each in fresh.model.state_dict().items()}
        fitting = {
            name: each for name, each in (training.pretrained or {}).items() if own_shapes.get(name) == each.shape
        }
        sides = replace(fresh, train=training.train, plain=training.plain, val=training.val, pretrained=fitting)
        own, val = (look(load_weights(sides), each) for each in (training.plain, training.val))
    return None if own is None or val is None else (own, val)


def _body_has_moved(training: Training) -> bool:
    """Whether any pretrained weight but those of the head is another now."""
    head = last_linear(training.model)
    heads = set() if head is None else {id(each) for each in head.parameters()}
    pretrained = training.pretrained or {}
    return any(
        name in pretrained
        and pretrained[name].shape == each.shape
        and not torch.allclose(each.detach().cpu(), pretrained[name].cpu(), rtol=1e-3)
        for name, each in training.model.named_parameters()
        if id(each) not in heads
    )


def _probed(own: Seen, val: Seen, order: np.ndarray, seed: int) -> Scores | None:
    if own.features is None or val.features is None or not torch.isfinite(own.features).all():
        return None
    right = learnt(own.features[order], own.labels[order], val.features.nan_to_num(), seed) == val.labels
    return Scores(values=right.astype(np.float64))
