"""Losses over pixels: against their formulas and segmentation-models-pytorch, with void pixels that count nowhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from snellen.core.errors import ConfigError
from snellen.nn import losses
from snellen.nn.pixel_losses import (
    LOSSES,
    VOID,
    cross_entropy,
    dice,
    focal,
    jaccard,
    lovasz,
    parse_sum,
    pixel_losses,
)

PLAIN = {
    "cross-entropy": cross_entropy,
    "focal": lambda logits, truth: focal(logits, truth, gamma=2.0),
    "dice": dice,
    "jaccard": jaccard,
    "lovasz": lovasz,
}


class _Plan:
    """As much of a plan as losses look at."""

    def __init__(self, loss: str, **changes: Any) -> None:
        self.loss, self.class_weights, self.label_smoothing, self.focal_gamma = loss, (), 0.0, 2.0
        self.__dict__.update(changes)


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def scene(seed: int = 0, *, classes: int = 4, void: float = 0.2, n: int = 2) -> tuple[Tensor, Tensor]:
    """Logits [n, C, 7, 9] and truth with a share of void; every class is there."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, classes, 7, 9, generator=generator)
    truth = torch.randint(0, classes, (n, 7, 9), generator=generator)
    truth.flatten()[:classes] = torch.arange(classes)
    hidden = torch.rand(n, 7, 9, generator=generator) < void
    hidden.flatten()[:classes] = False
    return logits, truth.masked_fill(hidden, VOID).to(torch.uint8)


def judged(logits: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """The pixels that count, as images: logits [m, C] and truth [m]."""
    keep = truth != VOID
    return logits.movedim(1, -1)[keep], truth[keep].long()


# --- against what others compute


def test_cross_entropy_is_that_of_the_judged_pixels() -> None:
    logits, truth = scene()
    weights = torch.tensor([1.0, 2.0, 0.5, 3.0])
    for options in ({}, {"smoothing": 0.1}, {"weights": weights}, {"weights": weights, "smoothing": 0.1}):
        expected = losses.cross_entropy(*judged(logits, truth), **options)
        assert torch.allclose(cross_entropy(logits, truth, **options), expected, atol=1e-6), options


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_is_that_of_the_judged_pixels(gamma: float) -> None:
    logits, truth = scene(1)
    weights = torch.tensor([1.0, 2.0, 0.5, 3.0])
    expected = losses.focal_loss(*judged(logits, truth), gamma=gamma)
    assert torch.allclose(focal(logits, truth, gamma=gamma), expected, atol=1e-6)
    expected = losses.focal_loss(*judged(logits, truth), gamma=gamma, weights=weights)
    assert torch.allclose(focal(logits, truth, gamma=gamma, weights=weights), expected, atol=1e-6)


def test_dice_jaccard_and_lovasz_are_those_of_the_reference_library() -> None:
    from segmentation_models_pytorch import losses as reference

    for seed in range(3):
        logits, truth = scene(seed)
        theirs = {
            dice: reference.DiceLoss("multiclass", ignore_index=VOID),
            jaccard: reference.JaccardLoss("multiclass", ignore_index=VOID),
            lovasz: reference.LovaszLoss("multiclass", ignore_index=VOID),
        }
        for ours, their in theirs.items():
            expected = their(logits, truth.long())
            assert torch.allclose(ours(logits, truth), expected, atol=1e-5), (seed, ours)


def test_dice_and_jaccard_by_hand() -> None:
    probabilities = torch.tensor([[0.5, 0.25], [0.75, 0.5]])  # of class 1
    logits = torch.stack([(1 - probabilities).log(), probabilities.log()])[None]
    truth = torch.tensor([[[1, 0], [1, VOID]]], dtype=torch.uint8)
    ones = (1.25, 1.5, 2.0)  # shared, said, true
    zeros = (0.75, 1.5, 1.0)
    by_hand = 1 - sum(2 * s / (p + t) for s, p, t in (ones, zeros)) / 2
    assert dice(logits, truth).item() == pytest.approx(by_hand, abs=1e-6)
    by_hand = 1 - sum(s / (p + t - s) for s, p, t in (ones, zeros)) / 2
    assert jaccard(logits, truth).item() == pytest.approx(by_hand, abs=1e-6)


def test_lovasz_of_hard_decisions_is_one_less_the_mean_iou() -> None:
    """At the corners of the cube the extension is the set function itself (Berman et al., proposition)."""
    truth = torch.tensor([[[0, 0, 1, 1, 2, 2]]], dtype=torch.uint8)
    said = torch.tensor([0, 1, 1, 1, 2, 0])
    logits = 100 * F.one_hot(said, 3).T[None, :, None].float()
    expected = 1 - (1 / 3 + 2 / 3 + 1 / 2) / 3
    assert lovasz(logits, truth).item() == pytest.approx(expected, abs=1e-6)


# --- void


@pytest.mark.parametrize("name", PLAIN)
def test_what_is_said_of_void_pixels_changes_neither_loss_nor_gradient(name: str) -> None:
    logits, truth = scene()
    other = torch.where((truth == VOID)[:, None], 50 * torch.randn_like(logits), logits)
    values = []
    for given_ in (logits, other):
        leaf = given_.clone().requires_grad_()
        loss = PLAIN[name](leaf, truth)
        loss.backward()
        assert leaf.grad is not None and leaf.grad.isfinite().all()
        assert not leaf.grad.movedim(1, -1)[truth == VOID].any()
        values.append((loss.item(), leaf.grad.movedim(1, -1)[truth != VOID]))
    assert values[0][0] == pytest.approx(values[1][0], rel=1e-5)
    assert torch.allclose(values[0][1], values[1][1], atol=1e-6)


@pytest.mark.parametrize("name", PLAIN)
def test_nothing_but_void_is_a_loss_of_zero_that_can_be_learnt_from(name: str) -> None:
    logits = torch.randn(2, 3, 4, 5, requires_grad=True)
    loss = PLAIN[name](logits, torch.full((2, 4, 5), VOID, dtype=torch.uint8))
    loss.backward()
    assert loss.item() == 0.0 and logits.grad is not None and not logits.grad.any()


@pytest.mark.parametrize("name", PLAIN)
def test_bytes_and_whole_numbers_are_the_same_truth(name: str) -> None:
    logits, truth = scene()
    assert PLAIN[name](logits, truth) == PLAIN[name](logits, truth.long())


# --- what a loss promises


@pytest.mark.parametrize("name", PLAIN)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), classes=st.integers(1, 6), void=st.floats(0, 1))
def test_a_loss_is_finite_and_not_negative(name: str, seed: int, classes: int, void: float) -> None:
    logits, truth = scene(seed, classes=classes, void=void)
    logits.requires_grad_()
    loss = PLAIN[name](5 * logits, truth)
    loss.backward()
    assert loss.isfinite() and loss.item() >= -1e-6
    assert logits.grad is not None and logits.grad.isfinite().all()
    if name in ("dice", "jaccard", "lovasz"):
        assert loss.item() <= 1 + 1e-6


