"""COCO's average precision against pycocotools and hotcoco, its known traps, and its resamples."""

from __future__ import annotations

import contextlib
import io
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from found_objects import SIDE, one_image, random_images, runs
from snellen.core.errors import DivergenceError
from snellen.metrics import coco_ap
from snellen.metrics.coco import evaluate
from snellen.metrics.coco_ap import CocoResult, match_images, num_resamples, resampled, result_of
from snellen.metrics.interval import resamples
from snellen.metrics.matching import Detections, ImageResult, Objects

Backend = Literal["reference", "hotcoco"]
BACKENDS: list[Backend] = ["reference", "hotcoco"]
BOX, OTHER = (10.0, 10.0, 50.0, 50.0), (100.0, 100.0, 140.0, 140.0)


def judged_by_pycocotools(images: list[ImageResult], num_classes: int) -> CocoResult:
    """The oracle. Difficult objects are unknown to it; masks are used where there are any."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    masked = images[0].true.masks is not None
    truth: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for number, image in enumerate(images, 1):
        for i, box in enumerate(image.true.boxes):
            truth.append({"id": len(truth) + 1, "image_id": number, **shaped(box, image.true, i)})
            truth[-1] |= {"area": float(image.true.sizes[i]), "iscrowd": int(image.true.is_crowd[i])}
        for i, box in enumerate(image.found.boxes):
            found.append({"image_id": number, **shaped(box, image.found, i), "score": float(image.found.scores[i])})
            if masked:
                del found[-1]["bbox"]
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = COCO()
        dataset.dataset = {
            "images": [{"id": i + 1, "height": SIDE, "width": SIDE} for i in range(len(images))],
            "categories": [{"id": i + 1, "name": str(i)} for i in range(num_classes)],
            "annotations": truth,
        }
        dataset.createIndex()
        judge = COCOeval(dataset, dataset.loadRes(found), "segm" if masked else "bbox")
        judge.evaluate()
        judge.accumulate()
    precision, recall = (np.where(each < 0, np.nan, each) for each in (judge.eval["precision"], judge.eval["recall"]))
    return CocoResult(precision[..., -1], recall)


def shaped(box: NDArray[Any], owner: Detections | Objects, index: int) -> dict[str, Any]:
    x0, y0, x1, y1 = map(float, box)
    shape: dict[str, Any] = {"bbox": [x0, y0, x1 - x0, y1 - y0], "category_id": int(owner.labels[index]) + 1}
    if owner.masks is not None:
        from pycocotools import mask

        whole = {"size": list(owner.masks[index].size), "counts": list(owner.masks[index].counts)}
        shape["segmentation"] = mask.frPyObjects(whole, SIDE, SIDE)
    return shape


def with_masks(images: list[ImageResult], seed: int) -> list[ImageResult]:
    """Boxes become ellipses with a few pixels of noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5

    def drawn(boxes: NDArray[Any]) -> list[Any]:
        ellipses = [
            ((x - (b[0] + b[2]) / 2) / (b[2] - b[0]) * 2) ** 2 + ((y - (b[1] + b[3]) / 2) / (b[3] - b[1]) * 2) ** 2 < 1
            for b in boxes
        ]
        return [runs(np.asarray(each ^ (rng.random(each.shape) < 0.001), np.bool_)) for each in ellipses]

    return [
        ImageResult(
            Detections(found.boxes, found.scores, found.labels, masks=drawn(found.boxes)),
            Objects(true.boxes, true.labels, crowd=true.crowd, masks=drawn(true.boxes)),
        )
        for found, true in images
    ]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_precision_and_recall_is_that_of_pycocotools(seed: int, backend: Backend) -> None:
    images = random_images(seed, 25, 4)
    expected, result = judged_by_pycocotools(images, 4), evaluate(images, 4, backend=backend)
    np.testing.assert_allclose(result.precision, expected.precision, rtol=0, atol=1e-9)
    np.testing.assert_allclose(result.recall, expected.recall, rtol=0, atol=1e-9)
    assert 0.05 < result.numbers()["map"] < 0.95


