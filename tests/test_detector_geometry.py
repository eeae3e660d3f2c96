"""What the detectors of other libraries are told and tell: crowds, anchors and regions are where they should be."""

from __future__ import annotations

import pytest
import torch

from snellen.nn.detection.adapter import best, of_crowd
from snellen.nn.detection.dense import cells
from snellen.nn.detection.table import ARCHITECTURES
from snellen.nn.detection.truth import Truth
from tiny_detectors import (
    ALL_CROWD,
    NAMES,
    NUM_CLASSES,
    Plain,
    a_detector,
    make_smaller,
    noise,
)

torch.set_num_threads(1)

# Queries are matched within the library, so that crowds are left out of the truth, but not of the background.
HEEDS_CROWDS = tuple(name for name in NAMES if ARCHITECTURES[name].library != "transformers")


@pytest.fixture(autouse=True)
def _smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    make_smaller(monkeypatch)


# --- crowds


def test_what_is_of_a_crowd_is_within_it_and_apart_from_objects() -> None:
    truth = Truth(torch.tensor([[0.0, 0, 32, 64], [10, 10, 20, 20]]), torch.tensor([0, 1]), torch.tensor([True, False]))
    boxes = torch.tensor([[2.0, 30, 8, 40], [28, 30, 34, 40], [24, 30, 42, 40], [12, 12, 30, 40], [40, 2, 50, 9]])
    assert of_crowd(boxes, truth).tolist() == [True, True, False, False, False]
    assert not of_crowd(boxes, Truth.empty()).any()


@pytest.mark.parametrize("name", HEEDS_CROWDS)
def test_what_is_said_within_a_crowd_hardly_costs(name: str) -> None:
    """Where all is crowd, at most one place an image is still asked."""
    detector = a_detector(name, Plain).eval()
    empty, crowd = (detector.assess(noise(), [truth] * 2)[0] for truth in (Truth.empty(), ALL_CROWD))
    if name != "faster-rcnn":
        assert float(empty["class"]) > 0.001 and float(crowd["class"]) == pytest.approx(0, abs=1e-6)


def test_anchors_of_a_crowd_are_neither_object_nor_background() -> None:
    head = a_detector("faster-rcnn", Plain).head
    crowd = Truth(torch.tensor([[0.0, 0, 32, 64]]), torch.tensor([0]), torch.tensor([True]))
    anchors = torch.tensor([[2.0, 2, 12, 12], [40, 2, 50, 12], [4, 30, 20, 50]])
    target = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "truth": crowd}
    assert head.rpn.assign_targets_to_anchors([anchors], [target])[0][0].tolist() == [-1, 0, -1]
    sampled = head.roi_heads.select_training_samples([anchors], [target])[0][0]
    assert sampled.tolist() == anchors[1:2].tolist()
    covered = {**target, "truth": ALL_CROWD}
    assert head.rpn.assign_targets_to_anchors([anchors], [covered])[0][0].tolist() == [0, -1, -1]


# --- geometry


def test_anchors_are_round_the_centres_of_cells() -> None:
    from snellen.nn.detection.torchvision_models import CellAnchors, ImageList

    levels = [torch.zeros(1, 1, 4, 8), torch.zeros(1, 1, 2, 4)]
    told = ImageList(torch.zeros(1, 3, 32, 64), [(32, 64)])
    (boxes,) = CellAnchors(((32,), (64,)), ((1.0,), (1.0,)))(told, levels)
    torch.testing.assert_close((boxes[:, :2] + boxes[:, 2:]) / 2, cells(levels, (8, 16)).centres)


@pytest.mark.parametrize("name", ("retinanet", "fcos", "ssd"))
def test_outputs_of_nothing_are_the_anchors_themselves(name: str) -> None:
    detector = a_detector(name, Plain).eval()
    raw = detector.raw(noise(1))
    still = torch.zeros_like(raw.outputs["bbox_regression"])
    if name == "fcos":  # distances from the centre, in sides of the cell
        still += 0.5
    torch.testing.assert_close(detector.boxes(still, raw.anchors)[0], raw.anchors, rtol=0, atol=1e-3)


def test_efficientdets_anchors_have_x_first() -> None:
    detector = a_detector("efficientdet", Plain).eval()
    raw = detector.raw(noise(1))
    for said in raw.boxes:
        said.zero_()
    for said in raw.scores:  # all the same, so that the first candidates are the first anchors
        said.zero_()
    with torch.no_grad():
        found = detector.candidates(raw)[0, :, :4]
    known = {tuple(round(x, 2) for x in box) for box in detector.anchors.tolist()}
    assert all(tuple(round(x, 2) for x in box) in known for box in found.tolist())
    wide = detector.anchors[1]  # (1.4, 0.7): the second shape
    assert float((wide[2] - wide[0]) / (wide[3] - wide[1])) == pytest.approx(2.0, rel=1e-3)


def test_the_best_candidates_are_kept_in_order() -> None:
    boxes, scores = torch.arange(12.0).view(1, 3, 4), torch.tensor([[[0.1, 0.2], [0.9, 0.0], [0.0, 0.5]]])
    found = best(boxes, scores, 2)
    assert found[0, :, 4:].tolist() == scores[0, [1, 2]].tolist() and found[0, :, :4].tolist() == boxes[0, 1:].tolist()


def test_regions_are_told_once_for_each_class_and_filled_up() -> None:
    detector = a_detector("faster-rcnn", Plain).eval()
    with torch.no_grad():
        found = detector(noise(1))[0]
    assert bool(((found[:, 4:] > 0).sum(1) <= 1).all())
    filled = found[:, 4:].amax(1) > 0
    assert 0 < int(filled.sum()) <= NUM_CLASSES * 40 and not found[~filled].any()
