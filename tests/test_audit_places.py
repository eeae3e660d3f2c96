"""Boxes and masks that do not lie on edges are found, with what they were meant as; those that do are left alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from audit_places import SIZE, Misread, as_stored, as_width, bilinear, boxed_images, masked_images, mirrored
from snellen.audit.edges import EdgeMap
from snellen.audit.mask_edges import masks_off_edges
from snellen.audit.mask_values import mask_values_between
from snellen.audit.places import boxes_of_turned_images, boxes_off_edges
from snellen.audit.subject import AuditSubject
from snellen.core.annotation import Box
from snellen.core.finding import Finding
from snellen.core.thresholds import alpha

WIDTH, HEIGHT = SIZE


def one(found: list[Finding], code: str) -> Finding:
    assert [finding.code for finding in found] == [code]
    finding = found[0]
    assert finding.message.endswith(".") and finding.advice.endswith(".") and finding.images
    return finding


def quiet(subject: AuditSubject) -> bool:
    checks = (boxes_off_edges, boxes_of_turned_images, masks_off_edges, mask_values_between)
    return not any(list(check(subject)) for check in checks)


# ---- boxes


MISREAD: dict[str, Misread] = {
    "corners": as_width,
    "width-height": lambda x0, y0, x1, y1: (x0, y0, x1 - x0, y1 - y0),
    "centres": lambda x0, y0, x1, y1: ((x0 + x1) / 2, (y0 + y1) / 2, (3 * x1 - x0) / 2, (3 * y1 - y0) / 2),
    "not-centres": lambda x0, y0, x1, y1: ((3 * x0 - x1) / 2, (3 * y0 - y1) / 2, (x0 + x1) / 2, (y0 + y1) / 2),
    "two-corners": lambda x0, y0, x1, y1: (x0 - x1 / 2, y0 - y1 / 2, x0 + x1 / 2, y0 + y1 / 2),
    "mirrored": mirrored,
    "upside-down": lambda x0, y0, x1, y1: (x0, HEIGHT - y1, x1, HEIGHT - y0),
    "half-turn": lambda x0, y0, x1, y1: (WIDTH - x1, HEIGHT - y1, WIDTH - x0, HEIGHT - y0),
    "swapped": lambda x0, y0, x1, y1: (y0, x0, y1, x1),
    "swapped-fractions": lambda x0, y0, x1, y1: (y0 / 0.75, x0 * 0.75, y1 / 0.75, x1 * 0.75),
    "other-side": lambda x0, y0, x1, y1: (x0 / 0.75, y0 * 0.75, x1 / 0.75, y1 * 0.75),
    "padded": lambda x0, y0, x1, y1: (x0, (y0 + 20) * 0.75, x1, (y1 + 20) * 0.75),
    "padded-end": lambda x0, y0, x1, y1: (x0, y0 * 0.75, x1, y1 * 0.75),
    "percent": lambda x0, y0, x1, y1: (x0 / 1.6, y0 / 1.2, x1 / 1.6, y1 / 1.2),
    "times-2": lambda x0, y0, x1, y1: (x0 / 2, y0 / 2, x1 / 2, y1 / 2),
    "shift-1+0-0.050": lambda x0, y0, x1, y1: (x0 + 8, y0, x1 + 8, y1),
}


@pytest.mark.parametrize("name", MISREAD)
def test_misread_boxes_are_found_with_what_they_were_meant_as(name: str, tmp_path: Path) -> None:
    finding = one(list(boxes_off_edges(boxed_images(tmp_path, MISREAD[name], num=60).subject())), "boxes-off-edges")
    assert finding.evidence["reading"] == name
    assert finding.certainty == "confirmed" and finding.severity == "serious"
    assert finding.evidence["p"] < alpha("boxes-off-edges", 46)
    assert finding.evidence["score_better"] > 0.2 > finding.evidence["score_as_read"]
    assert finding.evidence["num_better"] > 0.6 * finding.evidence["num_images"]


def test_boxes_in_fractions_are_told_without_a_test(tmp_path: Path) -> None:
    data = boxed_images(tmp_path, lambda x0, y0, x1, y1: (x0 / WIDTH, y0 / HEIGHT, x1 / WIDTH, y1 / HEIGHT))
    finding = one(list(boxes_off_edges(data.subject())), "boxes-off-edges")
    assert finding.certainty == "certain" and finding.evidence["reading"] == "fractions"


UGLY: dict[str, Misread] = {
    "as they are": lambda *box: box,
    "loose": lambda x0, y0, x1, y1: (x0 - 4, y0 - 4, x1 + 4, y1 + 4),
    "tight": lambda x0, y0, x1, y1: (x0 + 2, y0 + 2, x1 - 2, y1 - 2),
    "loose on one side": lambda x0, y0, x1, y1: (x0, y0, x1 + 8, y1),
    "with their shadows": lambda x0, y0, x1, y1: (x0, y0, x1 + 6, y1 + 6),
    "whole pixels too far": lambda x0, y0, x1, y1: (x0 + 1, y0 + 1, x1 + 1, y1 + 1),
}


@pytest.mark.parametrize("name", UGLY)
@pytest.mark.parametrize("seed", range(2))
def test_boxes_that_are_right_but_drawn_badly_are_left_alone(name: str, seed: int, tmp_path: Path) -> None:
    assert quiet(boxed_images(tmp_path, UGLY[name], seed=seed).subject())


def test_boxes_drawn_by_a_shaking_hand_are_left_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)

    def shaken(*box: float) -> Box:
        x0, y0, x1, y1 = np.array(box) + rng.normal(0, 2, 4)
        return x0, y0, x1, y1

    assert quiet(boxed_images(tmp_path, shaken).subject())


def test_boxes_that_mark_nothing_to_be_seen_are_left_alone(tmp_path: Path) -> None:
    """No reading is better than another: silence, and not the luckiest of them."""
    rng = np.random.default_rng(2)

    def anywhere(*_: float) -> Box:
        x0, y0 = rng.uniform(0, 100), rng.uniform(0, 70)
        return x0, y0, x0 + rng.uniform(15, 50), y0 + rng.uniform(15, 45)

    assert quiet(boxed_images(tmp_path, anywhere).subject())


def test_few_images_say_nothing(tmp_path: Path) -> None:
    assert quiet(boxed_images(tmp_path, mirrored, num=10).subject())


def test_images_of_one_group_have_one_vote(tmp_path: Path) -> None:
    data = boxed_images(tmp_path, mirrored)
    data.records[:] = [replace(record, group=f"film {i % 5}") for i, record in enumerate(data.records)]
    assert quiet(data.subject())


# ---- images with an EXIF orientation


def test_boxes_that_were_not_turned_with_their_images_are_found(tmp_path: Path) -> None:
    subject = boxed_images(tmp_path, as_stored, orientation=6, every=2).subject()
    finding = one(list(boxes_of_turned_images(subject)), "boxes-of-turned-images")
    assert finding.evidence["reading"] == "stored" and finding.certainty == "confirmed"
    assert all(subject.facts[image_id].orientation == 6 for image_id in finding.images)
    assert finding.evidence["num_images"] <= 20
    assert not list(boxes_off_edges(subject))


def test_boxes_that_were_turned_without_need_are_found(tmp_path: Path) -> None:
    def turned_again(x0: float, y0: float, x1: float, y1: float) -> Box:
        return WIDTH - y1, x0, WIDTH - y0, x1

    data = boxed_images(tmp_path, turned_again, orientation=6)
    finding = one(list(boxes_of_turned_images(data.subject())), "boxes-of-turned-images")
    assert finding.evidence["reading"] == "upright"


def test_boxes_that_follow_their_images_are_left_alone(tmp_path: Path) -> None:
    assert quiet(boxed_images(tmp_path, orientation=6).subject())


# ---- masks


def moved(mask: np.ndarray, across: int, down: int) -> np.ndarray:
    return np.roll(mask, (down, across), (0, 1))


WRONG: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "mirrored": lambda mask, _: mask[:, ::-1],
    "upside-down": lambda mask, _: mask[::-1],
    "half-turn": lambda mask, _: mask[::-1, ::-1],
    "moved-4+0": lambda mask, _: moved(mask, 4, 0),
    "moved+0+2": lambda mask, _: moved(mask, 0, -2),
}


@pytest.mark.parametrize("name", WRONG)
def test_masks_that_are_mirrored_or_moved_are_found(name: str, tmp_path: Path) -> None:
    subject = masked_images(tmp_path, WRONG[name]).subject()
    finding = one(list(masks_off_edges(subject)), "masks-off-edges")
    assert finding.evidence["reading"] == name and finding.certainty == "confirmed"
    assert finding.evidence["p"] < alpha("masks-off-edges", 31)
    assert not list(mask_values_between(subject))


def grown(mask: np.ndarray, _: int) -> np.ndarray:
    return np.maximum.reduce([moved(mask, x, y) for x in (-1, 0, 1) for y in (-1, 0, 1)])


def shaken(mask: np.ndarray, i: int) -> np.ndarray:
    rng = np.random.default_rng(i)
    return moved(mask, *rng.integers(-1, 2, 2).tolist())


def coarse(mask: np.ndarray, _: int) -> np.ndarray:
    small = Image.fromarray(mask).resize((40, 30), Image.Resampling.NEAREST)
    return np.array(small.resize(SIZE, Image.Resampling.NEAREST))


def outlined(mask: np.ndarray, i: int) -> np.ndarray:
    """A void line round each object, as Pascal VOC has it."""
    return np.where(grown(mask, i) != mask, 255, mask).astype(np.uint8)


@pytest.mark.parametrize("change", [None, grown, shaken, coarse, outlined])
@pytest.mark.parametrize("seed", range(2))
def test_masks_that_are_right_but_rough_are_left_alone(
    change: Callable[[np.ndarray, int], np.ndarray] | None, seed: int, tmp_path: Path
) -> None:
    assert quiet(masked_images(tmp_path, change, seed=seed).subject())


def test_masks_of_other_images_fit_nothing_and_are_not_said_to_be_turned(tmp_path: Path) -> None:
    data = masked_images(tmp_path)
    masks = [record.mask for record in data.records]
    data.records[:] = [replace(record, mask=masks[i - 7]) for i, record in enumerate(data.records)]
    assert quiet(data.subject())


# ---- values between


def test_values_of_a_smoothed_mask_are_found(tmp_path: Path) -> None:
    subject = masked_images(tmp_path, bilinear, scale=100, num=12).subject()
    finding = one(list(mask_values_between(subject)), "mask-values-between")
    assert finding.certainty == "certain" and finding.evidence["num_values"] >= 3
    assert not {0, 200} & set(finding.evidence["values"])


def test_a_class_for_borders_is_no_value_between(tmp_path: Path) -> None:
    def with_border(mask: np.ndarray, i: int) -> np.ndarray:
        inside = mask > 0
        return np.where(inside, 2, np.where(grown(mask, i) > 0, 1, 0)).astype(np.uint8)

    subject = masked_images(tmp_path, with_border, num=12).subject()
    assert not list(mask_values_between(subject))


def test_thin_classes_are_no_values_between(tmp_path: Path) -> None:
    """Poles, wires, and lines of paint: a pixel or two wide, but not between a lower and a higher class."""

    def lines(mask: np.ndarray, i: int) -> np.ndarray:
        mask = np.where(mask > 0, 7, 0).astype(np.uint8)
        for value in (3, 4, 5):
            mask[:, (17 * value + 5 * i) % WIDTH] = value
        return mask

    assert not list(mask_values_between(masked_images(tmp_path, lines, num=12).subject()))


# ---- scores


@pytest.mark.parametrize("seed", range(3))
def test_boxes_put_anywhere_score_nothing_whatever_the_texture(seed: int) -> None:
    rng = np.random.default_rng(seed)
    grey = (rng.normal(0, 1, (120, 160)) * np.linspace(3, 60, 160) + 128).clip(0, 255).astype(np.uint8)
    corners = rng.uniform(12, 80, (4_000, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(10, 30, (4_000, 2))], axis=1)
    assert abs(np.nanmean(EdgeMap(grey).side_scores(boxes))) < 0.01


def test_sides_without_image_beside_them_have_no_score() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (50, 60)).astype(np.uint8)
    scores = EdgeMap(grey).side_scores(
        np.array([[0, 0, 60, 50], [10, 10, 14, 40], [np.nan, 5, 30, 40], [20, 15, 45, 35.0]])
    )
    assert np.isnan(scores[:3]).all() and np.isfinite(scores[3]).all()