@pytest.mark.parametrize("backend", BACKENDS)
def test_masks_are_judged_as_pycocotools_does(backend: Backend) -> None:
    images = with_masks(random_images(3, 5, 3, most=3), seed=0)
    expected, result = judged_by_pycocotools(images, 3), evaluate(images, 3, backend=backend)
    np.testing.assert_allclose(result.precision, expected.precision, rtol=0, atol=1e-9)
    np.testing.assert_allclose(result.recall, expected.recall, rtol=0, atol=1e-9)


def test_the_twelve_numbers_are_those_of_pycocotools_own_summary() -> None:
    images = random_images(11, 20, 3)
    numbers = evaluate(images, 3).numbers()
    expected = judged_by_pycocotools(images, 3)
    assert len(numbers) == 12
    assert numbers["map"] == pytest.approx(np.nanmean(expected.precision[..., 0]))
    assert numbers["map75"] == pytest.approx(np.nanmean(expected.precision[5, ..., 0]))
    assert numbers["map_large"] == pytest.approx(np.nanmean(expected.precision[..., 3]))
    assert numbers["mar1"] == pytest.approx(np.nanmean(expected.recall[..., 0, 0]))
    assert numbers["mar_medium"] == pytest.approx(np.nanmean(expected.recall[..., 2, 2]))


@pytest.mark.parametrize("seed", range(3))
def test_hotcoco_agrees_on_difficult_objects(seed: int) -> None:
    images = random_images(seed, 25, 4, difficult=True)
    one, other = evaluate(images, 4), evaluate(images, 4, backend="hotcoco")
    np.testing.assert_allclose(one.precision, other.precision, rtol=0, atol=1e-9)
    np.testing.assert_allclose(one.recall, other.recall, rtol=0, atol=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_first_object_of_the_first_image_counts(backend: Backend) -> None:
    """An annotation with the id 0 is never matched by COCO's own code."""
    assert evaluate([one_image([(BOX, 0.9, 0)], [(BOX, 0)])], 1, backend=backend).numbers()["map"] == pytest.approx(1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_at_most_100_detections_of_a_class_count_in_an_image(backend: Backend) -> None:
    wrong = [(OTHER, 0.9, 0)] * 100
    late = evaluate([one_image([*wrong, (BOX, 0.1, 0)], [(BOX, 0)])], 1, backend=backend).numbers()
    in_time = evaluate([one_image([*wrong[1:], (BOX, 0.1, 0)], [(BOX, 0)])], 1, backend=backend).numbers()
    other_class = evaluate(
        [one_image([*[(OTHER, 0.9, 1)] * 100, (BOX, 0.1, 0)], [(BOX, 0)])], 2, backend=backend
    ).numbers()
    assert (late["map"], late["mar100"]) == (0, 0)
    assert in_time["map"] == pytest.approx(0.01)
    assert other_class["map"] == pytest.approx(1)
    assert in_time["mar10"] == 0


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("marks", [{}, {"areas": [np.nan, np.nan]}])
def test_an_object_without_an_area_is_as_large_as_its_box(backend: Backend, marks: dict[str, Any]) -> None:
    small = (10.0, 10.0, 30.0, 30.0)
    image = one_image([(small, 0.9, 0), (OTHER, 0.8, 0)], [(small, 0), (OTHER, 0)], **marks)
    numbers = evaluate([image], 1, backend=backend).numbers()
    assert numbers["map_small"] == numbers["map_medium"] == pytest.approx(1)
    assert np.isnan(numbers["map_large"])


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_detections_at_all_come_to_0(backend: Backend) -> None:
    images = [one_image([], [(BOX, 0)]), one_image([], [])]
    numbers = evaluate(images, 1, backend=backend).numbers()
    assert (numbers["map"], numbers["mar100"]) == (0, 0)
    assert resampled(match_images(images, 1), np.array([[1, 1]]))[0]["map"] == 0


@pytest.mark.parametrize("broken", ["score", "box"])
def test_a_score_or_a_box_that_is_not_a_number_is_refused(broken: str) -> None:
    box = (np.nan, 0.0, 1.0, 1.0) if broken == "box" else BOX
    with pytest.raises(DivergenceError, match=broken):
        one_image([(box, np.nan if broken == "score" else 0.5, 0)], [])


@pytest.mark.parametrize("backend", BACKENDS)
def test_images_without_truth_say_nothing(backend: Backend) -> None:
    numbers = evaluate([one_image([(BOX, 0.9, 0)], [])], 1, backend=backend).numbers()
    assert all(np.isnan(value) for value in numbers.values())


def test_a_false_alarm_in_a_class_without_truth_costs_nothing() -> None:
    """COCO's rule, and the reason why such alarms are counted elsewhere."""
    image = one_image([(BOX, 0.9, 0), (OTHER, 0.99, 1)], [(BOX, 0)])
    assert evaluate([image], 2).numbers()["map"] == 1


def test_what_is_matched_to_a_crowd_is_neither_right_nor_wrong() -> None:
    inside = [((x, x, x + 20.0, x + 20.0), 0.95, 0) for x in (0.0, 40.0, 60.0)]
    crowd = [(BOX, 0), ((0.0, 0.0, 90.0, 90.0), 0)]
    image = one_image([*inside, (BOX, 0.5, 0)], crowd, crowd=[False, True])
    assert evaluate([image], 1).numbers()["map"] == 1


def test_labels_and_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="labels must be 0 to 0"):
        evaluate([one_image([(BOX, 0.9, 1)], [])], 1)
    with pytest.raises(ValueError, match=r"\[n, 4\]"):
        Detections(np.zeros((2, 5)), np.zeros(2), np.zeros(2))
    with pytest.raises(ValueError, match="one of everything"):
        Objects(np.zeros((2, 4)), np.zeros(3))


def test_weights_of_one_give_the_number_itself() -> None:
    images = random_images(5, 25, 4)
    matches = match_images(images, 4)
    result, (named, by_class) = result_of(matches), resampled(matches, np.ones((2, 25), np.uint8))
    numbers = result.numbers()
    for name, values in named.items():
        assert values == pytest.approx([numbers[name]] * 2, abs=1e-12)
    np.testing.assert_allclose(by_class[0], result.class_ap50, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=6, max_size=6).filter(any), st.integers(0, 5))
