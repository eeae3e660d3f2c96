"""AutoAugment, RandAugment and TrivialAugment do what torchvision's do, operation by operation."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from snellen.data.augment import Augmentation
from snellen.data.policies import (
    AUTOAUGMENT,
    COLOURS,
    MOVES,
    RANDAUGMENT,
    TRIVIALAUGMENT,
    policy_colours,
    policy_matrices,
    policy_steps,
)
from snellen.data.warp import warp_image

SIZE = (90, 70)
IDS = [f"{number}" for number in range(2000)]
SHIFTS = {"ShiftX": "TranslateX", "ShiftY": "TranslateY"}  # by pixels, as TrivialAugment shifts


def picture(seed: int = 0) -> npt.NDArray[np.uint8]:
    coarse = Image.fromarray(np.random.default_rng(seed).integers(30, 226, (7, 9, 3), dtype=np.uint8))
    return np.array(coarse.resize(SIZE, Image.Resampling.BICUBIC))


def torchvisions(name: str, magnitude: float, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    apply = v2.RandAugment()._apply_image_or_video_transform
    done = apply(
        tensor, name, magnitude, interpolation=v2.InterpolationMode.BILINEAR, fill={torch.Tensor: [1.0, 2.0, 3.0]}
    )
    return np.asarray(done.permute(1, 2, 0).numpy())


LEVELS: dict[str, list[float]] = {
    "Posterize": [8, 5, 2],
    "Solarize": [1.0, 0.6, 0.0],
    "AutoContrast": [0],
    "Equalize": [0],
    "Invert": [0],
}


@pytest.mark.parametrize("name", COLOURS)
def test_colours_are_torchvisions(name: str) -> None:
    for level in LEVELS.get(name, [-0.9, -0.3, 0.5, 0.99]):
        image = picture()
        found = policy_colours([(name, level)], image)
        assert np.abs(found.astype(int) - torchvisions(name, level, image)).max() <= 1, level
        assert not np.array_equal(found, image) or level in (8, 1.0)


@pytest.mark.parametrize("name", MOVES)
def test_moves_are_torchvisions(name: str) -> None:
    for level, same in {
        "Rotate": [(25.0, -25.0), (-135.0, 135.0)], "ShearX": [(0.3, 0.3), (-0.9, -0.9)], "ShearY": [(0.3, 0.3)],
        "TranslateX": [(0.2, 18.0)], "TranslateY": [(-0.1, -7.0)], "ShiftX": [(-9.0, -9.0)], "ShiftY": [(5.0, 5.0)],
    }[name]:  # fmt: skip
        (matrix,) = policy_matrices([[(name, level)]], SIZE)
        found = warp_image(picture(), matrix, SIZE, fill=(1, 2, 3))
        expected = torchvisions(SHIFTS.get(name, name), same, picture())
        apart = np.abs(found.astype(int) - expected).max(axis=-1)
        assert np.mean(apart > 3) < 0.05, level  # a seam along the filled part


def test_the_table_is_the_published_one() -> None:
    published = v2.AutoAugment()._get_policies(v2.AutoAugmentPolicy.IMAGENET)
    assert tuple(tuple((name, p, strength or 0) for name, p, strength in pair) for pair in published) == AUTOAUGMENT


def spaces(theirs: Any, bins: int) -> dict[str, set[float]]:
    """Every magnitude that torchvision may draw on an image of SIZE, by operation."""
    drawn = {}
    for name, (values, signed) in theirs._AUGMENTATION_SPACE.items():
        levels = values(bins, SIZE[1], SIZE[0])
        found = {0.0} if levels is None else {float(level) for level in levels}
        drawn[name] = {round(level, 4) for level in found | ({-level for level in found} if signed else set())}
    return drawn


def test_trivialaugment_draws_one_operation_of_torchvisions_space() -> None:
    steps = policy_steps(Augmentation(policy="trivialaugment"), 0, 0, IDS)
    space = spaces(v2.TrivialAugmentWide, 31)
    assert {SHIFTS.get(name, name) for name in TRIVIALAUGMENT} == set(space)
    for ((name, level),) in steps:
        assert min(abs(level - known) for known in space[SHIFTS.get(name, name)]) < 1e-3, (name, level)
    counts = Counter(name for ((name, _),) in steps)
    assert len(counts) == 14 and max(counts.values()) < 1.5 * min(counts.values())
    assert 0.4 < np.mean([level > 0 for ((name, level),) in steps if name == "Rotate"]) < 0.6


@pytest.mark.parametrize(("operations", "magnitude"), [(2, 9), (3, 30), (1, 0)])
def test_randaugment_draws_as_many_of_one_strength(operations: int, magnitude: int) -> None:
    settings = Augmentation(policy="randaugment", operations=operations, magnitude=magnitude)
    space = v2.RandAugment._AUGMENTATION_SPACE
    assert set(RANDAUGMENT) == set(space)
    seen = set()
    for each in policy_steps(settings, 0, 0, IDS[:500]):
        assert len(each) == operations
        for name, level in each:
            levels = space[name][0](31, 1, 1)
            expected = 0.0 if levels is None else float(levels[magnitude])
            assert abs(level) == pytest.approx(expected, abs=1e-6)
            seen.add(name)
    assert seen == set(RANDAUGMENT)


def test_autoaugment_takes_each_half_of_a_pair_as_often_as_it_says() -> None:
    steps = policy_steps(Augmentation(policy="autoaugment"), 0, 0, [f"{n}" for n in range(20_000)])
    counts = Counter(tuple(name for name, _ in each) for each in steps)
    # Pair 18 (ShearX 0.6, Equalize 1.0) is the only one with ShearX.
    assert counts[("ShearX", "Equalize")] / 20_000 == pytest.approx(0.6 / 25, rel=0.15)
    assert not any(names == ("ShearX",) for names in counts)
    levels = {abs(level) for each in steps for name, level in each if name == "ShearX"}
    assert len(levels) == 1 and levels.pop() == pytest.approx(0.3 * 5 / 9)


def test_steps_follow_from_the_key_alone_and_none_does_nothing() -> None:
    settings = Augmentation(policy="randaugment")
    assert policy_steps(settings, 1, 2, IDS[:9]) == policy_steps(settings, 1, 2, IDS)[:9]
    assert policy_steps(settings, 1, 3, IDS[:9]) != policy_steps(settings, 1, 2, IDS[:9])
    assert policy_steps(Augmentation(), 1, 2, IDS[:2]) == [[], []]
    image = picture()
    assert policy_colours([("Rotate", 10.0), ("Identity", 0.0)], image) is image
    moved = policy_matrices([[("Rotate", 10.0), ("Equalize", 0.0), ("ShiftX", 4.0)], []], SIZE)
    assert np.allclose(moved[1], np.eye(3)) and not np.allclose(moved[0], np.eye(3))


def test_functional_names_are_those_that_the_oracle_uses() -> None:
    """The oracle's private method could change under us: one operation is compared with the public function."""
    image = picture()
    tensor = F.equalize(torch.from_numpy(image).permute(2, 0, 1)).permute(1, 2, 0).numpy()
    assert np.array_equal(tensor, torchvisions("Equalize", 0.0, image))
