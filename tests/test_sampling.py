"""Which training images an epoch visits: rare classes as often as asked, keyed by the epoch, and never otherwise."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snellen.core.record import Record
from snellen.core.seeds import keyed_permutation
from snellen.data.sampling import SAMPLINGS, copy_numbers, epoch_length, epoch_order


def records(*labels: tuple[str, ...]) -> list[Record]:
    return [Record(id=str(i), path=Path("x"), labels=each) for i, each in enumerate(labels)]


def of_counts(**counts: int) -> list[Record]:
    return records(*[(name,) for name, n in counts.items() for _ in range(n)])


def visits(images: list[Record], sampling: str, epoch: int = 0) -> Counter[tuple[str, ...]]:
    return Counter(images[i].labels for i in epoch_order(images, sampling, 0, epoch))


COUNTS = st.dictionaries(st.sampled_from("abcde"), st.integers(1, 40), min_size=1)


@given(COUNTS, st.integers(0, 50))
def test_every_class_comes_as_often_as_the_largest_or_the_smallest(counts: dict[str, int], epoch: int) -> None:
    images = of_counts(**counts)
    for sampling, each in (("oversample", max(counts.values())), ("undersample", min(counts.values()))):
        assert visits(images, sampling, epoch) == {(name,): each for name in counts}
        assert epoch_length(images, sampling) == each * len(counts)


@given(COUNTS, st.integers(0, 50))
def test_repeats_and_gaps_are_spread_evenly_within_a_class(counts: dict[str, int], epoch: int) -> None:
    images = of_counts(**counts)
    for sampling in ("oversample", "undersample"):
        seen = Counter(epoch_order(images, sampling, 0, epoch).tolist())
        for name in counts:
            times = [seen[i] for i, image in enumerate(images) if image.labels == (name,)]
            assert max(times) - min(times) <= 1


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_an_epoch_is_a_pure_function_of_seed_and_epoch(sampling: str) -> None:
    images = of_counts(a=40, b=7, c=3)
    order = epoch_order(images, sampling, 3, 5)
    assert order.dtype == np.int64 and len(order) == epoch_length(images, sampling)
    assert np.array_equal(order, epoch_order(images, sampling, 3, 5))
    assert not np.array_equal(order, epoch_order(images, sampling, 3, 6))
    assert not np.array_equal(order, epoch_order(images, sampling, 4, 5))


def test_as_is_visits_each_image_once_in_the_order_of_the_seed() -> None:
    images = of_counts(a=9, b=2)
    assert np.array_equal(epoch_order(images, "as is", 3, 1), keyed_permutation(11, 3, 1))


def test_undersampling_takes_other_images_each_epoch_until_all_were_seen() -> None:
    images = of_counts(common=30, rare=5)
    epochs = [set(epoch_order(images, "undersample", 0, epoch).tolist()) for epoch in range(40)]
    assert epochs[0] != epochs[1] and set().union(*epochs) == set(range(35))
    assert all(set(range(30, 35)) < epoch for epoch in epochs)


def test_classes_are_mixed_over_the_epoch() -> None:
    images = of_counts(a=200, b=20)
    order = epoch_order(images, "oversample", 0, 0)
    rare_in_half = sum(images[i].labels == ("b",) for i in order[:200])
    assert 70 < rare_in_half < 130


def test_images_of_rare_labels_are_repeated_by_the_factors_of_lvis() -> None:
    """Gupta et al. 2019: r(c) = sqrt(t / f(c)), an image has the largest of its labels; t is the commonest's share."""
    images = records(*[("a",)] * 64, *[("a", "b")] * 16, *[()] * 10, *[("c",)] * 5)  # a 80, b 16, c 5
    factors = {("a",): 1.0, ("a", "b"): 5**0.5, (): 1.0, ("c",): 4.0}
    length = epoch_length(images, "oversample")
    assert length == round(64 + 16 * 5**0.5 + 10 + 20)
    mean = Counter[tuple[str, ...]]()
    for epoch in range(200):
        mean += visits(images, "oversample", epoch)
    of_labels = Counter(image.labels for image in images)
    for labels, factor in factors.items():
        assert mean[labels] / 200 == pytest.approx(factor * of_labels[labels], rel=0.02, abs=0.15)


def test_undersampling_several_labels_keeps_what_is_rarest() -> None:
    images = records(*[("a",)] * 80, *[("a", "b")] * 5)
    seen = visits(images, "undersample")
    assert seen[("a", "b")] == 5 and 15 <= seen[("a",)] <= 25


def test_images_without_any_label_leave_nothing_to_balance() -> None:
    images = records(*[()] * 12)
    for sampling in SAMPLINGS:
        assert epoch_length(images, sampling) == 12
        assert sorted(epoch_order(images, sampling, 0, 0)) == list(range(12))


def test_an_unknown_sampling_is_refused() -> None:
    with pytest.raises(ValueError, match="'oversampled'"):
        epoch_length(of_counts(a=3), "oversampled")


@given(st.lists(st.integers(0, 9), max_size=40))
def test_copies_of_an_image_are_numbered_in_the_order_they_come(order: list[int]) -> None:
    numbers = copy_numbers(np.array(order, np.int64))
    expected = [order[:i].count(image) for i, image in enumerate(order)]
    assert numbers.tolist() == expected