def test_an_image_that_is_drawn_twice_is_there_twice(times: list[int], seed: int) -> None:
    images = [spread(image, i) for i, image in enumerate(random_images(seed, 6, 3))]
    copies = [image for image, number in zip(images, times, strict=True) for _ in range(number)]
    named, by_class = resampled(match_images(images, 3), np.array([times], np.uint8))
    repeated = evaluate(copies, 3)
    assert {name: values[0] for name, values in named.items()} == pytest.approx(
        {name: repeated.numbers()[name] for name in named}, nan_ok=True
    )
    np.testing.assert_allclose(by_class[0], repeated.class_ap50, atol=1e-12)


def spread(image: ImageResult, index: int) -> ImageResult:
    """The same without ties, in which the order of copies would matter."""
    scores = image.found.scores + (np.arange(len(image.found.scores)) + 100 * index) * 1e-5
    return ImageResult(Detections(image.found.boxes, scores, image.found.labels), image.true)


def test_a_better_model_has_an_interval_that_lies_higher() -> None:
    images = random_images(1, 40, 3)
    perfect = [ImageResult(Detections(true.boxes, np.ones(len(true.labels)), true.labels), true) for _, true in images]
    weights = next(resamples(40, num_resamples=200))
    worse, better = (resampled(match_images(each, 3), weights)[0]["map"] for each in (images, perfect))
    assert np.quantile(worse, 0.975) < np.quantile(better, 0.025) == pytest.approx(1)


def test_a_thousand_resamples_are_made_unless_there_are_very_many_hits(monkeypatch: pytest.MonkeyPatch) -> None:
    matches = match_images(random_images(0, 20, 3), 3)
    assert num_resamples(matches, 1000) == 1000
    cost = np.count_nonzero(matches.hit[0])
    monkeypatch.setattr(coco_ap, "_RESAMPLING_BUDGET", 300 * cost)
    assert 200 < num_resamples(matches, 1000) <= 300
    monkeypatch.setattr(coco_ap, "_RESAMPLING_BUDGET", 1)
    assert (num_resamples(matches, 1000), num_resamples(matches, 50)) == (100, 50)
