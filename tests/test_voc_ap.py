"""Pascal VOC's average precision against its rules taken literally, and where it differs from COCO's."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from found_objects import one_image, random_images
from snellen.metrics.coco import evaluate
from snellen.metrics.matching import ImageResult
from snellen.metrics.voc_ap import voc_ap

Rule = Literal["2007", "2010"]
BOX, OTHER = (10.0, 10.0, 50.0, 50.0), (100.0, 100.0, 140.0, 140.0)


def without_crowds(images: list[ImageResult]) -> list[ImageResult]:
    for image in images:
        image.true.is_crowd[:] = False
    return images


def untied(images: list[ImageResult], seed: int) -> list[ImageResult]:
    """Every detection has a score of its own."""
    rng = np.random.default_rng(seed)
    for image in images:
        image.found.scores[:] = rng.random(len(image.found.scores))
    return images


def plainly(images: list[ImageResult], label: int, rule: Rule) -> float:
    """The rules of the devkit, word by word: down the list of all detections, and then along recall."""
    found = [(-s, i, k) for i, (f, _) in enumerate(images) for k, s in enumerate(f.scores) if f.labels[k] == label]
    total = sum(np.count_nonzero((true.labels == label) & ~true.uncounted) for _, true in images)
    taken, right, called, curve = set(), 0, 0, [(0.0, 0.0)]
    for _, i, k in sorted(found):
        overlap = np.where(images[i].true.labels == label, images[i].overlap()[k], -1)
        best = int(overlap.argmax()) if overlap.size else -1
        fits = best >= 0 and overlap[best] >= 0.5
        if fits and images[i].true.uncounted[best]:
            continue
        called += 1
        if fits and (i, best) not in taken:
            taken.add((i, best))
            right += 1
        curve.append((right / total, right / called))
    if rule == "2007":
        return sum(max([p for r, p in curve if r >= k / 10 - 1e-12], default=0) for k in range(11)) / 11
    recalls = sorted({r for r, _ in curve})
    return sum((r - q) * max(p for s, p in curve if s >= r) for q, r in pairwise(recalls))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rule", ["2007", "2010"])
def test_it_is_what_the_rules_come_to_word_by_word(seed: int, rule: Rule) -> None:
    images = untied(without_crowds(random_images(seed, 30, 3, difficult=True)), seed)
    result = voc_ap(images, 3, rule=rule)
    assert result[:2] == pytest.approx([plainly(images, label, rule) for label in (0, 1)])
    assert np.isnan(result[2])


@pytest.mark.parametrize(("rule", "expected"), [("2010", (1 + 2 / 3) / 3), ("2007", (4 * 1 + 3 * 2 / 3) / 11)])
def test_two_of_three_found_with_a_false_alarm_between(rule: Rule, expected: float) -> None:
    """Precision is 1 up to recall 1/3, then 2/3 up to recall 2/3."""
    truth = [(BOX, 0), (OTHER, 0), ((0.0, 60.0, 30.0, 90.0), 0)]
    image = one_image([(BOX, 0.9, 0), ((150.0, 0.0, 180.0, 30.0), 0.8, 0), (OTHER, 0.7, 0)], truth)
    assert voc_ap([image], 1, rule=rule) == pytest.approx([expected])


def test_recalls_of_tenths_are_reached_exactly() -> None:
    """Three of ten found reach the recall of 0.3, whatever 3 / 10 is in binary."""
    places = [(20.0 * i, 0.0, 20.0 * i + 10, 10.0) for i in range(10)]
    for found in range(1, 11):
        image = one_image([(box, 0.5, 0) for box in places[:found]], [(box, 0) for box in places])
        assert voc_ap([image], 1, rule="2007") == pytest.approx([(found + 1) / 11])


def test_a_detection_is_held_to_the_object_that_it_overlaps_most() -> None:
    """COCO lets the second take what is left, VOC does not."""
    near = (10.0, 10.0, 50.0, 60.0)
    image = one_image([(BOX, 0.9, 0), ((10.0, 10.0, 50.0, 51.0), 0.8, 0)], [(BOX, 0), (near, 0)])
    assert voc_ap([image], 1) == pytest.approx([0.5])
    assert evaluate([image], 1).class_ap50 == pytest.approx([1.0])


@pytest.mark.parametrize("rule", ["2007", "2010"])
@pytest.mark.parametrize("mark", ["difficult", "crowd"])
def test_difficult_objects_and_crowds_are_neither_asked_for_nor_wrong_to_find(rule: Rule, mark: str) -> None:
    found = [(OTHER, 0.9, 0), (OTHER, 0.8, 0), (BOX, 0.7, 0)]
    image = one_image(found, [(BOX, 0), (OTHER, 0)], **{mark: [False, True]})
    plain = one_image(found, [(BOX, 0), (OTHER, 0)])
    assert voc_ap([image], 1, rule=rule) == pytest.approx([1.0])
    assert voc_ap([plain], 1, rule=rule)[0] < 1


def test_without_interpolation_between_hits_it_is_no_less_than_scikit_learns() -> None:
    """One box a place, so that matching is plain; scikit-learn takes precision as it is, VOC the best still to come."""
    rng = np.random.default_rng(0)
    right, scores = rng.random(40) < 0.5, rng.random(40)
    images = [one_image([(BOX, s, 0)], [(BOX if hit else OTHER, 0)]) for hit, s in zip(right, scores, strict=True)]
    plain = average_precision_score(right, scores) * right.mean()  # of all 40 objects, half of which are never found
    assert plain < voc_ap(images, 1)[0] < plain + 0.1


def test_nothing_found_is_0_and_nothing_there_is_undefined() -> None:
    result = voc_ap([one_image([], [(BOX, 0)]), one_image([(BOX, 0.9, 1)], [])], 2)
    assert result[0] == 0
    assert np.isnan(result[1])
    assert np.isnan(voc_ap([], 1)).all()
