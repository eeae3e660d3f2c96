"""Kinds of errors: planted ones are found, hotcoco agrees on the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from found_objects import one_image, random_images
from snellen.metrics.coco import evaluate
from snellen.metrics.detection_errors import KINDS, DetectionErrors, Fault, detection_errors
from snellen.metrics.matching import ImageResult

BOX, OTHER = (10.0, 10.0, 50.0, 50.0), (100.0, 100.0, 140.0, 140.0)
SHIFTED = (35.0, 10.0, 75.0, 50.0)  # IoU of 0.23 with BOX
NEAR = (10.0, 10.0, 50.0, 52.0)
EMPTY = (160.0, 0.0, 190.0, 30.0)

# What is found of BOX, of class 0, beside OTHER, which is always found.
PLANTED: list[tuple[str, list[tuple[tuple[float, ...], float, int]]]] = [
    ("location", [(SHIFTED, 0.95, 0)]),
    ("class", [(BOX, 0.95, 1)]),
    ("both", [(SHIFTED, 0.95, 1), (BOX, 0.5, 0)]),
    ("background", [(EMPTY, 0.95, 0), (BOX, 0.5, 0)]),
    ("duplicate", [(BOX, 0.95, 0), (NEAR, 0.92, 0)]),
    ("missed", []),
]


def errors(found: Sequence[tuple[tuple[float, ...], float, int]], **marks: Any) -> DetectionErrors:
    truth = [(BOX, 0), (OTHER, 0), (OTHER, 1)]
    return detection_errors([one_image([*found, (OTHER, 0.9, 0), (OTHER, 0.9, 1)], truth, **marks)], 2)


@pytest.mark.parametrize(("kind", "found"), PLANTED)
def test_a_planted_error_is_of_its_kind_and_costs_what_mending_it_brings(
    kind: str, found: list[tuple[tuple[float, ...], float, int]]
) -> None:
    result = errors(found)
    assert {name: count for name, count in result.counts.items() if count} == {kind: 1}
    assert result.map50 < 1
    assert result.map50 + result.costs[kind] == pytest.approx(1)
    others = {name: cost for name, cost in result.costs.items() if name != kind and name in (*KINDS, "missed")}
    assert others == pytest.approx(dict.fromkeys(others, 0))


def test_a_faultless_detector_has_no_errors() -> None:
    result = errors([(BOX, 0.8, 0)])
    assert not any(result.counts.values())
    assert not any(result.costs.values())
    assert (result.map50, result.faults) == (1, ())


def without_crowds(images: list[ImageResult]) -> list[ImageResult]:
    for image in images:
        image.true.is_crowd[:] = False
    return images


@pytest.mark.parametrize("seed", range(4))
def test_counts_and_costs_are_those_of_hotcoco(seed: int) -> None:
    """But for moved boxes and changed classes, where it keeps the hit that is there, and the paper the surest."""
    from hotcoco import COCO, COCOeval

    from snellen.metrics.hotcoco_ap import found_rows, truth_file

    images = without_crowds(random_images(seed, 30, 4))
    truth = COCO(truth_file(images, 4, masked=False))
    judge = COCOeval(truth, truth.load_res(found_rows(images, masked=False)), "bbox")
    judge.evaluate()
    expected, result = judge.tide_errors(), detection_errors(images, 4)
    names = {"location": "Loc", "class": "Cls", "duplicate": "Dupe", "background": "Bkg", "both": "Both"}
    names |= {"missed": "Miss", "false positives": "FP", "false negatives": "FN"}
    assert result.counts == {name: expected["counts"][names[name]] for name in result.counts}
    assert result.map50 == pytest.approx(expected["ap_base"])
    same = result.costs.keys() - {"location", "class"}
    assert {name: result.costs[name] for name in same} == pytest.approx(
        {name: expected["delta_ap"][names[name]] for name in same}
    )
    for name in ("location", "class"):
        assert expected["delta_ap"][names[name]] <= result.costs[name] + 1e-9


@pytest.mark.parametrize("seed", range(3))
def test_the_average_precision_is_that_of_the_evaluation(seed: int) -> None:
    images = random_images(seed, 20, 4, difficult=True)
    assert detection_errors(images, 4).map50 == pytest.approx(evaluate(images, 4).numbers()["map50"])


def test_of_two_detections_of_one_object_the_surer_is_kept_when_mended() -> None:
    """The box that does not fit is the surer one: moved, it would be the hit, above the false alarm."""
    found = [(SHIFTED, 0.95, 0), (EMPTY, 0.93, 0), (BOX, 0.5, 0)]
    result = errors(found)
    mended = errors([(BOX, 0.95, 0), (EMPTY, 0.93, 0)])
    assert result.costs["location"] == pytest.approx(mended.map50 - result.map50) != 0


@pytest.mark.parametrize("mark", ["crowd", "difficult"])
def test_objects_that_do_not_count_are_not_missed_and_not_wrong_to_find(mark: str) -> None:
    for found in ([], [(BOX, 0.95, 0)]):
        result = errors(found, **{mark: [True, False, False]})
        assert not any(result.counts.values())


def test_each_fault_says_where_it_is() -> None:
    result = detection_errors(
        [one_image([], []), one_image([(OTHER, 0.4, 0), (SHIFTED, 0.9, 0)], [(EMPTY, 1), (BOX, 0)])], 2
    )
    assert set(result.faults) == {
        Fault("background", 1, 0, None, 0.4),
        Fault("location", 1, 1, 1, 0.9),
        Fault("missed", 1, None, 0, 0.0),
    }


def test_mending_what_is_missed_brings_a_class_of_which_nothing_was_found_to_1() -> None:
    result = detection_errors([one_image([], [(BOX, 0)])], 1)
    assert (result.map50, result.costs["missed"]) == (0, 1)
    assert np.isnan(detection_errors([one_image([(BOX, 0.5, 0)], [])], 1).map50)
