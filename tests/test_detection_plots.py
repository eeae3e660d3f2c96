"""The charts of detection show the numbers of the metrics, name what was hidden, and are safe for any class name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from found_objects import one_image, random_images
from run_folders import HOSTILE
from snellen.draw.chart import Chart
from snellen.draw.charts import Line
from snellen.draw.dots import dots
from snellen.draw.free_response import free_response
from snellen.draw.twin_bars import Twin, twin_bars
from snellen.metrics.coco import evaluate
from snellen.metrics.coco_ap import match_images
from snellen.metrics.detection_errors import detection_errors
from snellen.metrics.froc import FALSE_POSITIVES, froc_recall
from snellen.metrics.matching import Detections, ImageResult
from snellen.metrics.operating_point import best_threshold, counts_at
from snellen.tasks.objects.charts import charts, confusion

CLASSES = ("ant", "bee", "cow", "dog")  # found_objects: the last is never in the truth
NEAR, FAR = (10, 10, 50, 50), (100, 100, 150, 160)


@pytest.fixture(scope="module")
def images() -> list[ImageResult]:
    return random_images(3, 40, len(CLASSES))


@pytest.fixture(scope="module")
def drawn(images: list[ImageResult]) -> dict[str, Chart]:
    return {chart.title: chart for chart in charts(images, CLASSES)}


@pytest.fixture(scope="module")
def at_half(images: list[ImageResult]) -> dict[str, Chart]:
    return {chart.title: chart for chart in charts(images, CLASSES, (0.5,) * len(CLASSES))}


def cells(chart: Chart) -> dict[str, tuple[str, ...]]:
    return {row[0]: row[1:] for row in chart.rows}


def whole_confusion(images: Sequence[ImageResult], num_classes: int) -> list[list[int]]:
    return confusion(images, num_classes).tolist()  # type: ignore[no-any-return]


# ---- what was taken for what


def test_confusion_of_one_image_is_as_counted_by_hand() -> None:
    found: list[tuple[tuple[float, ...], float, int]] = [
        (NEAR, 0.9, 0),  # right
        (NEAR, 0.8, 0),  # a second time
        (FAR, 0.7, 0),  # a bee taken for an ant
        ((300, 300, 320, 320), 0.6, 1),  # nothing there
    ]
    image = one_image(found, [(NEAR, 0), (FAR, 1), ((200, 0, 240, 40), 1)])
    assert whole_confusion([image], 2) == [[1, 0, 0], [1, 0, 1], [1, 1, 0]]


def test_an_answer_of_the_right_class_is_not_given_away_to_a_surer_wrong_one() -> None:
    image = one_image([(NEAR, 0.9, 1), (NEAR, 0.2, 0)], [(NEAR, 0)])
    assert whole_confusion([image], 2) == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]


def test_what_lies_on_a_crowd_or_a_difficult_object_of_its_class_counts_nowhere() -> None:
    crowd = one_image([(NEAR, 0.9, 0), (NEAR, 0.8, 0)], [(NEAR, 0)], crowd=[True])
    difficult = one_image([(NEAR, 0.9, 0)], [(NEAR, 0)], difficult=[True])
    assert not confusion([crowd, difficult], 2).any()
    other = one_image([(NEAR, 0.9, 1)], [(NEAR, 0)], crowd=[True])
    assert whole_confusion([other], 2) == [[0, 0, 0], [0, 0, 0], [0, 1, 0]]


@given(st.integers(0, 10_000), st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_confusion_has_the_counts_of_the_metrics_in_its_diagonal_rows_and_columns(seed: int, num_classes: int) -> None:
    images = random_images(seed, 8, num_classes + 1, difficult=True)
    matches = match_images(images, num_classes + 1)
    expected = counts_at(matches, -np.inf)
    counts = confusion(images, num_classes + 1)
    assert np.diagonal(counts)[:-1].tolist() == expected.hits.sum(axis=0).tolist()
    assert counts[:-1].sum(axis=1).tolist() == expected.truth.sum(axis=0).tolist()
    assert counts[:, :-1].sum(axis=0).tolist() == expected.predicted.sum(axis=0).tolist()


# ---- the charts


def test_charts_tell_the_numbers_of_the_metrics(images: list[ImageResult], drawn: dict[str, Chart]) -> None:
    result = evaluate(images, len(CLASSES))
    ap50 = dict(zip(CLASSES, result.class_ap50, strict=True))
    areas = cells(drawn["Precision and recall"])
    assert {name: float(cell[0]) for name, cell in areas.items()} == {
        name: round(ap50[name], 3) for name in ("ant", "bee", "cow")
    }
    assert f"mean ({result.numbers()['map50']:.3f})" in drawn["Precision and recall"].svg
    overall = froc_recall(match_images(images, len(CLASSES)))[0]
    froc = cells(drawn["Objects found and false alarms (FROC)"])
    assert [float(row[0]) for row in froc.values()] == [round(each, 3) for each in overall]
    assert list(froc)[::3] == ["1/8", "1", "8"]
    sizes = cells(drawn["By the size of the objects"])
    assert float(next(cell for name, cell in sizes.items() if name.startswith("small"))[0]) == round(
        result.numbers()["map_small"], 3
    )


def test_the_worst_class_comes_first_with_its_number_of_objects(
    images: list[ImageResult], drawn: dict[str, Chart]
) -> None:
    result, chart = evaluate(images, len(CLASSES)), drawn["Average precision by class"]
    at_half = [float(row[2]) for row in chart.rows]
    assert at_half == sorted(at_half) and len(at_half) == 3
    counts = match_images(images, len(CLASSES)).true[0].sum(axis=0)
    for name, ap, _ in chart.rows:
        label = CLASSES.index(name.partition(" ")[0])
        assert name == f"{CLASSES[label]} ({counts[label]})" and float(ap) == round(result.class_ap[label], 3)


def test_what_average_precision_hides_is_said(images: list[ImageResult], at_half: dict[str, Chart]) -> None:
    found = sum(int(((i.found.labels == 3) & (i.found.scores >= 0.5)).sum()) for i in images)
    assert found > 0 and f"without an AP: dog ({found})" in at_half["Average precision by class"].caption
    empty = [image for image in images if image.true.uncounted.all()]
    alarmed = sum(bool(counts_at(match_images([image], 4), 0.5).predicted.any()) for image in empty)
    told = at_half["Objects found and false alarms (FROC)"].caption
    assert f"{len(empty)} images show no object; in {alarmed} of them something was found" in told


def test_every_image_with_objects_and_every_class_in_the_truth_leaves_nothing_to_say() -> None:
    images = [one_image([(NEAR, 0.9, 0), (FAR, 0.8, 1)], [(NEAR, 0), (FAR, 1)])] * 3
    drawn = {chart.title: chart for chart in charts(images, ("ant", "bee"))}
    assert "no object" not in drawn["Objects found and false alarms (FROC)"].caption
    assert "without an AP" not in drawn["Average precision by class"].caption
    assert drawn["What was taken for what"].rows == (
        ("ant", "3", "0", "0"), ("bee", "0", "3", "0"), ("background", "0", "0", "0"),
    )  # fmt: skip
    assert all(row[1:3] == ("0", "0.000") for row in drawn["What goes wrong"].rows)


def test_the_threshold_chart_is_marked_where_f1_is_best(images: list[ImageResult], drawn: dict[str, Chart]) -> None:
    chart, matches = drawn["What the threshold does"], match_images(images, len(CLASSES))
    best = best_threshold(matches)
    assert f"best F1 at {best:.2f}" in chart.svg
    rows = {float(x): [float(cell) for cell in row] for x, *row in chart.rows}
    for at in (0.25, 0.55, 0.85):
        total = counts_at(matches, at)
        hits, truth, called = (float(part.sum()) for part in total)
        assert rows[at] == pytest.approx([hits / called, hits / truth, 2 * hits / (truth + called)], abs=1e-3)
    assert rows[0.15][2] >= max(row[2] for row in rows.values()) - 0.05 or best > 0.2


def test_errors_are_counted_at_the_threshold_and_cost_over_all_scores(
    images: list[ImageResult], at_half: dict[str, Chart]
) -> None:
    chart, costs = at_half["What goes wrong"], detection_errors(images, len(CLASSES)).costs
    shown = [image._replace(found=surer(image.found, 0.5)) for image in images]
    counts = detection_errors(shown, len(CLASSES)).counts
    assert {row[0]: row[1] for row in chart.rows} == {kind: str(count) for kind, count in counts.items()}
    assert {row[0]: row[2] for row in chart.rows} == {kind: f"{costs[kind]:.3f}" for kind in counts}
    assert [float(row[2]) for row in chart.rows] == sorted((round(costs[kind], 3) for kind in counts), reverse=True)
    assert "chosen on validation images" in chart.caption


def surer(found: Detections, least: float) -> Detections:
    some = found.scores >= least
    return Detections(found.boxes[some], found.scores[some], found.labels[some])


def test_each_class_has_its_own_threshold() -> None:
    images = [one_image([(NEAR, 0.4, 0), (FAR, 0.4, 1)], [(NEAR, 0), (FAR, 1)])]
    matrix = {c.title: c for c in charts(images, ("ant", "bee"), (0.3, 0.5))}["What was taken for what"]
    assert matrix.rows == (("ant", "1", "0", "0"), ("bee", "0", "0", "1"), ("background", "0", "0", "0"))


def test_many_classes_are_the_mean_and_the_five_worst() -> None:
    names = [f"class {i}" for i in range(12)]
    drawn = {chart.title: chart for chart in charts(random_images(0, 60, 12), names)}
    for title in ("Precision and recall", "Objects found and false alarms (FROC)"):
        legend = re.findall(r"(?:mean|all classes|class \d+) \(\d\.\d{3}\)", drawn[title].svg)
        assert len(legend) == 6 and "5 worst" in drawn[title].caption


def test_a_single_class_of_a_single_size_has_no_chart_of_sizes_and_one_curve() -> None:
    images = [one_image([(NEAR, 0.9, 0), ((0, 0, 10, 10), 0.3, 0)], [(NEAR, 0)])] * 2
    drawn = {chart.title: chart for chart in charts(images, ["ant"])}
    assert len(drawn) == 6 and "By the size of the objects" not in drawn
    assert "ant (1.000)" in drawn["Precision and recall"].svg and "mean" not in drawn["Precision and recall"].svg


def test_nothing_true_gives_no_charts_and_nothing_found_does() -> None:
    assert charts([], CLASSES) == []
    assert charts([one_image([(NEAR, 0.9, 0)], [])], CLASSES) == []
    drawn = charts([one_image([], [(NEAR, 0), ((0, 0, 20, 20), 1)])], CLASSES)
    assert len(drawn) == 7
    for chart in drawn:
        ElementTree.fromstring(chart.svg)


def test_any_class_name_gives_a_drawing_that_is_well_formed() -> None:
    for chart in charts(random_images(1, 30, len(HOSTILE)), HOSTILE):
        root = ElementTree.fromstring(chart.svg.encode("utf-8"))
        assert not [element for element in root.iter() if element.tag.endswith(("script", "image", "foreignObject"))]


# ---- the kinds of chart


def test_recall_is_told_at_the_last_step_before_each_rate() -> None:
    line = Line("all", [0.0, 0.125, 0.5, 3.0], [0.1, 0.2, 0.6, 0.9])
    chart = free_response("t", "c", [line], [0.2] * 7, rates=FALSE_POSITIVES)
    assert [row[1] for row in chart.rows] == ["0.200", "0.200", "0.600", "0.600", "0.600", "0.900", "0.900"]


def test_dots_leave_out_what_is_not_defined_and_are_bounded() -> None:
    values: dict[str, dict[str, float]] = {"AP": {"a": 0.25, "b": float("nan")}, "AP50": {"a": 0.5, "b": 0.75}}
    assert dots("t", "c", values, x_label="x").rows == (("a", "0.250", "0.500"), ("b", "–", "0.750"))
    many = {"AP": {f"class {i}": 0.5 for i in range(5000)}}
    chart = dots("t", "c", many, x_label="x")
    assert len(chart.rows) == 100 and len(chart.svg) < 60_000


def test_twin_bars_of_nothing_and_of_negative_costs_can_be_drawn() -> None:
    rows: list[Any] = [Twin("class", 0, 0.0), Twin("both", 3, -0.01, "why")]
    chart = twin_bars("t", "c", rows, labels=("errors", "cost"))
    assert chart.rows[1] == ("both", "3", "-0.010", "why")
    ElementTree.fromstring(chart.svg)
