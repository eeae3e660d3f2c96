"""Whether more images would help is said of a class that is short of them, and of no set that has enough."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from snellen.audit.labelled import Labelled
from snellen.core.finding import Finding
from snellen.doctor.more_data import more_data_would_help

CLASSES = ("ant", "bee", "cat", "dog")


def drawn(
    seed: int, kinds: tuple[int, ...], counts: tuple[int, ...], *, apart: float = 3.0, copies: int = 1
) -> Labelled:
    """Each class is of several kinds, clouds in 10 dimensions; a kind that no image shows cannot be known."""
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(len(counts)), counts)
    centres = [rng.normal(size=(number, 10)) * apart / np.sqrt(2) for number in kinds]
    seen = np.stack([centres[code][rng.integers(len(centres[code]))] for code in codes])
    features = np.repeat(seen + rng.normal(size=seen.shape), copies, axis=0)
    n = len(features)
    return Labelled(
        ids=[f"{i}.jpg" for i in range(n)],
        sides=["train"] * n,
        units=[str(i // copies) for i in range(n)],
        codes=np.repeat(codes, copies),
        classes=CLASSES[: len(counts)],
        features=features,
    )


def found_in(seen: Labelled | None) -> list[Finding]:
    return list(more_data_would_help(seen))


@pytest.mark.parametrize("seed", range(2))
def test_a_class_that_is_short_of_images_is_named_and_no_other(seed: int) -> None:
    (finding,) = found_in(drawn(seed, (20, 20, 20, 70), (240, 240, 240, 130), apart=7.0))
    named = [each["name"] for each in finding.evidence["doublings"] if each["name"]]
    assert named == ["dog"] and "dog" in finding.message and "dog" in finding.advice
    assert finding.certainty == "observed" and not finding.is_diagnosis
    doubling = next(each for each in finding.evidence["doublings"] if each["name"] == "dog")
    assert 0.02 <= doubling["gain_low"] <= doubling["then"] - doubling["now"] <= doubling["gain_high"] + 1e-9


@pytest.mark.parametrize("seed", range(4))
def test_a_set_that_has_enough_is_left_in_peace(seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts = tuple(int(each) for each in rng.integers(40, 160, 4))
    assert found_in(drawn(seed, (1, 1, 1, 1), counts)) == []


@pytest.mark.parametrize("seed", range(2))
def test_classes_that_overlap_are_helped_by_nothing(seed: int) -> None:
    assert found_in(drawn(seed, (1, 1), (200, 200), apart=0.35)) == []


@pytest.mark.parametrize("seed", range(2))
def test_labels_at_random_promise_nothing(seed: int) -> None:
    seen = drawn(seed, (1, 1, 1, 1), (100, 100, 100, 100))
    np.random.default_rng(seed).shuffle(seen.codes)
    assert found_in(seen) == []


def test_few_images_and_none_at_all_are_not_spoken_of() -> None:
    assert found_in(None) == []
    assert found_in(drawn(0, (2, 40), (60, 50))) == []


def test_the_promise_is_kept_when_the_images_come() -> None:
    """What twice the images really give is no less than the interval says, and not far above it."""
    for seed in range(3):
        twice = drawn(seed, (60, 60), (280, 280), apart=7.0)
        some = np.sort(np.random.default_rng(seed).permutation(560)[:280])
        few = replace(twice, features=twice.features[some], codes=twice.codes[some], ids=[twice.ids[i] for i in some])
        few = replace(few, units=few.ids, sides=few.sides[: len(some)])
        (finding,) = found_in(few)
        promised = finding.evidence["doublings"][0]
        held_out = twice.classifier.scores(twice.codes, 2).argmax(1) == twice.codes
        gain = held_out.mean() - promised["now"]
        assert promised["name"] == "" and promised["gain_low"] - 0.03 <= gain <= promised["gain_high"] + 0.06


def test_copies_are_judged_by_models_that_have_seen_none_of_them() -> None:
    """Else every image would be known by its copies, and nothing would be short of images."""
    (finding,) = found_in(drawn(1, (60, 60, 60), (120, 120, 120), apart=7.0, copies=2))
    assert finding.evidence["doublings"][0]["name"] == ""
