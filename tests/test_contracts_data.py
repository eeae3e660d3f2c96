"""Contracts of batches and sides: what the loaders give must be finite, shuffled, of both sides apart, and alike."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset, WeightedRandomSampler

from doctor_cases import KINDS, tiny_training
from snellen.core.finding import Check, Finding
from snellen.doctor.case import Case, Training
from snellen.doctor.contracts.data import (
    batches_not_shuffled,
    images_never_seen,
    inputs_constant,
    inputs_not_finite,
    targets_out_of_range,
)
from snellen.doctor.contracts.passes import passes
from snellen.doctor.contracts.sides import (
    images_on_both_sides,
    pixels_differ,
    same_image_other_target,
    validation_varies,
)

CHECKS: tuple[Check[Case], ...] = (
    inputs_not_finite,
    targets_out_of_range,
    inputs_constant,
    batches_not_shuffled,
    images_never_seen,
    images_on_both_sides,
    same_image_other_target,
    pixels_differ,
    validation_varies,
)
Plant = Callable[[Training], None]


def findings(training: Training) -> list[Finding]:
    case = Case(training=training)
    return [finding for check in CHECKS for finding in check(case)]


def tensors(training: Training, side: str) -> tuple[Tensor, Tensor]:
    images, targets = getattr(training, side).dataset.tensors
    return images, targets


def renewed(training: Training, side: str, images: Tensor, targets: Tensor, **options: Any) -> None:
    generator = torch.Generator().manual_seed(1)
    setattr(training, side, DataLoader(TensorDataset(images, targets), 32, generator=generator, **options))


def sorted_by_class(training: Training) -> None:
    images, targets = tensors(training, "train")
    order = targets.argsort()
    renewed(training, "train", images[order], targets[order])


def never_shuffled(training: Training) -> None:
    renewed(training, "train", *tensors(training, "train"))


def a_few_leaks(training: Training) -> None:
    images, targets = tensors(training, "val")
    images[:5], targets[:5] = (each[10:15] for each in tensors(training, "train"))


def one_leak(training: Training) -> None:
    images, targets = tensors(training, "val")
    images[:1], targets[:1] = (each[10:11] for each in tensors(training, "train"))


def two_answers(training: Training) -> None:
    images, targets = tensors(training, "train")
    images[:6] = images[6:12]
    targets[:6] = (targets[6:12] + 1) % 4


def not_a_number(training: Training) -> None:
    tensors(training, "train")[0][3, 0, 0, 0] = float("nan")


def infinite_in_validation(training: Training) -> None:
    tensors(training, "val")[0][5, 1, 2, 2] = float("inf")


def all_the_same(training: Training) -> None:
    images, _ = tensors(training, "train")
    images[:] = images[:1].clone()
    training.plain = None


def all_blank(training: Training) -> None:
    tensors(training, "train")[0][:] = torch.arange(256.0).view(-1, 1, 1, 1)


def one_class_the_same(training: Training) -> None:
    images, targets = tensors(training, "train")
    images[targets == 2] = images[0].clone()
    targets[0] = 2
    training.plain = None


def counted_from_one(training: Training) -> None:
    for side in ("train", "val"):
        tensors(training, side)[1].add_(1)


def never_scaled(training: Training) -> None:
    images, targets = tensors(training, "train")
    renewed(training, "train", images * 255, targets, shuffle=True)


def another_crop(training: Training) -> None:
    images, targets = tensors(training, "train")
    renewed(training, "train", images[:, :, 2:-2, 2:-2], targets, shuffle=True)


def channels_reversed(training: Training) -> None:
    images, targets = tensors(training, "train")
    renewed(training, "train", images.flip(1) + 0.2, targets, shuffle=True)


def a_tenth_left_out(training: Training) -> None:
    images, targets = tensors(training, "train")
    renewed(training, "train", images[:-26], targets[:-26], shuffle=True)


class Noisy(Dataset[Any]):
    """Images with new noise each time."""

    def __init__(self, whole: Any) -> None:
        self.whole = whole

    def __len__(self) -> int:
        return len(self.whole)

    def __getitem__(self, index: int) -> Any:
        image, target = self.whole[index]
        return image + 0.1 * torch.randn_like(image), target


def noisy_validation(training: Training) -> None:
    training.val = DataLoader(Noisy(training.val.dataset), 32)  # type: ignore[attr-defined]


FAULTS: list[tuple[Plant, set[str], str]] = [
    (sorted_by_class, {"batches-not-shuffled"}, "serious"),
    (never_shuffled, {"batches-not-shuffled"}, "warning"),
    (a_few_leaks, {"images-on-both-sides"}, "serious"),
    (one_leak, {"images-on-both-sides"}, "warning"),
    (two_answers, {"same-image-other-target"}, "serious"),
    (not_a_number, {"inputs-not-finite"}, "serious"),
    (infinite_in_validation, {"inputs-not-finite"}, "serious"),
    (all_the_same, {"inputs-constant", "same-image-other-target"}, "serious"),
    (all_blank, {"inputs-constant"}, "serious"),
    (one_class_the_same, {"inputs-constant"}, "serious"),
    (counted_from_one, {"targets-out-of-range"}, "serious"),
    (never_scaled, {"pixels-differ"}, "serious"),
    (another_crop, {"pixels-differ"}, "serious"),
    (channels_reversed, {"pixels-differ"}, "serious"),
    (a_tenth_left_out, {"images-never-seen"}, "warning"),
    (noisy_validation, {"validation-varies"}, "warning"),
]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("plant", "codes", "severity"), FAULTS, ids=[fault[0].__name__ for fault in FAULTS])
def test_a_planted_fault_is_found_and_nothing_else(plant: Plant, codes: set[str], severity: str, seed: int) -> None:
    training = tiny_training("cnn", seed=seed, num_val=256)
    plant(training)
    found = findings(training)
    assert {finding.code for finding in found} == codes
    assert all(finding.certainty == "certain" and finding.evidence and finding.advice for finding in found)
    assert severity in {finding.severity for finding in found}


def test_targets_beyond_the_classes_of_a_map_are_found_and_void_is_not() -> None:
    training = tiny_training("segmenter", num=64)
    targets = tensors(training, "train")[1]
    targets[:, 0, 0] = 255
    assert findings(training) == []
    targets[:, 0, 0] = 5
    assert [finding.code for finding in findings(training)] == ["targets-out-of-range"]


# What is healthy, however unusual.


def drawn_with_replacement(training: Training) -> None:
    whole: Any = training.train.dataset  # type: ignore[attr-defined]
    sampler = WeightedRandomSampler(torch.rand(256).tolist(), 256, generator=torch.Generator().manual_seed(0))
    training.train = DataLoader(whole, 32, sampler=sampler)


def last_batch_dropped(training: Training) -> None:
    renewed(training, "train", *(each[:250] for each in tensors(training, "train")), shuffle=True, drop_last=True)
    renewed(training, "plain", *(each[:250] for each in tensors(training, "plain")))


def shuffled_validation(training: Training) -> None:
    renewed(training, "val", *tensors(training, "val"), shuffle=True, drop_last=True)


def rounded_differently(training: Training) -> None:
    """The same arithmetic in another order: (x - a) / b against x / b - a / b."""
    images, targets = tensors(training, "plain")
    renewed(training, "plain", images / 0.3 * 0.3, targets)


def black_on_both_sides(training: Training) -> None:
    for side in ("train", "val"):
        tensors(training, side)[0][:3] = 0.0


def copies_in_training(training: Training) -> None:
    images, targets = tensors(training, "train")
    images[:20], targets[:20] = images[20:40].clone(), targets[20:40].clone()


class Mirrored(Dataset[Any]):
    """Every second time an image is its mirror image; the draws come from Python's own generator."""

    def __init__(self, whole: Any) -> None:
        self.whole, self.draws = whole, random.Random(0)

    def __len__(self) -> int:
        return len(self.whole)

    def __getitem__(self, index: int) -> Any:
        image, target = self.whole[index]
        return (image.flip(2) if self.draws.random() < 0.5 else image), target


