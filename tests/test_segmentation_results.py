"""What segmentation tells of its answers: numbers over all pixels, mistakes, arrays, words and pictures."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load, save

from class_map_scenes import CLASSES, TASK, random_maps, said_of, scene
from snellen.core.errors import DataError
from snellen.core.geometry import hflip
from snellen.tasks.segmentation.metrics import SegmentationMetrics
from snellen.tasks.segmentation.plots import charts
from snellen.tasks.segmentation.target import VOID, ClassMap

# --- numbers


def test_numbers_are_those_of_all_pixels_together() -> None:
    truth = random_maps(1, 5)
    said = said_of(truth, 2)
    metrics = SegmentationMetrics(CLASSES)
    metrics.update(said[:2], truth[:2])
    metrics.update(said[2:], truth[2:])
    numbers = metrics.compute()
    t = np.concatenate([each.array.ravel() for each in truth])
    p = np.concatenate([each.array.ravel() for each in said])
    t, p = t[t != VOID], p[t != VOID]
    overlaps = [((t == i) & (p == i)).sum() / ((t == i) | (p == i)).sum() for i in range(3)]
    assert numbers["mean_iou"].value == pytest.approx(np.mean(overlaps))
    assert [numbers[f"iou/{name}"].value for name in CLASSES] == pytest.approx(overlaps)
    assert numbers["dice/disc"].value == pytest.approx(2 * overlaps[1] / (1 + overlaps[1]))
    assert numbers["pixel_accuracy"].value == pytest.approx((t == p).mean())
    recalls = [((t == i) & (p == i)).sum() / (t == i).sum() for i in range(3)]
    assert numbers["mean_class_accuracy"].value == pytest.approx(np.mean(recalls))
    shares = [(t == i).mean() for i in range(3)]
    assert numbers["frequency_weighted_iou"].value == pytest.approx(np.dot(shares, overlaps))
    assert all(each.low <= each.value <= each.high and each.n == 5 for each in numbers.values())  # type: ignore[operator]
    assert set(numbers) - set(metrics.compute(intervals=False)) == {"boundary_iou"}


def test_truth_against_itself_is_perfect_and_a_class_that_is_nowhere_has_no_number() -> None:
    maps = [ClassMap.from_array(np.array([[0, 0, 2], [2, 2, VOID]], np.uint8))] * 3
    metrics = SegmentationMetrics(CLASSES)
    metrics.update(maps, maps)
    numbers = metrics.compute()
    assert all(each.value == 1.0 for each in numbers.values()) and "iou/disc" not in numbers


def test_intervals_resample_images_and_whole_groups() -> None:
    truth = random_maps(3, 12)
    metrics = SegmentationMetrics(CLASSES)
    metrics.update([*said_of(truth[:6], 0, 0.1), *said_of(truth[6:], 1, 0.9)], truth)
    alone = metrics.compute(seed=1)["mean_iou"]
    grouped = metrics.compute(groups=["a"] * 6 + ["b"] * 6, seed=1)["mean_iou"]
    assert alone.value == grouped.value and grouped.method == "bootstrap over groups"
    assert grouped.high - grouped.low > 1.5 * (alone.high - alone.low)  # type: ignore[operator]
    resampled = metrics.resampled(seed=1)["mean_iou"]
    assert np.quantile(resampled, 0.975) == pytest.approx(alone.high)
    with pytest.raises(ValueError, match="a group for each of the 12 images"):
        metrics.compute(groups=["a"])


def test_nothing_and_maps_that_do_not_fit_are_refused() -> None:
    metrics = SegmentationMetrics(CLASSES)
    with pytest.raises(DataError, match="nothing to measure"):
        metrics.compute()
    one, other = random_maps(0, 1), random_maps(0, 1, size=(5, 5))
    with pytest.raises(ValueError, match="does not fill"):
        metrics.update(one, other)
    with pytest.raises(ValueError, match="as many predictions as truths"):
        metrics.update(one, [])


# --- results


def test_majority_says_the_most_frequent_class_of_images_of_any_size() -> None:
    train = [ClassMap.from_array(np.array([[1, 1, 2, VOID, VOID, VOID]], np.uint8))]
    said = TASK.majority(train, 2)
    truth = [*random_maps(0, 1), *random_maps(0, 1, size=(5, 4))]
    metrics = TASK.metrics()
    metrics.update(said, truth)
    ones = np.concatenate([each.array.ravel() for each in truth])
    expected = (ones == 1).sum() / (ones != VOID).sum()
    assert metrics.compute(intervals=False)["pixel_accuracy"].value == pytest.approx(expected)
    assert len(TASK.majority(train, 0)) == 0


def test_mistakes_are_the_images_with_the_lowest_iou_first() -> None:
    truth = random_maps(0, 4, void=0)
    said = [truth[0], *(said_of([each], 0, wrong)[0] for each, wrong in zip(truth[1:], (0.2, 0.9, 0.5), strict=True))]
    mistakes = TASK.mistakes(said, truth, 9)
    assert [mistake["index"] for mistake in mistakes] == [2, 3, 1]
    assert float(mistakes[0]["off"]) < float(mistakes[2]["off"]) and mistakes[0]["unit"] == "% IoU"
    assert mistakes[0]["truth"] == TASK.caption(truth[2])
    assert TASK.mistakes(said, truth, 1) == mistakes[:1] and TASK.mistakes([], [], 9) == []
    json.dumps(mistakes, allow_nan=False)


def test_what_is_void_is_no_mistake() -> None:
    (truth,) = random_maps(0, 1, void=0.5)
    said = ClassMap.from_array(np.where(truth.array == VOID, 1, truth.array).astype(np.uint8))
    assert TASK.mistakes([said], [truth], 9) == []


def test_arrays_give_predictions_and_truth_again() -> None:
    truth = random_maps(0, 3)
    said = said_of(truth, 1)
    again = TASK.read_arrays(load(save(TASK.arrays(said, truth))))
    for one, other in ((again[0], said), (again[1], truth)):
        assert all(np.array_equal(a.array, b.array) for a, b in zip(one, other, strict=True))
    assert all(np.array_equal(a.scores, b.scores) for a, b in zip(again[0], said, strict=True))  # type: ignore[arg-type]
    assert TASK.read_arrays(TASK.arrays([], [])) == ([], [])


def test_a_description_is_json_that_names_what_is_there() -> None:
    found = ClassMap.from_array(np.array([[0, 0, 0, 2]], np.uint8), np.array([0.9, 0, 0.5], np.float32))
    described = TASK.describe(found)
    assert json.loads(json.dumps(described)) == described
    assert described["labels"] == ["background", "block"] and described["shares"] == {"background": 0.75, "block": 0.25}
    assert described["confidence"] == pytest.approx(0.8)
    assert TASK.caption(found) == "background 75 %, block 25 %"
    assert TASK.caption(ClassMap.from_array(np.full((2, 2), VOID, np.uint8))) == "void"


# --- pictures


def test_a_drawing_shows_the_classes_at_any_size_and_leaves_the_image_alone() -> None:
    picture, truth = scene(np.random.default_rng(0), (64, 48))
    before = picture.copy()
    drawn = TASK.draw(picture, truth)
    smaller = TASK.draw(np.ascontiguousarray(picture[::2, ::2]), truth)
    assert np.array_equal(picture, before) and min(drawn.width, smaller.width) >= 480
    pixels = np.asarray(drawn)
    factor = drawn.width // 64
    inside = np.kron(truth.array, np.ones((factor, factor), np.uint8))
    large = np.kron(picture, np.ones((factor, factor, 1), np.uint8))
    assert np.array_equal(pixels[: 48 * factor][inside == 0], large[inside == 0])  # the background stays as it is
    assert (pixels[: 48 * factor][inside == 1] != large[inside == 1]).any(axis=1).all()
    assert drawn.tobytes() != TASK.draw(picture, TASK.warp(truth, hflip(64), (64, 48))).tobytes()


def test_void_is_seen_to_be_void() -> None:
    picture = np.full((48, 64, 3), 200, np.uint8)
    nothing, void = (ClassMap.from_array(np.full((48, 64), value, np.uint8)) for value in (0, VOID))
    assert TASK.draw(picture, nothing).tobytes() != TASK.draw(picture, void).tobytes()
    both = TASK.draw_mistake(picture, void, nothing)
    assert both.width > 2 * 64


def test_charts_tell_the_same_numbers_as_the_metrics() -> None:
    truth = random_maps(4, 12)
    said = said_of(truth, 5)
    metrics = TASK.metrics()
    metrics.update(said, truth)
    numbers = metrics.compute(intervals=False)
    by_class, confusion, by_image = TASK.charts(TASK.arrays(said, truth))
    shown = {row[0]: float(row[1]) for row in by_class.rows}
    expected = {f"{name} (12)": 100 * numbers[f"iou/{name}"].value for name in CLASSES}
    assert shown == pytest.approx(expected, abs=0.051)
    counts = np.array([[float(cell) for cell in row[1:]] for row in confusion.rows])
    assert np.trace(counts) / counts.sum() == pytest.approx(numbers["pixel_accuracy"].value)
    assert sum(float(row[1]) for row in by_image.rows) == 12
    only_background = ClassMap.from_array(np.zeros((9, 12), np.uint8))
    (without, _) = charts([only_background], [only_background], CLASSES)
    assert without.caption.endswith("Not in the truth: disc, block.")


def test_nothing_to_show_is_no_chart() -> None:
    void = [ClassMap.from_array(np.full((3, 3), VOID, np.uint8))]
    assert charts(random_maps(0, 1, size=(3, 3), void=0), void, CLASSES) == [] == charts([], [], CLASSES)
