"""Classes of very different sizes: they are counted, what makes up for them does so, and a training that suffers from
them is told apart from one that does not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from doctor_cases import learn, tiny_training
from snellen.doctor import forks, suspicions
from snellen.doctor.case import Case, Training
from snellen.doctor.epochs import takes_few_steps
from snellen.doctor.imbalance import adjust_logits, balance, class_counts, is_imbalanced
from snellen.doctor.loaders import Balanced, Parted
from snellen.doctor.scores import score_images

Batches = list[tuple[Tensor, Tensor]]


def batches_of(targets: list[int], size: int = 8) -> Batches:
    codes = torch.tensor(targets)
    return list(zip(codes.float().view(-1, 1).split(size), codes.split(size), strict=True))


def thinned(training: Training, shares: tuple[float, ...] = (1.0, 0.1, 1.0, 0.1)) -> Training:
    """Of each class a share of the training images is left; so in every training that it builds."""
    build = training.build
    assert build is not None
    kept = []
    for inputs, targets in training.plain or ():
        for image, target in zip(inputs, targets, strict=True):
            num = sum(int(other) == int(target) for _, other in kept)
            if num < max(2, round(shares[int(target)] * 64)):
                kept.append((image, target))
    images, codes = (torch.stack(each) for each in zip(*kept, strict=True))
    order = torch.randperm(len(codes), generator=torch.Generator().manual_seed(0))
    training.train = training.plain = list(zip(images[order].split(16), codes[order].split(16), strict=True))
    training.scheduler = None
    training.build = lambda seed: thinned(build(seed), shares)
    return training


def test_every_class_comes_as_often_and_batches_keep_their_sizes() -> None:
    source = batches_of([0] * 90 + [1] * 8 + [2] * 2)
    balanced = Balanced(source, seed=0)
    first, second = list(balanced), list(balanced)
    assert [len(targets) for _, targets in first] == [len(targets) for _, targets in source] and len(balanced) == 13
    counts = Counter(torch.cat([targets for _, targets in first + second]).tolist())
    assert set(counts) == {0, 1, 2} and all(45 < count < 90 for count in counts.values())
    assert all(torch.equal(inputs.flatten().long(), targets) for inputs, targets in first)
    assert not torch.equal(torch.cat([targets for _, targets in first]), torch.cat([targets for _, targets in second]))


@pytest.mark.parametrize("count", [4, 100])
def test_parted_batches_lose_no_image_and_have_two_at_least(count: int) -> None:
    source = batches_of(list(range(21)), size=8)
    parted = list(Parted(source, count))
    assert torch.cat([targets for _, targets in parted]).tolist() == list(range(21))
    assert min(len(targets) for _, targets in parted) >= 2 and len(parted) == 10


def test_only_very_different_sizes_are_imbalance_and_only_large_batches_few_steps() -> None:
    assert not is_imbalanced(tiny_training(num=64)) and not takes_few_steps(tiny_training(num=64))
    assert is_imbalanced(thinned(tiny_training()))
    assert class_counts(thinned(tiny_training())).tolist() == [64, 6, 64, 6]
    assert not is_imbalanced(tiny_training("regression", num=64)) and not is_imbalanced(tiny_training("segmenter"))
    assert takes_few_steps(tiny_training(num=256, batch=128, epochs=3))


@pytest.mark.parametrize(("change", "least"), [(balance, 0.05), (adjust_logits, 0.2)])
def test_rare_classes_are_learnt_better(change: Callable[[Training], Training], least: float) -> None:
    def rare_recall(training: Training) -> float:
        learn(training)
        truth = torch.cat([targets for _, targets in training.val])
        right = torch.from_numpy(score_images(training, training.val).values)
        return float(right[truth % 2 == 1].mean())

    before, after = (thinned(tiny_training(epochs=24, noise=0.3)) for _ in range(2))
    assert rare_recall(change(after)) > rare_recall(before) + least


def test_a_training_that_suffers_from_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    (imbalance,) = (each for each in suspicions.SUSPICIONS if each.code == "imbalance")
    monkeypatch.setattr(forks, "SUSPICIONS", (replace(imbalance, changes=("adjusted logits",)),))
    monkeypatch.setattr(forks, "_MORE_SEEDS", (1,))
    sick = Case(training=thinned(tiny_training(epochs=24, num_val=300, noise=0.3)))
    (found,) = forks.explained_by_forks(sick, deadline=float("inf"))
    assert found.code == "imbalance" and found.is_diagnosis and found.treatment["change"] == "adjusted logits"
    assert found.evidence["with"] > found.evidence["without"] + 0.03


def test_classes_of_about_one_size_are_not_asked_about() -> None:
    (imbalance,) = (each for each in suspicions.SUSPICIONS if each.code == "imbalance")
    assert not imbalance.holds(thinned(tiny_training(), (1.0, 0.2, 0.8, 0.3)))