def mirrored(training: Training) -> None:
    generator = torch.Generator().manual_seed(0)
    training.train = DataLoader(Mirrored(training.train.dataset), 32, shuffle=True, generator=generator)  # type: ignore[attr-defined]


class Told:
    """A sampler with a fixed order for each epoch, which the user's loop sets."""

    def __init__(self, num: int) -> None:
        self.num, self.epoch = num, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num

    def __iter__(self) -> Iterator[int]:
        return iter(np.random.default_rng(self.epoch).permutation(self.num).tolist())


def told_of_epochs(training: Training) -> None:
    training.train = DataLoader(training.train.dataset, 32, sampler=Told(256))  # type: ignore[attr-defined, arg-type]


def one_batch_an_epoch(training: Training) -> None:
    images, targets = tensors(training, "train")
    training.train = DataLoader(TensorDataset(images, targets), 256)


def no_plain_images(training: Training) -> None:
    training.plain = None


def named_inputs(training: Training) -> None:
    """Inputs that are no tensor: most cannot be judged."""
    for side in ("train", "val", "plain"):
        batches = [({"image": x}, y) for x, y in getattr(training, side)]
        setattr(training, side, DataLoader(batches, batch_size=None, shuffle=side == "train"))
    training.question = "other"


HEALTHY: list[Plant] = [
    drawn_with_replacement,
    last_batch_dropped,
    shuffled_validation,
    rounded_differently,
    black_on_both_sides,
    copies_in_training,
    mirrored,
    told_of_epochs,
    one_batch_an_epoch,
    no_plain_images,
    named_inputs,
]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("make", HEALTHY, ids=lambda make: make.__name__)
def test_unusual_but_healthy_batches_raise_no_alarm(make: Plant, seed: int) -> None:
    training = tiny_training("cnn", seed=seed)
    make(training)
    assert findings(training) == []


@pytest.mark.parametrize("shift", [0, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_the_tiny_trainings_pass(kind: Any, shift: int) -> None:
    for seed in range(2):
        assert findings(tiny_training(kind, seed=seed, num=128, shift=shift)) == []


def test_loaders_are_read_once_for_all_contracts() -> None:
    training = tiny_training("mlp", num=64)
    reads = []

    class Counted:
        def __iter__(self) -> Iterator[Any]:
            reads.append(1)
            return iter([(torch.randn(32, 3, 12, 12), torch.zeros(32, dtype=torch.long))] * 2)

    training.val = Counted()
    case = Case(training=training)
    for check in CHECKS:
        list(check(case))
    assert len(reads) == 2 and passes(case) is passes(case)
    assert [finding for check in CHECKS for finding in check(Case())] == []
