"""What detectors minimise, element by element: how far boxes are from the truth, and how wrong scores are.

Everything is computed in float32, whatever arithmetic the network runs in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from snellen.nn.detection.boxes import EPS, area, hull, iou, overlap

BoxLoss = Callable[[Tensor, Tensor], Tensor]  # predicted and true boxes [..., 4] -> [...]


def iou_loss(predicted: Tensor, truth: Tensor) -> Tensor:
    """1 - IoU: 0 for the same box, 1 and without a slope for boxes that do not meet."""
    return 1 - iou(predicted.float(), truth.float())


def giou_loss(predicted: Tensor, truth: Tensor) -> Tensor:
    """1 - GIoU, 0..2: the empty share of the hull tells boxes that do not meet how far they are apart.

    Rezatofighi et al. 2019 (arXiv:1902.09630).
    """
    predicted, truth = predicted.float(), truth.float()
    shared, union = overlap(predicted, truth)
    around = area(hull(predicted, truth)).clamp_min(EPS)
    return 1 - shared / union.clamp_min(EPS) + (around - union) / around


def diou_loss(predicted: Tensor, truth: Tensor) -> Tensor:
    """1 - IoU + (distance of the centres / diagonal of the hull)**2 (Zheng et al. 2020, arXiv:1911.08287)."""
    predicted, truth = predicted.float(), truth.float()
    around = hull(predicted, truth)
    diagonal = (around[..., 2:] - around[..., :2]).square().sum(-1).clamp_min(EPS)
    apart = (predicted[..., :2] + predicted[..., 2:] - truth[..., :2] - truth[..., 2:]).square().sum(-1) / 4
    return 1 - iou(predicted, truth) + apart / diagonal


def ciou_loss(predicted: Tensor, truth: Tensor) -> Tensor:
    """DIoU and how far the aspect ratios differ, which counts more the better boxes overlap (Zheng et al. 2020)."""
    predicted, truth = predicted.float(), truth.float()
    angle = 2 / math.pi * (_diagonal_angle(predicted) - _diagonal_angle(truth))
    unlike = angle.square()
    with torch.no_grad():
        weight = unlike / (1 - iou(predicted, truth) + unlike).clamp_min(EPS)
    return diou_loss(predicted, truth) + weight * unlike


def l1_loss(predicted: Tensor, truth: Tensor) -> Tensor:
    """Mean distance of the four sides, in the unit of the boxes."""
    return (predicted.float() - truth.float()).abs().mean(-1)


def smooth_l1_loss(predicted: Tensor, truth: Tensor) -> Tensor:
    """l1_loss, but quadratic where a side is less than 1 away (Girshick 2015, arXiv:1504.08083)."""
    apart = (predicted.float() - truth.float()).abs()
    return torch.where(apart < 1, apart.square() / 2, apart - 0.5).mean(-1)


BOX_LOSSES: Mapping[str, BoxLoss] = {
    "iou": iou_loss,
    "giou": giou_loss,
    "diou": diou_loss,
    "ciou": ciou_loss,
    "l1": l1_loss,
    "smooth-l1": smooth_l1_loss,
}


def quality_focal_loss(logits: Tensor, targets: Tensor, *, beta: float = 2.0) -> Tensor:
    """Cross-entropy with a quality 0..1 as its target, times |target - p|**beta. Any shape, element by element.

    Li et al. 2020 (Generalized Focal Loss, arXiv:2006.04388), equation 2.
    """
    logits, targets = logits.float(), targets.float()
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return (targets - logits.sigmoid()).abs().pow(beta) * entropy


def varifocal_loss(logits: Tensor, targets: Tensor, *, alpha: float = 0.75, gamma: float = 2.0) -> Tensor:
    """Cross-entropy with a quality as its target: weighed by it where it is above 0, by alpha p**gamma elsewhere.

    Zhang et al. 2021 (VarifocalNet, arXiv:2008.13367), equation 2.
    """
    logits, targets = logits.float(), targets.float()
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return torch.where(targets > 0, targets, alpha * logits.sigmoid().pow(gamma)) * entropy


def sigmoid_focal_loss(logits: Tensor, targets: Tensor, *, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """alpha (1 - p)**gamma times cross-entropy, p and alpha those of what is true; soft targets count for both.

    Lin et al. 2017 (RetinaNet, arXiv:1708.02002), equation 5.
    """
    logits, targets = logits.float(), targets.float()
    log_p, log_q = F.logsigmoid(logits), F.logsigmoid(-logits)
    present = alpha * (gamma * log_q).exp() * -log_p
    absent = (1 - alpha) * (gamma * log_p).exp() * -log_q
    return targets * present + (1 - targets) * absent


SCORE_LOSSES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "quality-focal": quality_focal_loss,
    "varifocal": varifocal_loss,
    "focal": sigmoid_focal_loss,
}


def distribution_focal_loss(logits: Tensor, distances: Tensor) -> Tensor:
    """Cross-entropy of a distribution over the whole numbers 0..bins with the two that enclose the true distance.

    logits [..., bins + 1]; distances [...], those above ``bins`` count as ``bins`` -> [...].
    Li et al. 2020 (Generalized Focal Loss, arXiv:2006.04388), equation 6.
    """
    bins = logits.shape[-1] - 1
    distances = distances.float().clamp(0, bins)
    below = distances.floor().clamp_max(bins - 1)
    upper = distances - below
    log_p = F.log_softmax(logits.float(), -1)
    places = torch.stack([below, below + 1], -1).long()
    near = log_p.gather(-1, places)
    return -((1 - upper) * near[..., 0] + upper * near[..., 1])


def _diagonal_angle(boxes: Tensor) -> Tensor:
    """The angle of width over height, by atan2: that has a slope for flat boxes as well."""
    sides = (boxes[..., 2:] - boxes[..., :2]).clamp_min(EPS)
    return torch.atan2(sides[..., 0], sides[..., 1])
