"""What the batches must be: finite, of several images, with targets that the outputs can answer, in a new order each
epoch, and all of them in the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from snellen.core.finding import Finding
from snellen.doctor.case import Case, Training
from snellen.doctor.contracts.oracle import VOID
from snellen.doctor.contracts.passes import Pass, passes
from snellen.doctor.contracts.probing import NAMED, first, outputs_of
from snellen.doctor.safety import untouched

_FEWEST = 64  # images: the same order twice is then no chance
_FEWEST_OF_A_CLASS = 8
_SORTED = 0.5  # of the runs of equal labels that a random order would have
_MOSTLY = 0.5
_NEVER_SEEN = 0.02  # of the images


def inputs_not_finite(case: Case) -> Iterator[Finding]:
    """NaN or infinity among the values of an image, or of a target that is a number."""
    if case.training is None:
        return
    for side, found in (("training", passes(case).train[0]), ("validation", passes(case).val[0])):
        bad = np.flatnonzero(~np.isfinite(found.sketches).all(1))
        if len(bad):
            yield Finding(
                code="inputs-not-finite",
                severity="serious",
                message=f"{len(bad)} of {len(found.sketches)} {side} inputs hold NaN or infinity.",
                advice="Look at how these images are read and standardised: a division by a deviation of 0 is usual.",
                evidence={"side": side, "count": len(bad), "of": len(found.sketches), "places": bad[:NAMED].tolist()},
                treatment={"change": "finite inputs"} if 2 * len(bad) < len(found.sketches) else {},
            )
        elif not np.isfinite(found.values).all():
            yield Finding(
                code="targets-out-of-range",
                severity="serious",
                message=f"Some {side} targets are NaN or infinite.",
                advice="Leave out images whose target is not known.",
                evidence={"side": side},
            )


def inputs_constant(case: Case) -> Iterator[Finding]:
    """Most training inputs are one and the same, or show nothing, or all those of a class are the same."""
    if case.training is None:
        return
    found = passes(case).train[0]
    num = len(found.images)
    if num < _FEWEST_OF_A_CLASS * 4:
        return
    most = max(Counter(found.images).values())
    blank = num - sum(found.telling)
    if max(most, blank) > _MOSTLY * num:
        what = "show nothing at all" if blank >= most else "are one and the same"
        yield _constant(f"{max(most, blank)} of {num} training inputs {what}.", {"equal": most, "blank": blank})
        return
    for label, images in _by_class(found).items():
        if len(images) >= _FEWEST_OF_A_CLASS and len(set(images)) == 1:
            yield _constant(f"All {len(images)} training inputs of {case.named(label)} are the same.", {"class": label})


def _constant(message: str, evidence: dict[str, Any]) -> Finding:
    return Finding(
        code="inputs-constant",
        severity="serious",
        message=message,
        advice="Look at a batch just before it enters the model, and at how images are found and read.",
        evidence=evidence,
    )


def _by_class(found: Pass) -> dict[int, list[bytes]]:
    by_class: dict[int, list[bytes]] = {}
    if found.labels is not None and len(found.labels) == len(found.images):
        for label, image in zip(found.labels.tolist(), found.images, strict=True):
            by_class.setdefault(label, []).append(image)
    return by_class


def targets_out_of_range(case: Case) -> Iterator[Finding]:
    """Targets that the model's outputs have no place for."""
    training = case.training
    if training is None or training.question not in ("classification", "multilabel", "segmentation"):
        return
    num = _num_outputs(training)
    for side, found in (("training", passes(case).train[0]), ("validation", passes(case).val[0])):
        odd = _odd(training, found.values[np.isfinite(found.values)], num)
        if len(odd):
            allowed = "0 to 1" if training.question == "multilabel" else f"0 to {num - 1}"
            yield Finding(
                code="targets-out-of-range",
                severity="serious",
                message=f"Some {side} targets are {', '.join(f'{value:g}' for value in odd[:3])}; the model answers "
                f"{allowed}.",
                advice="Number the classes from 0, and give the model one output for each.",
                evidence={"side": side, "values": odd[:NAMED].tolist(), "outputs": num},
            )


