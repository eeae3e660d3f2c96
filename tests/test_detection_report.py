"""The report of a detection or segmentation run: its numbers, its charts, and pictures large enough to see them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import audit_objects as faults
from audit_objects import healthy_masks, healthy_objects
from found_objects import random_images
from run_folders import HOSTILE, write_json
from snellen.audit.run_audit import run_audit
from snellen.audit.subject import AuditSubject
from snellen.audit.summary import summarize
from snellen.core.estimate import Estimate, is_at_most_one, is_fraction, is_share, spoken, told
from snellen.draw.pictures import thumbnail
from snellen.report import results
from snellen.report.build import build_audit_report
from snellen.report.source import read_audit
from snellen.report.wording import reading
from snellen.tasks.detection.target import Boxes
from snellen.tasks.detection.task import Detection

CLASSES = ("car", "dog", "fox")
SIDE = 200
_BACKGROUND = np.full((480, 480, 3), 120, np.uint8)


def scenes(num: int, num_classes: int) -> tuple[list[Boxes], list[Boxes]]:
    """What a middling model found in images of 200 x 200 pixels, and the truth."""
    predicted, truth = [], []
    for found, true in random_images(5, num, num_classes, most=5):
        order = np.argsort(-found.scores, kind="stable")
        boxes = found.boxes[order].astype(np.float32)
        predicted.append(Boxes.predicted((SIDE, SIDE), boxes, found.labels[order], found.scores[order].astype("f4")))
        plain = Boxes.predicted(
            (SIDE, SIDE), true.boxes.astype(np.float32), true.labels, np.zeros(len(true.labels), np.float32)
        )
        truth.append(replace(plain, scores=None))
    return predicted, truth


def write_data(folder: Path, subject: AuditSubject, task: str) -> None:
    data = {"version": 1, "name": "yard", "task": task, "format": "coco", "left_out": []}
    data |= {"manifest": subject.manifest.to_json(), "summary": summarize(subject)}
    write_json(folder / "data.json", data)
    write_json(folder / "findings.json", [finding.to_json() for finding in run_audit(subject)])


def write_run(folder: Path, classes: Sequence[str] = CLASSES, *, num_mistakes: int = 3) -> Path:
    """A finished detection run on grey pictures."""
    (folder / "predictions").mkdir(parents=True)
    (folder / "pictures").mkdir()
    (folder / "STATUS").write_text("done\n")
    data = healthy_objects()
    data.classes = (*faults.CLASSES, *classes[2:])
    faults.marked_twice(data)
    faults.empty_ones(data)
    write_data(folder, data.subject(), "detection")
    task = Detection(classes)
    predicted, truth = scenes(24, len(classes))
    arrays = task.arrays(predicted, truth)
    save_file(
        {name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / "predictions/test.safetensors"
    )
    metrics = task.metrics()
    metrics.update(predicted, truth)
    numbers = {name: each.to_json() for name, each in metrics.compute().items()}
    mistakes = task.mistakes(predicted, truth, num_mistakes)
    for number, mistake in enumerate(mistakes):
        i = mistake.pop("index")
        picture = task.draw_mistake(_BACKGROUND, truth[i], predicted[i])
        (folder / f"pictures/mistake-{number:03}.webp").write_bytes(thumbnail(picture, 1056))
        mistake |= {"id": f"{i}.jpg", "picture": f"pictures/mistake-{number:03}.webp"}
    for i, name in enumerate(("example-0-0", "example-0-1", "example-0-2", "example-0-3", "example-1-0")):
        (folder / f"pictures/{name}.webp").write_bytes(thumbnail(task.draw(_BACKGROUND, truth[i]), 480))
    nothing = {"test": {"map": Estimate(value=0.0, n=24).to_json()}}
    content = {"version": 1, "headline": "map", "verdict": "Finds a third of the objects.", "shipped": "fine-tuned"}
    content |= {"splits": {"test": numbers}, "baselines": {"majority": nothing}, "mistakes": mistakes}
    write_json(folder / "results.json", content)
    choices = {"task": "detection", "model": "small", "classes": list(classes)}
    write_json(folder / "plan.json", {"version": 1, "choices": choices, "reasons": {"model": "It is small."}})
    write_json(folder / "environment.json", {"run_version": 1})
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("detection") / "run")


@pytest.fixture(scope="module")
def html(run: Path) -> str:
    """Of a report that is built where there is no torch."""
    code = "import sys; sys.modules['torch'] = None; from pathlib import Path; from snellen.report.build import *; "
    command = [sys.executable, "-c", code + "print(build_report(Path(sys.argv[1])))", str(run)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return (run / "report.html").read_text(encoding="utf-8")


def titles(html: str) -> list[str]:
    return re.findall(r"<figcaption><h3>(.*?)</h3>", html)


def test_the_page_begins_with_the_mean_average_precision_and_its_interval(html: str, run: Path) -> None:
    assert re.search(r'<p class="big">0\.\d{3}</p>\s*<p><strong>mAP</strong> on 24 test images</p>', html)
    assert re.search(r"95 % interval: 0\.\d{3} to 0\.\d{3}", html)
    assert "Never anything" in html and html.count('<td class="bar"><svg') == 2
    order = [html.index(f'id="{part}"') for part in ("verdict", "next", "data", "results", "mistakes", "findings")]
    assert order == sorted(order)


def test_the_data_part_tells_objects_and_their_sizes(html: str) -> None:
    data = [title for title in titles(html) if title not in ("Loss",)]
    assert data[:2] == ["Objects per class", "Images per class"]
    assert {"Objects per image", "Size of the objects", "Shape of the objects"} <= set(data)
    assert "<dt>Objects</dt><dd>" in html and "(nothing)" in html
    assert "repeated-objects" in html and "images-without-objects" in html


def test_the_results_part_has_all_charts_and_the_classes_the_worst_first(html: str) -> None:
    for title in (
        "Precision and recall",
        "What the threshold does",
        "Objects found and false alarms (FROC)",
        "Average precision by class",
        "What goes wrong",
        "What was taken for what",
    ):
        assert title in titles(html)
    table = html[html.index("the worst class first") : html.index("Charts of the results")]
    values = re.findall(r'<th scope="row">(?:car|dog|fox)</th>\s*<td class="number">(0\.\d{3})', table)
    assert len(values) == 2 and values == sorted(values)  # the last class is never in the truth
    more = html[html.index("More averages") :]
    assert "Recall with 10 answers" in more and "mAP at IoU 0.75" not in more


def test_scenes_are_shown_large_one_below_the_other(html: str) -> None:
    assert '<div class="pictures scenes">' in html and html.count('<div class="row scenes">') == 2
    mistakes = html[html.index('id="mistakes"') : html.index('id="findings"')]
    assert mistakes.count("<img") == 3 and "wrong or missed" in mistakes
    examples = html[html.index("<h3>Examples</h3>") : html.index('id="results"')]
    assert examples.count("<img") == 4  # three of the first class, one of the second


def test_pictures_for_which_there_is_no_room_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "SCENES_BYTES", 60_000)
    (tmp_path / "pictures").mkdir()
    rng = np.random.default_rng(0)
    entry = {"id": "a.jpg", "truth": "1 car", "predicted": "nothing", "off": 1, "unit": "wrong or missed"}
    for number in range(8):
        noise = rng.integers(0, 256, (120, 120, 3), dtype=np.uint8)
        (tmp_path / f"pictures/mistake-{number:03}.webp").write_bytes(thumbnail(noise, 1056))
    mistakes = [{**entry, "picture": f"pictures/mistake-{number:03}.webp"} for number in range(8)]
    write_json(tmp_path / "data.json", {"version": 1, "task": "detection"})
    write_json(tmp_path / "results.json", {"mistakes": mistakes})
    found = results.mistakes(read_audit(tmp_path))
    assert 1 <= len(found) < 8 and all(each.picture is not None for each in found)
    assert sum(len(each.picture or "") for each in found) <= 60_000
    assert found[0].sure == "1 wrong or missed"


def test_hostile_class_names_are_only_text(tmp_path: Path) -> None:
    data = healthy_objects()
    for i, record in enumerate(data.records[:60]):
        objects = record.objects or ()
        name = HOSTILE[i % len(HOSTILE)]
        data.mark(i, [type(objects[0])(label=name, box=objects[0].box), *objects[1:]])
    data.classes = (*faults.CLASSES, *HOSTILE)
    write_data(tmp_path, data.subject(), "detection")
    html = build_audit_report(tmp_path).read_text(encoding="utf-8")
    assert "<script" not in html and "<img src=x" not in html and "<base" not in html
    assert "few-objects" in html


def test_an_audit_of_masks_shows_what_share_of_the_pixels_a_class_has(tmp_path: Path) -> None:
    data = healthy_masks(tmp_path / "masks")
    faults.hardly_any_road(data)
    faults.one_wholly_void(data)
    write_data(tmp_path, data.subject(), "segmentation")
    html = build_audit_report(tmp_path).read_text(encoding="utf-8")
    assert titles(html)[0] == "Pixels by class" and "Void pixels" in html and "rare-pixels" in html
    assert "Objects per class" not in titles(html)


# ---- how numbers are read


@pytest.mark.parametrize(
    "metric",
    "map map50 map_small mar100 mar_large ap/cat ap50/cat mask_map75 froc matched_iou mean_iou iou/road dice/road "
    "boundary_iou frequency_weighted_iou".split(),
)
def test_overlaps_and_average_precisions_are_read_with_three_digits_and_have_a_bar(metric: str) -> None:
    assert is_fraction(metric) and is_at_most_one(metric) and not is_share(metric)
    assert told(metric, 0.43219) == "0.432"
    read = reading(metric, Estimate(value=0.4, n=60, low=0.31, high=0.5).to_json())
    assert (read.value, read.interval, read.fraction, read.low, read.high) == (
        "0.400",
        "0.310 to 0.500",
        0.4,
        0.31,
        0.5,
    )


@pytest.mark.parametrize("metric", ["pixel_accuracy", "mean_class_accuracy", "recall/map"])
def test_shares_of_pixels_stay_percent(metric: str) -> None:
    assert is_share(metric) and is_fraction(metric) and told(metric, 0.4321) == "43.2 %"


@pytest.mark.parametrize("metric", ["mae", "rmse", "bias", "log_loss", "mape", "r2", "pearson", "brier_score"])
def test_other_numbers_are_no_fractions(metric: str) -> None:
    values: dict[str, Any] = Estimate(value=0.4, n=60).to_json()
    assert not is_fraction(metric) and reading(metric, values).fraction is None


def test_names_of_metrics_are_written_as_they_are_known() -> None:
    assert [spoken(name) for name in ("mean_iou", "mask_map", "froc", "balanced_accuracy")] == [
        *("mean IoU", "mask mAP", "FROC", "balanced accuracy")
    ]
