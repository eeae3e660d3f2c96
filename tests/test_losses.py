"""Losses are those of the papers and of the reference libraries, and keep the decks' worked numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from snellen.core.sample import Batch
from snellen.nn.losses import ANY_LABELS, ONE_CLASS, binary_cross_entropy, binary_focal_loss, cross_entropy, focal_loss
from snellen.tasks.base import Task, create_task
from snellen.tasks.classification.target import Label, LabelSet
from tiny_runs import a_plan

torch.set_num_threads(1)

CLASSES = ("circle", "square", "triangle")
WEIGHTS = torch.tensor([1.0, 4.0, 0.5], dtype=torch.float64)


def _random(seed: int, images: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    """logits float64 [n, 3], classes int64 [n], labels float64 [n, 3]"""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(images, 3, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 2, (images, 3), generator=generator).double()
    return logits, torch.randint(0, 3, (images,), generator=generator), labels


# --- worked by hand


def test_binary_cross_entropy_of_the_worked_example() -> None:
    """Present, absent, present, predicted 0.9, 0.2 and 0.4: -(ln 0.9 + ln 0.8 + ln 0.4) / 3 = 0.415."""
    predicted = torch.tensor([[0.9], [0.2], [0.4]])
    loss = binary_cross_entropy(predicted.logit(), torch.tensor([[1.0], [0.0], [1.0]]))
    assert float(loss) == pytest.approx(0.415, abs=5e-4)


def test_cross_entropy_of_the_worked_example() -> None:
    """Four images whose own class got 0.7, 0.5, 0.8 and 0.5: -(ln 0.7 + ln 0.5 + ln 0.8 + ln 0.5) / 4 = 0.4915."""
    predicted = torch.tensor([[0.7, 0.2, 0.1], [0.3, 0.5, 0.2], [0.1, 0.1, 0.8], [0.5, 0.25, 0.25]])
    loss = cross_entropy(predicted.log(), torch.tensor([0, 1, 2, 0]))
    assert float(loss) == pytest.approx(0.4915, abs=5e-5)


def test_focal_loss_of_the_papers_example() -> None:
    """Lin et al. 2017, section 3.2: with gamma 2 an image at p = 0.9 counts 100 times less, one at 0.968 1000 times."""
    for p, times in ((0.9, 100.0), (0.968, 1000.0)):
        logits, truth = torch.tensor([[p, 1 - p]], dtype=torch.float64).log(), torch.tensor([0])
        ratio = cross_entropy(logits, truth) / focal_loss(logits, truth, gamma=2.0)
        assert float(ratio) == pytest.approx(times, rel=0.03)


def test_convolution_of_the_worked_example() -> None:
    """A 5 x 5 image and a 3 x 3 filter, as in Dumoulin & Visin 2016 (arXiv:1603.07285), figure 1.1."""
    image = torch.tensor([[3, 3, 2, 1, 0], [0, 0, 1, 3, 1], [3, 1, 2, 2, 3], [2, 0, 0, 2, 2], [2, 0, 0, 0, 1]])
    kernel = torch.tensor([[0, 1, 2], [2, 2, 0], [0, 1, 2]])
    result = F.conv2d(image[None, None].float(), kernel[None, None].float())
    assert result[0, 0].tolist() == [[12, 12, 17], [10, 17, 19], [9, 6, 14]]


# --- against reference libraries


@given(st.integers(0, 2**31 - 1), st.sampled_from([0.0, 0.5, 1.0, 2.0, 5.0]))
def test_binary_focal_loss_is_that_of_torchvision(seed: int, gamma: float) -> None:
    from torchvision.ops import sigmoid_focal_loss

    logits, _, labels = _random(seed)
    theirs = sigmoid_focal_loss(logits, labels, alpha=-1, gamma=gamma, reduction="mean")
    torch.testing.assert_close(binary_focal_loss(logits, labels, gamma=gamma), theirs)


@given(st.integers(0, 2**31 - 1), st.sampled_from([0.5, 1.0, 2.0]))
def test_focal_loss_of_two_classes_is_the_binary_one_of_torchvision(seed: int, gamma: float) -> None:
    from torchvision.ops import sigmoid_focal_loss

    logits, _, labels = _random(seed)
    score, present = logits[:, 0], labels[:, 0]
    ours = focal_loss(torch.stack([torch.zeros_like(score), score], 1), present.long(), gamma=gamma)
    torch.testing.assert_close(ours, sigmoid_focal_loss(score, present, alpha=-1, gamma=gamma, reduction="mean"))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["unweighted", "weighted"])
def test_focal_loss_without_focus_is_cross_entropy(weights: Tensor | None, smoothing: float) -> None:
    logits, truth, labels = _random(0)
    settings = {"weights": weights, "smoothing": smoothing}
    torch.testing.assert_close(
        focal_loss(logits, truth, gamma=0.0, **settings),  # type: ignore[arg-type]
        F.cross_entropy(logits, truth, weights, label_smoothing=smoothing),
    )
    torch.testing.assert_close(
        binary_focal_loss(logits, labels, gamma=0.0, **settings),  # type: ignore[arg-type]
        binary_cross_entropy(logits, labels, **settings),  # type: ignore[arg-type]
    )


# --- class weights


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_an_image_of_weight_four_counts_as_four_images(gamma: float) -> None:
    logits, truth, _ = _random(1)
    weights = torch.tensor([1.0, 4.0, 2.0], dtype=torch.float64)
    repeats = weights[truth].long()
    repeated = focal_loss(logits.repeat_interleave(repeats, 0), truth.repeat_interleave(repeats), gamma=gamma)
    torch.testing.assert_close(focal_loss(logits, truth, gamma=gamma, weights=weights), repeated)


@pytest.mark.parametrize("loss", ["bce", "focal"])
def test_a_label_of_weight_four_counts_four_times_where_it_is_present(loss: str) -> None:
    logits, _, labels = _random(2)
    weights = torch.tensor([1.0, 4.0, 2.0], dtype=torch.float64)
    of = {"bce": lambda x, y, w: binary_cross_entropy(x, y, weights=w), "focal": _binary_focal}[loss]
    cells = [(x, y, w) for x, y in zip(logits, labels, strict=True) for x, y, w in zip(x, y, weights, strict=True)]
    each = [(w if y else 1) * of(x.view(1, 1), y.view(1, 1), None) for x, y, w in cells]
    torch.testing.assert_close(of(logits, labels, weights), torch.stack(each).mean())


def _binary_focal(logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    return binary_focal_loss(logits, labels, gamma=2.0, weights=weights)


@pytest.mark.parametrize("loss", sorted(ONE_CLASS))
@pytest.mark.parametrize("scale", [0.01, 7.0])
def test_the_scale_of_the_weights_does_not_matter(loss: str, scale: float) -> None:
    logits, truth, _ = _random(3)
    plans = [
        a_plan(loss=loss, class_weights=tuple((factor * WEIGHTS).tolist()), label_smoothing=0.1)
        for factor in (1.0, scale)
    ]
    one, other = (ONE_CLASS[loss](logits, truth, plan) for plan in plans)
    torch.testing.assert_close(one, other)


# --- gradients


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_gradients_are_those_of_finite_differences(gamma: float) -> None:
    logits, truth, labels = _random(4, images=3)
    logits.requires_grad_()
    settings = {"gamma": gamma, "weights": WEIGHTS, "smoothing": 0.1}
    assert torch.autograd.gradcheck(lambda x: focal_loss(x, truth, **settings), logits)  # type: ignore[arg-type]
    assert torch.autograd.gradcheck(lambda x: binary_focal_loss(x, labels, **settings), logits)  # type: ignore[arg-type]


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_gradients_stay_finite_where_the_network_is_certain(gamma: float) -> None:
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    right_and_wrong, labels = torch.tensor([0, 0]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    for loss in (focal_loss(logits, right_and_wrong, gamma=gamma), binary_focal_loss(logits, labels, gamma=gamma)):
        (gradient,) = torch.autograd.grad(loss, logits)
        assert gradient.isfinite().all()
        assert gradient[1].abs().max() > 0.1  # the wrong one is learnt from


# --- what the task shows


def _batch(one_class: bool) -> Batch[Label] | Batch[LabelSet]:
    ids, images = ["0", "1", "2"], torch.zeros(3, 3, 4, 4)
    if one_class:
        return Batch(images=images, targets=[Label(i) for i in (0, 1, 1)], ids=ids)
    present = np.array([[1, 0, 0], [0, 1, 1], [0, 0, 0]], bool)
    return Batch(images=images, targets=[LabelSet(row) for row in present], ids=ids)


def _plain(task: Task[Label] | Task[LabelSet], logits: Tensor) -> Tensor:
    if task.name == "classification":
        return F.cross_entropy(logits, torch.tensor([0, 1, 1]))
    present = torch.tensor([[1.0, 0, 0], [0, 1, 1], [0, 0, 0]], dtype=logits.dtype)
    return F.binary_cross_entropy_with_logits(logits, present)


@pytest.mark.parametrize(
    ("task_name", "loss"),
    [
        (name, loss)
        for name in ("classification", "multilabel")
        for loss in ("auto", *create_task(name, CLASSES).loss_names)
    ],
)
def test_validation_shows_the_plain_loss_whatever_is_minimised(task_name: str, loss: str) -> None:
    task = create_task(task_name, CLASSES)
    plan = a_plan(task=task_name, loss=loss, class_weights=(1.0, 5.0, 2.0), label_smoothing=0.2)
    logits = _random(5, images=3)[0].float()
    batch = _batch(task_name == "classification")
    (shown,) = task.criterion(logits, batch, plan).values()
    (minimised,) = task.criterion(logits.requires_grad_(), batch, plan).values()
    torch.testing.assert_close(shown, _plain(task, logits.detach()))
    assert minimised.requires_grad and not torch.isclose(shown, minimised)


@pytest.mark.parametrize("table", [ONE_CLASS, ANY_LABELS], ids=["one class", "any labels"])
def test_every_loss_of_a_plan_changes_the_result(table: dict[str, Callable[..., Tensor]]) -> None:
    """No name stands for another by mistake, but for 'auto', which is the usual one."""
    logits, truth, labels = _random(6)
    target = truth if table is ONE_CLASS else labels
    values = {name: float(loss(logits, target, a_plan(loss=name))) for name, loss in table.items()}
    usual = next(name for name in table if name not in ("auto", "focal"))
    assert values["auto"] == values[usual] != values["focal"]


def test_a_loss_of_half_precision_outputs_is_computed_in_full() -> None:
    task = create_task("classification", CLASSES)
    logits = _random(7, images=3)[0].bfloat16().requires_grad_()
    (loss,) = task.criterion(logits, _batch(one_class=True), a_plan(loss="focal")).values()
    assert loss.dtype == torch.float32
