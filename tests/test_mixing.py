"""MixUp and CutMix: pixels and targets are shared alike, keyed, and the losses are those of soft targets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from shapes import save_folders
from snellen.core.sample import Batch
from snellen.data.image_sets import Variation
from snellen.data.loader import training_batches
from snellen.data.mixing import mix
from snellen.tasks.base import create_task
from snellen.tasks.classification.target import Label
from tiny_runs import SETTINGS, SIDE, a_plan, start

torch.set_num_threads(1)
CLASSES = ("a", "b", "c")


def a_batch(num: int = 6, size: tuple[int, int] = (10, 14)) -> Batch[Any]:
    """Image i is flat of value 40 i, so that a pixel tells whose it is."""
    values = torch.arange(num, dtype=torch.uint8).view(-1, 1, 1, 1) * 40
    images = values.expand(num, 3, size[1], size[0]).contiguous()
    return Batch(images=images, targets=[Label(i % 3) for i in range(num)], ids=[f"{i}" for i in range(num)])


def partners_of(batch: Batch[Any], mixed: Batch[Any]) -> list[int]:
    assert mixed.mixed is not None
    return [next(i for i, t in enumerate(batch.targets) if t is partner) for partner in mixed.mixed.partners]


@settings(deadline=None)
@given(st.integers(0, 10**6), st.floats(0.1, 5.0))
def test_mixup_blends_pixels_by_the_share_it_tells(step: int, alpha: float) -> None:
    batch = a_batch()
    mixed = mix(batch, mixup=alpha, seed=1, epoch=2, step=step)
    assert mixed.mixed is not None and mixed.images.dtype == torch.uint8 and mixed.targets is batch.targets
    own, other = batch.images.float(), batch.images[partners_of(batch, mixed)].float()
    share = mixed.mixed.share
    assert 0.0 <= share <= 1.0 and sorted(partners_of(batch, mixed)) == list(range(6))
    assert (mixed.images - (share * own + (1 - share) * other)).abs().max() <= 0.51


@settings(deadline=None)
@given(st.integers(0, 10**6), st.tuples(st.integers(1, 20), st.integers(1, 20)))
def test_cutmix_pastes_one_box_and_tells_its_exact_share(step: int, size: tuple[int, int]) -> None:
    batch = a_batch(size=size)
    mixed = mix(batch, cutmix=1.0, seed=1, epoch=0, step=step)
    assert mixed.mixed is not None
    for i, partner in enumerate(partners_of(batch, mixed)):
        own, other = mixed.images[i] == 40 * i, mixed.images[i] == 40 * partner
        assert bool((own | other).all())
        if partner != i:
            assert float(own.float().mean()) == pytest.approx(mixed.mixed.share)
            rows, columns = np.nonzero(other[0].numpy())
            if len(rows):
                assert len(rows) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)


def test_everything_follows_from_seed_epoch_and_step() -> None:
    batch = a_batch()
    keys = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    once, again = ([mix(batch, mixup=0.4, cutmix=1.0, seed=s, epoch=e, step=n) for s, e, n in keys] for _ in range(2))
    assert all(torch.equal(a.images, b.images) and a.mixed == b.mixed for a, b in zip(once, again, strict=True))
    assert len({each.mixed.share for each in once if each.mixed is not None}) == len(keys)


def test_with_both_on_each_gets_its_half_of_the_batches() -> None:
    batch = a_batch()
    blended = [mix(batch, mixup=1.0, cutmix=1.0, seed=0, epoch=0, step=step) for step in range(300)]
    pasted = [bool((each.images % 40 == 0).all()) for each in blended]
    assert 0.4 < np.mean(pasted) < 0.6
    shares = [each.mixed.share for each in blended if each.mixed is not None]
    assert 0.45 < np.mean(shares) < 0.65 and min(shares) < 0.1 and max(shares) > 0.9


def test_nothing_to_mix_leaves_the_batch_alone() -> None:
    batch, single = a_batch(), a_batch(1)
    assert mix(batch, seed=0, epoch=0, step=0) is batch
    assert mix(single, mixup=1.0, seed=0, epoch=0, step=0) is single


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_a_blend_is_that_of_soft_targets(smoothing: float) -> None:
    task, plan = create_task("classification", CLASSES), a_plan(label_smoothing=smoothing, classes=CLASSES)
    logits = torch.randn((6, 3), generator=torch.Generator().manual_seed(0)).requires_grad_()
    mixed = mix(a_batch(), mixup=1.0, seed=0, epoch=0, step=1)
    assert mixed.mixed is not None
    own, other = (
        F.one_hot(torch.tensor([label.index for label in part]), 3) for part in (mixed.targets, mixed.mixed.partners)
    )
    soft = mixed.mixed.share * own + (1 - mixed.mixed.share) * other
    (found,) = task.losses(Fixed(logits), mixed, plan).values()
    torch.testing.assert_close(found, F.cross_entropy(logits, soft, label_smoothing=smoothing))
    plain = replace(mixed, mixed=None)
    assert task.losses(Fixed(logits), plain, plan) == task.criterion(logits, plain, plan)


class Fixed(nn.Module):
    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.logits


def test_training_batches_are_mixed_as_the_plan_says_whatever_the_workers(tmp_path: Any) -> None:
    session = start(save_folders(tmp_path / "data", per_class=14, side=SIDE), tmp_path, **SETTINGS)
    variation = Variation.of(replace(session.plan, mixup=0.4))
    one, many = (
        list(training_batches(session.sides["train"], variation, epoch=1, batch_size=8, workers=workers))
        for workers in (1, 3)
    )
    assert all(torch.equal(a.images, b.images) and a.mixed == b.mixed for a, b in zip(one, many, strict=True))
    assert len({batch.mixed.share for batch in one if batch.mixed is not None}) == len(one) > 2
    later = next(iter(training_batches(session.sides["train"], variation, epoch=1, batch_size=8, workers=1, first=2)))
    assert torch.equal(later.images, one[2].images) and later.mixed == one[2].mixed