def _num_outputs(training: Training) -> int:
    """How many classes the model tells apart; 0: not known."""
    if training.run_loss is not None:
        return 0
    with untouched(training):
        for inputs, targets in first(training.train, 1):
            outputs = outputs_of(training, inputs)
            if isinstance(outputs, Tensor) and outputs.ndim > 1 and isinstance(targets, Tensor):
                whole = not targets.is_floating_point() and targets.ndim == outputs.ndim - 1
                return outputs.shape[1] if whole or training.question == "multilabel" else 0
    return 0


def _odd(training: Training, values: npt.NDArray[np.float64], num: int) -> npt.NDArray[np.float64]:
    if training.question == "multilabel":
        return values[(values < 0) | (values > 1)]
    if num < 2:
        return values[:0]
    ignored = getattr(training.loss, "ignore_index", -100)
    void = [ignored, -100, *([VOID] if training.question == "segmentation" else [])]
    return values[((values < 0) | (values >= num)) & ~np.isin(values, void)]


def batches_not_shuffled(case: Case) -> Iterator[Finding]:
    """Two epochs give the targets, or the images, in the same order; told apart: that order is sorted by class.

    A sampler that is told of each epoch (``set_epoch``) was not told here, so that only sorted classes speak.
    """
    training = case.training
    if training is None:
        return
    one, two = passes(case).train
    if len(one.sizes) < 2 or len(one.targets) < _FEWEST or len(set(one.targets)) < 2 or one.targets != two.targets:
        return
    if one.images and sorted(one.images) == sorted(two.images) and one.images != two.images:
        return
    runs, expected = _runs(one.targets)
    in_order = runs < _SORTED * expected
    if not in_order and _is_told_of_epochs(training.train):
        return
    yield Finding(
        code="batches-not-shuffled",
        severity="serious" if in_order else "warning",
        message=f"Two epochs give all {len(one.targets)} training images in the same order"
        + (f", sorted: {runs} runs of equal targets, where a random order has {expected:.0f}." if in_order else "."),
        advice="Give the loader shuffle=True, or a sampler that draws a new order for each epoch.",
        evidence={"images": len(one.targets), "runs": runs, "runs_expected": expected},
        treatment={"change": "shuffle"},
    )


def _runs(targets: Sequence[bytes]) -> tuple[int, float]:
    """Runs of equal targets, and how many a random order has on average (Wald and Wolfowitz 1940, for any number of
    kinds)."""
    num = len(targets)
    runs = 1 + sum(a != b for a, b in pairwise(targets))
    return runs, 1 + num - sum(count**2 for count in Counter(targets).values()) / num


def _is_told_of_epochs(loader: object) -> bool:
    parts = (loader, *(getattr(loader, name, None) for name in ("sampler", "batch_sampler", "dataset")))
    return any(hasattr(part, "set_epoch") for part in parts)


def images_never_seen(case: Case) -> Iterator[Finding]:
    """Images of the training side that training never shows. Needs ``plain``, and training that augments nothing."""
    training = case.training
    if training is None or training.plain is None:
        return
    known = passes(case)
    plain, (one, two) = known.plain, known.train
    if plain is None or not plain.images or not plain.whole or not two.whole or not known.repeats:
        return
    seen = set(one.images) | set(two.images)
    unseen = [i for i, image in enumerate(plain.images) if image not in seen]
    num = len(plain.images)
    if not 0 < len(unseen) < _MOSTLY * num or max(_NEVER_SEEN * num, 1) > len(unseen):
        return  # where most are unknown, they are prepared in another way: see pixels-differ
    yield Finding(
        code="images-never-seen",
        severity="warning",
        message=f"{len(unseen)} of {num} training images are in neither of two epochs, which show the same images.",
        advice="Look at the sampler and at drop_last without shuffling: they leave out the same images each time.",
        evidence={"count": len(unseen), "of": num, "places": unseen[:NAMED]},
        treatment={"change": "shuffle"},
    )
