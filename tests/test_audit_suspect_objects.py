"""Boxes and masks that are wrong are named by a model that has not seen their images; right ones are left alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from audit_maps import CLASSES, SIZE, Mapped, boxed_maps, change_boxes, masked_maps
from snellen.audit.mask_edges import masks_off_edges
from snellen.audit.places import boxes_off_edges
from snellen.audit.subject import AuditSubject
from snellen.audit.suspect_boxes import suspect_boxes
from snellen.audit.suspect_masks import suspect_masks
from snellen.core.annotation import Annotation
from snellen.core.finding import Finding


def one(found: list[Finding], code: str) -> Finding:
    assert [finding.code for finding in found] == [code]
    finding = found[0]
    assert finding.message.endswith(".") and finding.advice.endswith(".") and finding.images
    return finding


def quiet(subject: AuditSubject) -> bool:
    checks = (boxes_off_edges, masks_off_edges, suspect_boxes, suspect_masks)
    return not any(list(check(subject)) for check in checks)


# ---- boxes


def swapped(each: Annotation, rng: np.random.Generator) -> Annotation:
    return replace(each, label=str(rng.choice([name for name in CLASSES if name != each.label])))


def moved(each: Annotation, rng: np.random.Generator) -> Annotation:
    """Half of the image away."""
    x0, y0, x1, y1 = each.box
    x0, y0 = (x0 + SIZE[0] / 2) % (SIZE[0] - (x1 - x0)), (y0 + SIZE[1] / 2) % (SIZE[1] - (y1 - y0))
    return replace(each, box=(x0, y0, x0 + x1 - each.box[0], y0 + y1 - each.box[1]))


def mirrored(each: Annotation, rng: np.random.Generator) -> Annotation:
    x0, y0, x1, y1 = each.box
    return replace(each, box=(SIZE[0] - x1, y0, SIZE[0] - x0, y1))


def test_boxes_of_the_wrong_class_are_named_with_the_right_one() -> None:
    data = boxed_maps(num=320, noise=0.5, faint=0.1)
    truth = {(r.id, each.box): each.label for r in data.records for each in r.objects or ()}
    changed = change_boxes(data, 0.08, swapped)
    finding = one(list(suspect_boxes(data.subject())), "suspect-boxes")
    named = [each for each in finding.evidence["objects"] if each["given"] != "nothing"]
    right = [each for each in named if (each["image"], each["given"]) in changed]
    assert len(right) >= 0.9 * len(named) and len(right) >= 0.6 * len(changed)
    rounded = {(i, tuple(round(x, 1) for x in box)): label for (i, box), label in truth.items()}
    assert all(rounded[each["image"], tuple(each["box"])] == each["suggested"] for each in right)


def test_boxes_round_nothing_are_named() -> None:
    data = boxed_maps(num=200)
    changed = change_boxes(data, 0.08, moved)
    finding = one(list(suspect_boxes(data.subject())), "suspect-boxes")
    named = [each for each in finding.evidence["objects"] if each["suggested"] == "nothing"]
    assert named and sum((each["image"], each["given"]) in changed for each in named) >= 0.9 * len(named)
    assert finding.evidence["num_empty"] >= 0.5 * len(changed)


@pytest.mark.parametrize("share", [0.15, 0.4])
def test_objects_without_a_box_are_named_and_confirmed(share: float) -> None:
    data = boxed_maps()
    changed = change_boxes(data, share, lambda each, rng: None)
    finding = one(list(suspect_boxes(data.subject())), "suspect-boxes")
    named = {each["image"] for each in finding.evidence["objects"] if each["given"] == "nothing"}
    assert finding.certainty == "confirmed"
    assert len(named & {image for image, _ in changed}) >= 0.95 * len(named) > 10


def test_misread_boxes_are_found_without_edges_and_told_once() -> None:
    data = boxed_maps()
    change_boxes(data, 1.0, mirrored)
    finding = one(list(boxes_off_edges(data.subject())), "boxes-off-edges")
    assert finding.evidence["experiment"] == "predicted" and finding.evidence["reading"] == "mirrored"
    assert not list(suspect_boxes(data.subject()))


def healthy(kind: str, seed: int) -> Mapped:
    match kind:
        case "hard to see":
            return boxed_maps(seed=seed, faint=0.1, noise=0.7)
        case "with things that resemble objects":
            return boxed_maps(seed=seed, alike=0.3)
        case "few":
            return boxed_maps(num=30, seed=seed)
    data = boxed_maps(seed=seed)
    if kind == "drawn by a shaking hand":
        change_boxes(data, 1.0, shaken)
    return data


def shaken(each: Annotation, rng: np.random.Generator) -> Annotation:
    x0, y0, x1, y1 = np.clip(np.array(each.box) + rng.normal(0, 5, 4), 0, np.tile(SIZE, 2))
    return replace(each, box=(float(x0), float(y0), float(x1), float(y1)))


@pytest.mark.parametrize(
    "kind", ["plain", "hard to see", "with things that resemble objects", "drawn by a shaking hand", "few"]
)
@pytest.mark.parametrize("seed", range(1))
def test_right_boxes_are_left_alone(kind: str, seed: int) -> None:
    assert quiet(healthy(kind, seed).subject())


def test_boxes_that_nothing_tells_are_left_alone() -> None:
    """A network that sees nothing of the objects has nothing to say of their boxes."""
    data = boxed_maps()
    rng = np.random.default_rng(3)
    data.maps = {image_id: rng.normal(size=each.shape) for image_id, each in data.maps.items()}
    assert quiet(data.subject())


def test_boxes_are_not_suspected_where_nobody_has_looked() -> None:
    data = boxed_maps()
    change_boxes(data, 0.3, moved)
    assert not list(suspect_boxes(replace(data.subject(), maps=None)))


# ---- masks


def test_masks_of_other_images_and_mirrored_ones_are_named(tmp_path: Path) -> None:
    kept: list[np.ndarray] = []

    def turn(mask: np.ndarray, i: int) -> np.ndarray:
        kept.append(mask)
        return mask[:, ::-1] if i % 10 == 3 else kept[i - 3] if i % 10 == 8 else mask

    finding = one(list(suspect_masks(masked_maps(tmp_path, turn).subject())), "suspect-masks")
    wrong = {f"{i:04d}.jpg" for i in range(80) if i % 10 in (3, 8)}
    home = finding.evidence["would_fit"]
    assert finding.certainty == "confirmed" and len(wrong & set(finding.images)) >= 0.95 * len(finding.images) >= 12
    assert sum(home.get(f"{i:04d}.jpg") == "mirrored left to right" for i in range(3, 80, 10)) >= 6


def test_half_of_the_masks_mirrored_is_found_image_by_image(tmp_path: Path) -> None:
    data = masked_maps(tmp_path, lambda mask, i: mask[:, ::-1] if i % 2 else mask)
    finding = one(list(suspect_masks(data.subject())), "suspect-masks")
    assert finding.severity == "serious"
    assert all(int(name[:4]) % 2 for name in finding.images) and finding.evidence["num_suspects"] >= 30


def test_masks_that_are_all_turned_are_found_without_edges_and_told_once(tmp_path: Path) -> None:
    subject = masked_maps(tmp_path, lambda mask, _: mask[::-1]).subject()
    finding = one(list(masks_off_edges(subject)), "masks-off-edges")
    assert finding.evidence["experiment"] == "predicted" and finding.evidence["reading"] == "upside-down"
    assert not list(suspect_masks(subject))


def rough(mask: np.ndarray, i: int) -> np.ndarray:
    return np.roll(mask, np.random.default_rng(i).integers(-4, 5, 2).tolist(), (0, 1))


@pytest.mark.parametrize("noise", [0.4, 1.0])
@pytest.mark.parametrize("seed", range(1))
def test_right_masks_are_left_alone(noise: float, seed: int, tmp_path: Path) -> None:
    assert quiet(masked_maps(tmp_path, rough, seed=seed, noise=noise).subject())
