"""What classification minimises, by name: cross-entropy and focal loss, for one class or for independent labels.

Class weights are factors on the loss of each class. The mean is a weighted one, divided by the sum of the weights
that counted (as torch does it), so that a loss stays comparable whatever the scale of its weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from snellen.core.plan import Plan

Loss = Callable[[Tensor, Tensor, Plan], Tensor]  # logits [n, k], targets, plan -> scalar


def cross_entropy(logits: Tensor, targets: Tensor, *, weights: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
    """Softmax cross-entropy in nats. logits float [n, k]; targets int64 [n]; weights [k].

    Smoothing moves that share of each target to all classes alike (Szegedy et al. 2016, arXiv:1512.00567).
    """
    return F.cross_entropy(logits, targets, weights, label_smoothing=smoothing)


def focal_loss(
    logits: Tensor, targets: Tensor, *, gamma: float, weights: Tensor | None = None, smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy times ``(1 - p)**gamma``: images that are recognised already count less. Shapes as cross_entropy.

    Lin et al. 2017 (arXiv:1708.02002); the weights are their alpha. ``gamma = 0`` is cross_entropy.
    """
    log_p = F.log_softmax(logits, 1)
    truth = F.one_hot(targets, logits.shape[1]).to(log_p) * (1 - smoothing) + smoothing / logits.shape[1]
    # At p = 1 a gamma below 1 has an infinite slope.
    missing = (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).tiny)
    each = -truth * missing.pow(gamma) * log_p
    return each.sum(1).mean() if weights is None else (each * weights).sum() / weights[targets].sum()


def binary_cross_entropy(
    logits: Tensor, targets: Tensor, *, weights: Tensor | None = None, smoothing: float = 0.0
) -> Tensor:
    """Mean over images and labels, in nats. logits and targets [n, k], targets in 0..1; weights [k].

    Smoothing moves that share of each target half to present and half to absent. The weights count a label where it is
    present: a label's loss as a whole has no other label to be weighed against.
    """
    smooth = targets * (1 - smoothing) + smoothing / 2
    return F.binary_cross_entropy_with_logits(logits, smooth, pos_weight=weights)


def binary_focal_loss(
    logits: Tensor, targets: Tensor, *, gamma: float, weights: Tensor | None = None, smoothing: float = 0.0
) -> Tensor:
    """binary_cross_entropy times ``(1 - p)**gamma`` of what is true (Lin et al. 2017). Shapes as there.

    torchvision.ops has it for targets that are 0 or 1; its import would cost every run seconds.
    """
    smooth = targets * (1 - smoothing) + smoothing / 2
    log_p, log_q = F.logsigmoid(logits), F.logsigmoid(-logits)
    present = -smooth * (gamma * log_q).exp() * log_p
    absent = -(1 - smooth) * (gamma * log_p).exp() * log_q
    return (present + absent if weights is None else present * weights + absent).mean()


def _weights(plan: Plan, logits: Tensor) -> Tensor | None:
    return torch.tensor(plan.class_weights, dtype=logits.dtype, device=logits.device) if plan.class_weights else None


def _cross_entropy(logits: Tensor, targets: Tensor, plan: Plan) -> Tensor:
    return cross_entropy(logits, targets, weights=_weights(plan, logits), smoothing=plan.label_smoothing)


def _focal(logits: Tensor, targets: Tensor, plan: Plan) -> Tensor:
    weights = _weights(plan, logits)
    return focal_loss(logits, targets, gamma=plan.focal_gamma, weights=weights, smoothing=plan.label_smoothing)


def _binary_cross_entropy(logits: Tensor, targets: Tensor, plan: Plan) -> Tensor:
    return binary_cross_entropy(logits, targets, weights=_weights(plan, logits), smoothing=plan.label_smoothing)


def _binary_focal(logits: Tensor, targets: Tensor, plan: Plan) -> Tensor:
    weights = _weights(plan, logits)
    return binary_focal_loss(logits, targets, gamma=plan.focal_gamma, weights=weights, smoothing=plan.label_smoothing)


# By the plan's name of the loss; 'auto' is in plans that are older than the choice.
ONE_CLASS: Mapping[str, Loss] = {"auto": _cross_entropy, "cross-entropy": _cross_entropy, "focal": _focal}
ANY_LABELS: Mapping[str, Loss] = {"auto": _binary_cross_entropy, "bce": _binary_cross_entropy, "focal": _binary_focal}
