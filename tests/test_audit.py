"""Every check of the audit finds its fault, with evidence, and is silent on healthy data."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import audit_data as faults
import audit_features
import audit_values
from audit_data import Data, healthy, on_side, pair, user_split
from audit_maps import boxed_maps, change_boxes, masked_maps
from audit_objects import planted_subjects
from audit_photographs import photographs
from audit_places import planted_places
from snellen.audit.checks import CHECKS
from snellen.audit.pictures import save_examples
from snellen.audit.run_audit import run_audit
from snellen.audit.subject import MAX_IMAGES
from snellen.audit.summary import MAX_EXAMPLES, MAX_LEFT_OUT, summarize
from snellen.core.finding import SEVERITIES, Finding
from snellen.core.record import LeftOut, Record
from snellen.core.run import RunFolder

Plant = Callable[[Data], None]
PLANTED: list[tuple[Plant, Callable[[], Data], str, str, int]] = [
    # fault, data, code, severity, images that the finding names (-1: at least one)
    (faults.few_broken_files, healthy, "broken-files", "warning", 4),
    (faults.many_broken_files, healthy, "broken-files", "serious", MAX_IMAGES),
    (faults.stray_files, healthy, "left-out", "info", 0),
    (faults.few_exact_copies, healthy, "exact-duplicates", "info", 4),
    (faults.many_exact_copies, healthy, "exact-duplicates", "warning", MAX_IMAGES),
    (faults.near_copies, healthy, "near-duplicates", "info", 2),
    (faults.exact_copies_of_two_classes, healthy, "conflicting-labels", "serious", 2),
    (faults.near_copies_of_two_classes, healthy, "conflicting-labels", "warning", 2),
    (faults.copies_on_two_sides, user_split, "leak-across-splits", "serious", 2),
    (faults.copies_in_val_and_test, user_split, "leak-across-splits", "warning", 2),
    (faults.patients_on_two_sides, user_split, "groups-across-splits", "serious", -1),
    (faults.guessed_groups_on_two_sides, user_split, "groups-across-splits", "warning", -1),
    (faults.class_missing_in_train, user_split, "missing-classes", "serious", -1),
    (faults.class_missing_in_test, user_split, "missing-classes", "warning", -1),
    (faults.class_without_images, healthy, "missing-classes", "warning", 0),
    (faults.one_mode_for_a_class, healthy, "shortcut-mode", "warning", -1),
    (faults.one_format_for_a_class, healthy, "shortcut-format", "warning", -1),
    (faults.one_size_for_a_class, healthy, "shortcut-size", "warning", -1),
    (faults.larger_images_for_a_class, healthy, "shortcut-resolution", "warning", -1),
    (faults.night_and_day, healthy, "shortcut-brightness", "info", -1),
    (faults.flat_pictures, healthy, "empty-images", "warning", 2),
    (faults.dark_pictures, healthy, "odd-brightness", "info", 2),
    (faults.thumbnails, healthy, "odd-sizes", "info", 3),
    (faults.panoramas, healthy, "odd-shapes", "info", 3),
    (faults.some_transparent, healthy, "mixed-modes", "info", MAX_IMAGES),
]


def found_in(data: Data) -> dict[str, Finding]:
    return {finding.code: finding for finding in run_audit(data.subject())}


@pytest.mark.parametrize(
    ("plant", "make", "code", "severity", "num_images"),
    PLANTED,
    ids=[f"{code}-{plant.__name__}" for plant, _, code, _, _ in PLANTED],
)
def test_planted_fault_is_found_with_evidence(
    plant: Plant, make: Callable[[], Data], code: str, severity: str, num_images: int
) -> None:
    data = make()
    plant(data)
    found = found_in(data)
    assert code in found
    finding = found[code]
    assert finding.severity == severity
    assert finding.evidence and finding.advice
    assert len(finding.images) == num_images or (num_images == -1 and finding.images)
    assert "\n" not in finding.message and finding.message.endswith(".")
    assert Finding.from_json(json.loads(json.dumps(finding.to_json()))).images == finding.images
    related = {
        "missing-classes": {"tiny-classes", "imbalance", "too-few-images"},
        "conflicting-labels": {"exact-duplicates", "near-duplicates"},
    }
    side_effects = {"mixed-modes", "near-duplicates", "exact-duplicates", *related.get(code, ())}
    assert found.keys() - side_effects <= {code}


@pytest.mark.parametrize("make", [healthy, user_split])
def test_healthy_data_has_no_findings(make: Callable[[], Data]) -> None:
    assert run_audit(make().subject()) == []


@pytest.mark.parametrize(
    ("sizes", "code", "severity"),
    [
        ({"ant": 800, "bee": 60}, "imbalance", "warning"),
        ({"ant": 300, "bee": 300, "wasp": 1}, "tiny-classes", "warning"),
        ({"ant": 300, "bee": 300, "wasp": 2, "fly": 1}, "tiny-classes", "warning"),
        ({"ant": 200, "bee": 200, "wasp": 29}, "small-classes", "info"),
        ({"ant": 200, "bee": 200, "wasp": 12}, "small-classes", "warning"),
        ({"ant": 150, "bee": 150}, "too-few-images", "warning"),
    ],
)
def test_classes_of_unfit_sizes_are_found(sizes: dict[str, int], code: str, severity: str) -> None:
    finding = found_in(healthy(sizes))[code]
    assert finding.severity == severity and finding.evidence


@pytest.mark.parametrize(
    ("sizes", "code"),
    [
        ({"ant": 800, "bee": 90}, "imbalance"),
        ({"ant": 300, "bee": 300, "wasp": 3}, "tiny-classes"),
        ({"ant": 300, "bee": 300, "wasp": 3}, "missing-classes"),
        ({"ant": 300, "bee": 300, "wasp": 1}, "missing-classes"),
        ({"ant": 200, "bee": 200, "wasp": 30}, "small-classes"),
        ({"ant": 220, "bee": 220}, "too-few-images"),
    ],
)
def test_classes_of_fit_sizes_pass(sizes: dict[str, int], code: str) -> None:
    assert code not in found_in(healthy(sizes))


def test_few_training_images_are_told_though_validation_has_many() -> None:
    data = healthy({"ant": 200, "bee": 200})
    data.give_sides({"train": 0.7, "val": 0.15, "test": 0.15})
    moved = set(on_side(data, "train", "bee")[:-8])
    data.records[:] = [replace(each, split="val") if each.id in moved else each for each in data.records]
    finding = found_in(data)["small-classes"]
    assert finding.severity == "warning" and finding.evidence["counts"] == {"bee": 8}
    assert "fewer than 10 training images: bee" in finding.message


def test_imbalance_of_several_labels_is_only_information() -> None:
    data = healthy()
    data.multi_label = True
    data.records[:] = [
        replace(record, labels=("sky", *(["rare"] if i % 30 == 0 else []))) for i, record in enumerate(data.records)
    ]
    assert found_in(data)["imbalance"].severity == "info"


def test_numbers_behind_a_leak_are_right() -> None:
    data = user_split()
    train, test = on_side(data, "train", "ant"), on_side(data, "test", "ant")
    data.pairs = [
        pair(train[0], test[0]),
        pair(train[1], test[0]),
        pair(test[1], train[2], "exact"),
        pair(test[2], test[3]),
    ]
    evidence = found_in(data)["leak-across-splits"].evidence
    total = len(test) + len(on_side(data, "test", "bee"))
    assert evidence["num_pairs"] == 3 and evidence["num_exact"] == 1
    assert evidence["leaked"] == {"val": 0, "test": 2} and evidence["shares"] == {"test": 2 / total}


def test_snellens_own_split_never_leaks() -> None:
    data = healthy()
    ants = data.ids("ant")
    data.pairs = [pair(ants[i], ants[i + 7]) for i in range(0, 200, 3)]
    data.groups = {image_id: f"plant {i // 5}" for i, image_id in enumerate(data.ids("bee"))}
    assert not found_in(data).keys() & {"leak-across-splits", "groups-across-splits"}


@pytest.mark.parametrize("seed", range(6))
def test_chance_makes_no_shortcut(seed: int) -> None:
    """Small classes, many of them, and properties that are pure chance."""
    rng = np.random.default_rng(seed)
    data = healthy({f"class {i}": 40 for i in range(12)})
    for image_id in data.facts:
        width, height = (int(side) for side in rng.integers(200, 800, 2))
        mode, fmt = str(rng.choice(["RGB", "L", "CMYK"])), str(rng.choice(["JPEG", "PNG"]))
        data.change([image_id], width=width, height=height, mode=mode, format=fmt, brightness=float(rng.random()))
    assert not [code for code in found_in(data) if code.startswith("shortcut")]


def test_a_shortcut_to_one_class_of_many_is_found() -> None:
    data = healthy({f"class {i}": 60 for i in range(10)})
    data.change(data.ids("class 3"), mode="CMYK")
    finding = found_in(data)["shortcut-mode"]
    assert list(finding.evidence["youden_j"]) == ["class 3"]
    assert all(image_id.startswith("class 3/") for image_id in finding.images)


def test_what_many_images_do_is_not_odd() -> None:
    data = healthy()
    half = [record.id for i, record in enumerate(data.records) if i % 2]
    data.change(half, width=1000, height=200, brightness=0.02)
    assert not found_in(data).keys() & {"odd-sizes", "odd-shapes", "odd-brightness"}


def test_findings_come_the_most_severe_first_and_a_tasks_own_checks_run() -> None:
    data = user_split()
    faults.copies_on_two_sides(data)
    faults.stray_files(data)
    own = Finding(code="own", severity="warning", message="m.", advice="a.")
    findings = run_audit(data.subject(), extra_checks=[lambda subject: [own]])
    severities = [SEVERITIES.index(finding.severity) for finding in findings]
    assert severities == sorted(severities, reverse=True) and own in findings


def test_every_check_speaks_up_for_some_fault(tmp_path: Path) -> None:
    subjects = [healthy({"ant": 150, "bee": 12, "wasp": 1}).subject()]
    for plant, make, *_ in PLANTED:
        data = make()
        plant(data)
        subjects.append(data.subject())
    subjects.extend(plant_numbers() for _, plant_numbers, _ in audit_values.PLANTED)
    subjects.extend(planted_subjects(tmp_path))
    subjects.extend(plant_seen().subject() for plant_seen in audit_features.PLANTED)
    subjects.extend(planted_places(tmp_path / "places"))
    without_boxes = boxed_maps()
    change_boxes(without_boxes, 0.4, lambda each, rng: None)
    half_mirrored = masked_maps(tmp_path, lambda mask, i: mask[:, ::-1] if i % 2 else mask)
    subjects += [without_boxes.subject(), half_mirrored.subject(), photographs(tmp_path / "bursts", 0)]
    silent = [check.__name__ for check in CHECKS if not any(list(check(subject)) for subject in subjects)]
    assert silent == []


# ---- the summary


def test_summary_counts_what_there_is() -> None:
    data = user_split()
    faults.few_broken_files(data)
    faults.stray_files(data)
    summary = summarize(data.subject())
    assert (summary["images_found"], summary["images_used"], summary["images_left_out"]) == (622, 616, 6)
    assert sum(summary[f"{side}_images"] for side in ("train", "val", "test")) == 616
    assert [each["name"] for each in summary["classes"]["listed"]] == ["ant", "bee"]
    assert [each["total"] for each in summary["classes"]["listed"]] == [316, 300]
    assert summary["modes"] == {"RGB": 616} and summary["formats"] == {"JPEG": 616}
    for name in ("width", "height", "aspect", "brightness"):
        assert sum(summary[name]["counts"]) == 616
        assert len(summary[name]["edges"]) == len(summary[name]["counts"]) + 1
    widths = [facts.width for facts in data.facts.values()]
    assert summary["width"]["quantiles"][3] == np.median(widths)
    assert summary["left_out"]["total"] == 6 and summary["left_out"]["reasons"]["not an image"] == 2
    json.dumps(summary)


def test_summary_counts_duplicates_and_leaks() -> None:
    data = user_split()
    train, test = on_side(data, "train", "ant"), on_side(data, "test", "ant")
    data.pairs = [pair(train[0], train[1], "exact"), pair(train[0], train[2]), pair(train[5], test[0])]
    summary = summarize(data.subject())
    names = (
        "exact_duplicate_pairs",
        "near_duplicate_pairs",
        "duplicate_sets",
        "redundant_images",
        "pairs_across_splits",
    )
    assert [summary[name] for name in names] == [1, 2, 2, 3, 1]


def test_examples_are_train_images_of_their_class_whatever_the_order() -> None:
    data = healthy()
    subject = data.subject()
    examples = summarize(subject)["examples"]
    train = set(subject.manifest.ids("train"))
    assert {name: len(ids) for name, ids in examples.items()} == {"ant": MAX_EXAMPLES, "bee": MAX_EXAMPLES}
    assert all(image_id in train and image_id.startswith(name) for name, ids in examples.items() for image_id in ids)
    data.records.reverse()
    assert summarize(data.subject())["examples"] == examples


def test_summary_stays_small() -> None:
    data = healthy({f"class {i:04d}": 3 for i in range(1200)})
    data.left_out = [LeftOut(path=f"{i}.txt", reason=f"not an image {i}") for i in range(5000)]
    summary = summarize(data.subject())
    assert summary["left_out"]["total"] == 5000 and len(summary["left_out"]["listed"]) == MAX_LEFT_OUT
    assert summary["classes"]["total"] == 1200 and len(summary["classes"]["listed"]) == 1000
    assert len(json.dumps(summary)) < 300_000


def test_examples_are_saved_under_the_index_of_their_class(tmp_path: Path) -> None:
    for name in ("ant.png", "bee.png"):
        Image.new("RGB", (400, 300), "red").save(tmp_path / name)
    records = {name: Record(id=name, path=tmp_path / name) for name in ("ant.png", "bee.png", "gone.png")}
    known = SimpleNamespace(manifest=SimpleNamespace(classes=("ant", "bee")), records=records)
    run = RunFolder.create(tmp_path / "run")
    save_examples(run, known, {"bee": ["gone.png", "bee.png"], "ant": ["ant.png"]})  # type: ignore[arg-type]
    saved = sorted(run.pictures.glob("example-*"))
    assert [path.name for path in saved] == ["example-0-0.webp", "example-1-1.webp"]
    with Image.open(saved[0]) as picture:
        assert picture.size == (160, 120)
