"""Every check of marked objects and masks finds its fault, is silent on healthy data, and sees what it should count."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import audit_objects as faults
from audit_data import pair
from audit_objects import MASK_PLANTS, OBJECT_PLANTS, Marked, healthy_masks, healthy_objects
from object_listings import boxed
from snellen.audit.marks import MarkedObjects
from snellen.audit.objects import _repeated
from snellen.audit.pictures import save_examples
from snellen.audit.run_audit import run_audit
from snellen.audit.summary import summarize
from snellen.core.finding import Finding
from snellen.core.record import Record
from snellen.core.run import RunFolder
from snellen.metrics.overlap import box_iou

Plant = Callable[[Marked], None]


def found_in(data: Marked) -> dict[str, Finding]:
    return {finding.code: finding for finding in run_audit(data.subject())}


def check(found: dict[str, Finding], code: str, severity: str, num_images: int) -> None:
    assert code in found, sorted(found)
    finding = found[code]
    assert (finding.severity, len(finding.images)) == (severity, num_images)
    assert finding.evidence and finding.advice.endswith(".")
    assert "\n" not in finding.message and finding.message.endswith(".")
    assert Finding.from_json(json.loads(json.dumps(finding.to_json()))).images == finding.images


@pytest.mark.parametrize(
    ("plant", "code", "severity", "num_images"),
    OBJECT_PLANTS,
    ids=[f"{code}-{plant.__name__}" for plant, code, _, _ in OBJECT_PLANTS],
)
def test_planted_fault_of_objects_is_found_and_no_other(
    plant: Plant, code: str, severity: str, num_images: int
) -> None:
    data = healthy_objects()
    plant(data)
    found = found_in(data)
    check(found, code, severity, num_images)
    related = {"few-objects": {"unequal-objects"}, "conflicting-marks": {"exact-duplicates"}}
    assert found.keys() - related.get(code, set()) == {code}


@pytest.mark.parametrize(
    ("plant", "code", "severity", "num_images"),
    MASK_PLANTS,
    ids=[f"{code}-{plant.__name__}" for plant, code, _, _ in MASK_PLANTS],
)
def test_planted_fault_of_masks_is_found(
    plant: Plant, code: str, severity: str, num_images: int, tmp_path: Path
) -> None:
    data = healthy_masks(tmp_path)
    plant(data)
    found = found_in(data)
    check(found, code, severity, num_images)
    assert found.keys() - {"too-few-images"} == {code}


def test_healthy_marks_have_no_findings(tmp_path: Path) -> None:
    assert run_audit(healthy_objects().subject()) == []
    assert found_in(healthy_masks(tmp_path)).keys() == {"too-few-images"}


def test_near_duplicates_that_show_other_objects_are_no_conflict_of_labels() -> None:
    data = healthy_objects()
    data.mark(5, (data.records[5].objects or ())[:1])
    data.pairs.append(pair("0004.jpg", "0005.jpg"))
    assert found_in(data).keys() == {"near-duplicates"}


def test_a_class_of_which_only_test_has_objects_is_missing() -> None:
    data = healthy_objects()
    data.records[:] = [
        replace(record, split=("train", "val", "test")[min(2, i // 80)]) for i, record in enumerate(data.records)
    ]
    data.classes = (*faults.CLASSES, "fox")
    for row in range(170, 210):
        data.add(row, [boxed("fox", 350, 200, 380, 240)])
    assert found_in(data)["missing-classes"].severity == "serious"


def test_what_gives_an_object_away_in_the_file_is_only_information() -> None:
    data = healthy_objects()
    for row in range(0, len(data.records), 2):
        data.mark(row, [each for each in data.records[row].objects or () if each.label == "dog"])
        data.change([data.records[row].id], format="PNG")
    assert found_in(data)["shortcut-format"].severity == "info"


def test_few_marked_images_are_told_without_an_accuracy() -> None:
    data = healthy_objects()
    data.records = data.records[:60]
    data.facts = {record.id: data.facts[record.id] for record in data.records}
    finding = found_in(data)["too-few-images"]
    assert "accuracy" not in finding.message and finding.evidence["num_images"] == 9


def test_crowds_are_no_objects() -> None:
    data = healthy_objects()
    data.add(3, [boxed("dog", 380, 280, 384, 284, crowd=True), boxed("dog", 0, 0, 400, 300, crowd=True)])
    assert found_in(data) == {}


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_repeated_boxes_are_those_that_comparing_all_pairs_finds(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 10_000)))
    records = []
    for i in range(3):
        corners = rng.uniform(0, 60, (rng.integers(0, 5), 2))
        boxes = np.concatenate([corners, corners + rng.uniform(10, 30, corners.shape)], axis=1)
        boxes = np.concatenate([boxes, boxes[:3] + rng.normal(0, 0.4, boxes[:3].shape)])
        marked = tuple(boxed(str(rng.choice(["a", "b"])), *box) for box in boxes)
        records.append(Record(id=str(i), path=Path("x"), objects=marked, size=(100, 100)))
    objects = MarkedObjects.of(records, ("a", "b"))
    same = (objects.image[:, None] == objects.image) & (objects.label[:, None] == objects.label)
    near = (box_iou(objects.boxes, objects.boxes, np.zeros(len(objects), np.bool_)) > 0.9) & same
    expected = np.flatnonzero(np.tril(near, -1).any(axis=1))
    assert _repeated(objects).tolist() == expected.tolist()


# ---- the summary


def test_summary_counts_objects_on_every_side() -> None:
    data = healthy_objects()
    faults.empty_ones(data)
    summary = summarize(data.subject())
    objects = summary["objects"]
    assert objects["total"] == 3 * 237 and objects["lost"] == 0
    assert {row["name"]: row["total"] for row in objects["classes"]} == {"car": 237, "dog": 474}
    assert all(row["train"] + row["val"] + row["test"] == row["total"] for row in objects["classes"])
    assert sum(objects["per_image"]["counts"]) == 240 and objects["per_image"]["quantiles"][0] == 0
    assert objects["per_image"]["counts"] == [3, 0, 0, 237]
    assert sum(objects["size"]["counts"]) == objects["total"] == sum(objects["aspect"]["counts"])
    assert 0.05 < objects["size"]["quantiles"][3] < 0.2
    assert summary["pixels"] == {}
    json.dumps(summary)


def test_summary_shares_out_pixels(tmp_path: Path) -> None:
    pixels = summarize(healthy_masks(tmp_path).subject())["pixels"]
    assert pixels["looked_at"] == pixels["total"] == 40 and pixels["void"] == pytest.approx(1 / 30)
    assert [row["train"] for row in pixels["classes"]] == [0.5, 0.5]


def test_a_mask_that_went_away_is_passed_over(tmp_path: Path) -> None:
    subject = healthy_masks(tmp_path).subject()
    (tmp_path / "003.png").unlink()
    assert len(subject.mask_pixels.ids) == 39 and "003.png" not in subject.mask_pixels.ids


def test_examples_show_what_is_marked(tmp_path: Path) -> None:
    data = healthy_masks(tmp_path)
    for name, size in (("photo.png", (400, 300)), ("map.png", (40, 30))):
        Image.new("RGB", size, (90, 90, 90)).save(tmp_path / name)
    records = {
        "photo.png": Record(
            id="photo.png", path=tmp_path / "photo.png", objects=(boxed("sky", 50, 50, 200, 200),), size=(400, 300)
        ),
        "map.png": replace(data.records[0], id="map.png", path=tmp_path / "map.png"),
    }
    known = SimpleNamespace(manifest=SimpleNamespace(classes=("road", "sky")), records=records)
    run = RunFolder.create(tmp_path / "run")
    save_examples(run, known, {"road": ["photo.png", "map.png"]})  # type: ignore[arg-type]
    for path in sorted(run.pictures.glob("example-*")):
        with Image.open(path) as picture:
            colours = np.asarray(picture.convert("RGB")).reshape(-1, 3).astype(int)
            assert max(picture.size) == 480
        assert (np.ptp(colours, axis=1) > 40).mean() > 0.005  # the picture itself is grey
    assert len(list(run.pictures.glob("example-*"))) == 2
