"""What segmentation minimises: losses over the pixels of class maps, by name, and weighted sums of them.

All take logits float [n, C, h, w] and the truth [n, h, w], uint8 or int64 class indices with 255 for void. Void pixels
count nowhere; a batch without any other has a loss of 0 that still has a gradient (of 0). Arithmetic is float32,
whatever the logits come in: sums over a million pixels do not fit bfloat16.

Dice, Jaccard and Lovasz are made from all pixels of a batch, for each class that its truth holds, and averaged over
these classes. Of a class that the batch has not there is no overlap to be learnt; cross-entropy tells where it is not.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from snellen.core.errors import ConfigError, did_you_mean
from snellen.core.plan import Plan

VOID = 255

PixelLoss = Callable[[Tensor, Tensor, Plan], Tensor]


def cross_entropy(logits: Tensor, truth: Tensor, *, weights: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
    """Mean over the pixels, in nats; with class ``weights`` [C] the weighted mean. Smoothing as in ``nn.losses``."""
    total = F.cross_entropy(
        logits.float(), truth.long(), weights, ignore_index=VOID, reduction="sum", label_smoothing=smoothing
    )
    return total / _weight_of(truth, weights)


def focal(logits: Tensor, truth: Tensor, *, gamma: float, weights: Tensor | None = None) -> Tensor:
    """Cross-entropy times ``(1 - p)**gamma``: pixels that are recognised already count less.

    Lin et al. 2017 (arXiv:1708.02002); ``gamma = 0`` is cross_entropy.
    """
    log_p = -F.cross_entropy(logits.float(), truth.long(), ignore_index=VOID, reduction="none")  # 0 where void
    # At p = 1 a gamma below 1 has an infinite slope.
    missing = (-torch.expm1(log_p)).clamp_min(torch.finfo(torch.float32).tiny)
    each = -missing.pow(gamma) * log_p
    if weights is not None:
        each = each * weights.float()[_indexable(truth)]
    return each.sum() / _weight_of(truth, weights)


def dice(logits: Tensor, truth: Tensor) -> Tensor:
    """1 less the soft Dice coefficient 2 |P and T| / (|P| + |T|).

    Milletari et al. 2016 (arXiv:1606.04797), with plain sums in the denominator for their sums of squares.
    """
    shared, said, true = _overlaps(logits, truth)
    return _mean_of_present(1 - 2 * shared / (said + true).clamp_min(1), true)


def jaccard(logits: Tensor, truth: Tensor) -> Tensor:
    """1 less the soft intersection over union |P and T| / |P or T| (Rahman & Wang 2016, ISVC)."""
    shared, said, true = _overlaps(logits, truth)
    return _mean_of_present(1 - shared / (said + true - shared).clamp_min(1), true)


def lovasz(logits: Tensor, truth: Tensor) -> Tensor:
    """Lovasz-softmax: the tight convex extension of the Jaccard index (Berman et al. 2018, arXiv:1705.08790).

    Sorts all pixels once for each class that is there: a multiple of the time of the others.
    """
    judged = truth != VOID
    probabilities = logits.float().softmax(1).movedim(1, 0)[:, judged]  # [C, pixels]
    labels = truth[judged]
    losses = [_lovasz_of_class(probabilities[c], labels == c) for c in torch.unique(labels).tolist()]
    return torch.stack(losses).mean() if losses else logits.float().sum() * 0


def _lovasz_of_class(probability: Tensor, true: Tensor) -> Tensor:
    """Errors, the largest first, each times what it adds to the Jaccard loss of the set of those before it."""
    errors, order = torch.where(true, 1 - probability, probability).sort(descending=True)
    ranked = true[order].float()
    count = ranked.sum()
    union = count + torch.cumsum(1 - ranked, 0)
    loss = 1 - (count - torch.cumsum(ranked, 0)) / union
    return torch.dot(errors, torch.cat([loss[:1], loss[1:] - loss[:-1]]))


def _overlaps(logits: Tensor, truth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of each class [C]: probability on its true pixels, on all pixels, and how many pixels are truly its."""
    num_classes = logits.shape[1]
    judged = truth != VOID
    probabilities = logits.float().softmax(1) * judged[:, None]
    truth = _indexable(truth)
    hit = probabilities.gather(1, truth[:, None])[:, 0]
    shared = torch.zeros(num_classes, device=logits.device).index_add(0, truth.flatten(), hit.flatten())
    true = torch.bincount(truth[judged], minlength=num_classes).float()
    return shared, probabilities.sum((0, 2, 3)), true


def _mean_of_present(losses: Tensor, true: Tensor) -> Tensor:
    present = true > 0
    return (losses * present).sum() / present.sum().clamp_min(1)


def _weight_of(truth: Tensor, weights: Tensor | None) -> Tensor:
    """What the pixels weigh together; where there is nothing to be divided, something that divides."""
    judged = truth != VOID
    if weights is None:
        return judged.sum().clamp_min(1)
    return weights.float()[truth[judged].long()].sum().clamp_min(torch.finfo(torch.float32).tiny)


def _indexable(truth: Tensor) -> Tensor:
    """int64, with class 0 where it is void."""
    return truth.long().masked_fill(truth == VOID, 0)


# --- by name

LOSSES: Mapping[str, PixelLoss] = {
    "cross-entropy": lambda logits, truth, plan: cross_entropy(
        logits, truth, weights=_class_weights(plan, logits), smoothing=plan.label_smoothing
    ),
    "focal": lambda logits, truth, plan: focal(
        logits, truth, gamma=plan.focal_gamma, weights=_class_weights(plan, logits)
    ),
    "dice": lambda logits, truth, plan: dice(logits, truth),
    "jaccard": lambda logits, truth, plan: jaccard(logits, truth),
    "lovasz": lambda logits, truth, plan: lovasz(logits, truth),
}

TAKE_CLASS_WEIGHTS = frozenset({"cross-entropy", "focal"})  # the others give each class the same say already


def pixel_losses(logits: Tensor, truth: Tensor, plan: Plan) -> dict[str, Tensor]:
    """The terms of the sum ``plan.loss``, each times its weight: name -> scalar."""
    return {name: weight * LOSSES[name](logits, truth, plan) for name, weight in parse_sum(plan.loss).items()}


def parse_sum(text: str) -> dict[str, float]:
    """``'cross-entropy+0.5*dice'`` -> ``{'cross-entropy': 1.0, 'dice': 0.5}``. Raises ConfigError."""
    terms: dict[str, float] = {}
    for term in text.split("+"):
        number, star, name = (part.strip() for part in term.rpartition("*"))
        weight = _weight(text, number) if star else 1.0
        if name not in LOSSES:
            raise ConfigError(f"loss = '{text}': '{name}' is not a loss of pixels{did_you_mean(name, LOSSES)}")
        if name in terms:
            raise ConfigError(f"loss = '{text}' names '{name}' twice: give it one weight, as in '2*{name}'")
        terms[name] = weight
    return terms


def _weight(text: str, number: str) -> float:
    if re.fullmatch(r"\d+(\.\d*)?|\.\d+", number):
        weight = float(number)
        if 0 < weight < math.inf:
            return weight
    raise ConfigError(f"loss = '{text}': '{number}' is no weight: give a number above 0, as in '0.5*dice'")


def _class_weights(plan: Plan, logits: Tensor) -> Tensor | None:
    return torch.tensor(plan.class_weights, device=logits.device) if plan.class_weights else None
