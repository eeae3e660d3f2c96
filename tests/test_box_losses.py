"""Losses of boxes and scores are those of the papers and of torchvision, and stay finite wherever they are asked."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from snellen.core.errors import ConfigError
from snellen.nn.detection.boxes import area, hull, iou, overlap
from snellen.nn.detection.loss_names import BOXES, SCORES, chosen_losses
from snellen.nn.detection.losses import (
    BOX_LOSSES,
    SCORE_LOSSES,
    ciou_loss,
    diou_loss,
    distribution_focal_loss,
    giou_loss,
    iou_loss,
    l1_loss,
    quality_focal_loss,
    sigmoid_focal_loss,
    smooth_l1_loss,
    varifocal_loss,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torchvision import ops

torch.set_num_threads(1)

IOU_FAMILY = ("iou", "giou", "diou", "ciou")


def _boxes(seed: int, count: int = 50, side: float = 100.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corners = side * torch.rand(count, 2, 2, generator=generator)
    return torch.cat([corners.min(1).values, corners.max(1).values + 0.5], 1)


# --- how much boxes overlap


def test_overlap_of_the_worked_example() -> None:
    """Two squares of 10, one 5 to the right of the other: 50 are shared, of 150."""
    a, b = torch.tensor([0.0, 0, 10, 10]), torch.tensor([5.0, 0, 15, 10])
    assert [float(each) for each in overlap(a, b)] == [50.0, 150.0]
    assert float(iou(a, b)) == pytest.approx(1 / 3)
    assert hull(a, b).tolist() == [0, 0, 15, 10]


def test_overlaps_are_those_of_torchvision() -> None:
    a, b = _boxes(0), _boxes(1, 30)
    torch.testing.assert_close(iou(a[:, None], b), ops.box_iou(a, b))
    torch.testing.assert_close(area(a), ops.box_area(a))


def test_empty_and_inside_out_boxes_overlap_nothing() -> None:
    empty = torch.tensor([[5.0, 5, 5, 5], [9.0, 9, 3, 3]])
    assert area(empty).tolist() == [0, 0]
    assert iou(empty[:, None], empty).tolist() == [[0, 0], [0, 0]]


# --- boxes


def test_box_losses_are_those_of_torchvision() -> None:
    predicted, truth = _boxes(2), _boxes(3)
    torch.testing.assert_close(
        smooth_l1_loss(predicted, truth), F.smooth_l1_loss(predicted, truth, reduction="none").mean(1)
    )
    torch.testing.assert_close(giou_loss(predicted, truth), ops.generalized_box_iou_loss(predicted, truth))
    torch.testing.assert_close(diou_loss(predicted, truth), ops.distance_box_iou_loss(predicted, truth))
    torch.testing.assert_close(ciou_loss(predicted, truth), ops.complete_box_iou_loss(predicted, truth))


def test_slopes_of_box_losses_are_those_of_torchvision() -> None:
    """That of CIoU shows that the weight of the aspect ratio is held fixed, as the paper has it."""
    references = (ops.generalized_box_iou_loss, ops.distance_box_iou_loss, ops.complete_box_iou_loss)
    for ours, theirs in zip((giou_loss, diou_loss, ciou_loss), references, strict=True):
        slopes = []
        for loss in (ours, theirs):
            predicted = _boxes(2).requires_grad_()
            loss(predicted, _boxes(3)).sum().backward()
            slopes.append(predicted.grad)
        torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-4, atol=1e-6)


def test_box_losses_of_worked_examples() -> None:
    """Squares of 10, one 20 to the right of the other: the hull is 30 x 10, of which a third is empty."""
    here, there = torch.tensor([0.0, 0, 10, 10]), torch.tensor([20.0, 0, 30, 10])
    assert float(iou_loss(here, there)) == 1.0
    assert float(giou_loss(here, there)) == pytest.approx(1 + 1 / 3)
    assert float(diou_loss(here, there)) == pytest.approx(1 + 400 / 1000)
    assert float(ciou_loss(here, there)) == pytest.approx(1 + 400 / 1000)  # the same aspect ratio
    assert float(l1_loss(here, there)) == 10.0
    assert float(smooth_l1_loss(here, there)) == (20 - 0.5) / 2
    assert float(smooth_l1_loss(here, here + 0.5)) == 0.125


@given(seed=st.integers(0, 1000), scale=st.sampled_from((0.01, 1.0, 100.0)))
def test_losses_of_overlap_know_no_scale_and_end_at_zero(seed: int, scale: float) -> None:
    predicted, truth = _boxes(seed, 8), _boxes(seed + 1, 8)
    for name in IOU_FAMILY:
        loss = BOX_LOSSES[name]
        torch.testing.assert_close(loss(predicted * scale, truth * scale), loss(predicted, truth), rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(loss(truth, truth), torch.zeros(8), rtol=0, atol=1e-5)
        assert bool((loss(predicted, truth) >= -1e-6).all())


@pytest.mark.parametrize("name", BOX_LOSSES)
def test_box_losses_are_finite_for_empty_far_and_huge_boxes(name: str) -> None:
    awkward = torch.tensor(
        [[5.0, 5, 5, 5], [9.0, 9, 3, 3], [-1e6, -1e6, 1e6, 1e6], [0, 0, 1e-6, 1e-6], [0, 0, 1e4, 1e-3], [5, 5, 6, 6]]
    )
    predicted = awkward[:, None].repeat(1, len(awkward), 1).requires_grad_()
    loss = BOX_LOSSES[name](predicted, awkward)
    loss.sum().backward()
    assert bool(loss.isfinite().all()) and bool(predicted.grad.isfinite().all())  # type: ignore[union-attr]


def test_boxes_that_do_not_meet_are_drawn_together_by_all_but_iou() -> None:
    truth = torch.tensor([40.0, 40, 50, 50])
    for name, loss in BOX_LOSSES.items():
        predicted = torch.tensor([0.0, 40, 10, 50], requires_grad=True)
        loss(predicted, truth).backward()
        moved = float(predicted.grad[2])  # type: ignore[index]
        assert moved == 0 if name == "iou" else moved < 0, name


# --- scores


def test_quality_focal_loss_is_its_formula() -> None:
    logits, targets = torch.linspace(-6, 6, 25), torch.linspace(0, 1, 25)
    p = logits.sigmoid()
    entropy = -(targets * p.log() + (1 - targets) * (1 - p).log())
    torch.testing.assert_close(quality_focal_loss(logits, targets), (targets - p) ** 2 * entropy, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(quality_focal_loss(logits, p), torch.zeros(25), rtol=0, atol=1e-6)


def test_varifocal_loss_is_its_formula() -> None:
    """q = 0.8 predicted as 0.6, and background predicted as 0.3."""
    logits, targets = torch.tensor([0.6, 0.3]).logit(), torch.tensor([0.8, 0.0])
    expected = [0.8 * -(0.8 * math.log(0.6) + 0.2 * math.log(0.4)), 0.75 * 0.09 * -math.log(0.7)]
    torch.testing.assert_close(varifocal_loss(logits, targets), torch.tensor(expected))


def test_focal_loss_is_that_of_torchvision() -> None:
    logits, targets = torch.linspace(-8, 8, 33), (torch.arange(33) % 2).float()
    torch.testing.assert_close(sigmoid_focal_loss(logits, targets), ops.sigmoid_focal_loss(logits, targets))


@pytest.mark.parametrize("name", SCORE_LOSSES)
def test_score_losses_are_finite_and_float32_at_extremes(name: str) -> None:
    logits = torch.tensor([-1e4, -100.0, 0.0, 100.0, 1e4], dtype=torch.bfloat16, requires_grad=True)
    for target in (0.0, 0.5, 1.0):
        loss = SCORE_LOSSES[name](logits, torch.full((5,), target))
        assert loss.dtype == torch.float32 and bool(loss.isfinite().all())
        loss.sum().backward()
    assert bool(logits.grad.isfinite().all())  # type: ignore[union-attr]


@pytest.mark.parametrize("name", SCORE_LOSSES)
def test_score_losses_push_towards_the_target(name: str) -> None:
    for target, towards in ((0.0, 1), (1.0, -1)):
        logits = torch.zeros(1, requires_grad=True)
        SCORE_LOSSES[name](logits, torch.tensor([target])).sum().backward()
        assert float(logits.grad) * towards > 0  # type: ignore[arg-type]


# --- distributions


def test_distribution_focal_loss_is_its_formula() -> None:
    """2.25 lies between 2 and 3: three quarters and one quarter of the cross-entropies."""
    logits = torch.tensor([[0.1, 0.2, 0.3, -0.4, 0.5]])
    log_p = F.log_softmax(logits, 1)[0]
    loss = distribution_focal_loss(logits, torch.tensor([2.25]))
    assert float(loss) == pytest.approx(float(-(0.75 * log_p[2] + 0.25 * log_p[3])))


def test_distribution_focal_loss_holds_whole_and_far_distances() -> None:
    sure = torch.full((4, 5), -50.0)
    sure[0, 0] = sure[1, 3] = sure[2, 4] = sure[3, 4] = 50.0
    loss = distribution_focal_loss(sure, torch.tensor([0.0, 3.0, 4.0, 99.0]))
    torch.testing.assert_close(loss, torch.zeros(4), rtol=0, atol=1e-5)


def test_distribution_focal_loss_is_least_at_the_true_expectation() -> None:
    logits = torch.zeros(9, requires_grad=True)
    optimizer = torch.optim.Adam([logits], 0.2)
    for _ in range(200):
        optimizer.zero_grad()
        distribution_focal_loss(logits, torch.tensor(5.3)).backward()
        optimizer.step()
    assert float((logits.detach().softmax(0) * torch.arange(9)).sum()) == pytest.approx(5.3, abs=0.05)


def test_losses_go_by_the_names_that_settings_give() -> None:
    assert set(SCORES) == set(SCORE_LOSSES) and set(BOXES) == set(BOX_LOSSES)
    assert chosen_losses("ciou") == {"score_loss": "quality-focal", "box_loss": "ciou"}
    assert chosen_losses("l1 + focal") == {"score_loss": "focal", "box_loss": "l1"}
    for wrong, words in (("giuo", "did you mean 'giou'"), ("giou+ciou", "two losses for the same")):
        with pytest.raises(ConfigError, match=words):
            chosen_losses(wrong)