@pytest.mark.parametrize("name", PLAIN)
def test_the_truth_said_for_certain_costs_nothing_and_a_step_down_costs_less(name: str) -> None:
    _, truth = scene()
    certain = 60 * F.one_hot(truth.long().clamp_max(3), 4).movedim(-1, 1).float()
    assert PLAIN[name](certain, truth).item() == pytest.approx(0, abs=1e-6)
    logits = torch.zeros(2, 4, 7, 9, requires_grad=True)
    before = PLAIN[name](logits, truth)
    before.backward()
    assert logits.grad is not None
    after = PLAIN[name](logits.detach() - 2 * logits.grad / logits.grad.abs().max(), truth)
    assert after < before


def test_a_class_that_the_batch_lacks_has_no_say_in_the_overlap() -> None:
    logits, truth = scene(classes=3, void=0)
    more = torch.cat([logits, torch.full((2, 2, 7, 9), -60.0)], 1)
    for loss in (dice, jaccard, lovasz):
        assert torch.allclose(loss(more, truth), loss(logits, truth), atol=1e-6)


@pytest.mark.parametrize("name", PLAIN)
def test_sums_over_many_pixels_are_made_in_float32(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 3, 200, 300, generator=generator).bfloat16()
    truth = torch.randint(0, 3, (1, 200, 300), generator=generator, dtype=torch.uint8)
    assert PLAIN[name](logits, truth).dtype == torch.float32
    exact = PLAIN[name](logits.double().float(), truth)
    assert torch.allclose(PLAIN[name](logits, truth), exact, rtol=1e-5)


# --- sums by name


def test_a_sum_is_read_with_its_weights() -> None:
    assert parse_sum("cross-entropy+dice") == {"cross-entropy": 1.0, "dice": 1.0}
    assert parse_sum("cross-entropy + 0.5*dice+ .25 * lovasz") == {"cross-entropy": 1.0, "dice": 0.5, "lovasz": 0.25}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cross-entropy+dicee", "'dicee' is not a loss of pixels; did you mean 'dice'"),
        ("", "'' is not a loss of pixels"),
        ("dice+", "'' is not a loss of pixels"),
        ("0*dice", "'0' is no weight"),
        ("-1*dice", "'-1' is no weight"),
        ("nan*dice", "'nan' is no weight"),
        ("*dice", "'' is no weight"),
        ("dice+2*dice", "names 'dice' twice"),
        ("smooth-l1", "'smooth-l1' is not a loss of pixels"),
    ],
)
def test_a_sum_that_makes_no_sense_is_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words.replace("*", r"\*")):
        parse_sum(text)


def test_the_terms_of_a_sum_come_weighted_and_by_name() -> None:
    logits, truth = scene()
    terms = pixel_losses(logits, truth, _Plan("cross-entropy+0.5*dice"))  # type: ignore[arg-type]
    assert list(terms) == ["cross-entropy", "dice"]
    assert terms["cross-entropy"] == cross_entropy(logits, truth)
    assert terms["dice"] == 0.5 * dice(logits, truth)


def test_every_loss_of_the_table_follows_the_plan() -> None:
    logits, truth = scene()
    for name, loss in LOSSES.items():
        assert loss(logits, truth, _Plan(name)) == PLAIN[name](logits, truth)  # type: ignore[arg-type]
    plan = _Plan("focal", class_weights=(1.0, 0.0, 0.0, 0.0), focal_gamma=0.0, label_smoothing=0.1)
    only_first = truth.masked_fill(truth != 0, VOID)
    assert torch.allclose(LOSSES["focal"](logits, truth, plan), cross_entropy(logits, only_first))  # type: ignore[arg-type]
    smooth = cross_entropy(logits, truth, weights=torch.tensor(plan.class_weights), smoothing=0.1)
    assert LOSSES["cross-entropy"](logits, truth, plan) == smooth  # type: ignore[arg-type]
    assert np.isfinite(smooth.item())
