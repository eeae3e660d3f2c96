"""Bursts of one camera on both sides of a split are told where the picture shows that they are of one scene."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from audit_photographs import at, photographs, save
from snellen.audit.bursts import bursts_across_splits
from snellen.audit.capture_times import find_bursts
from snellen.audit.identity import identity_leak
from snellen.audit.subject import AuditSubject
from snellen.core.finding import Finding
from snellen.core.record import Record


def found_in(subject: AuditSubject) -> list[Finding]:
    return list(bursts_across_splits(subject))


@pytest.mark.parametrize("seed", range(3))
def test_frames_of_one_scene_on_both_sides_are_found_and_grouped(tmp_path: Path, seed: int) -> None:
    subject = photographs(tmp_path, seed)
    (found,) = found_in(subject)
    assert found.code == "bursts-across-splits" and found.certainty == "confirmed"
    assert found.evidence["num_bursts"] == 24 and found.evidence["num_images"] == 24 and found.evidence["p"] < 1e-9
    groups = {change["image"]: change["value"] for change in found.treatment["overlay"]}
    assert len(groups) == 96 and len(set(groups.values())) == 24


@pytest.mark.parametrize(
    "healthy",
    [
        {"alike": False},  # a conveyor: another thing each second
        {"sides": lambda i: "train" if i // 4 % 4 < 3 else "val"},  # each burst on one side
        {"taken": lambda i: at(60 * i)},  # a tripod: the same scene, minutes apart
        {"taken": lambda i: at(0), "alike": False},  # a clock that stood still
        {"taken": lambda i: None},
        {"taken": lambda i: "0000:00:00 00:00:00"},
        {"camera": ""},
        {"scenes": 2},
    ],
    ids=["conveyor", "whole", "minutes", "still", "no time", "zeros", "no camera", "two bursts"],
)
@pytest.mark.parametrize("seed", range(2))
def test_what_is_no_leak_is_silent(tmp_path: Path, healthy: dict[str, object], seed: int) -> None:
    assert found_in(photographs(tmp_path, seed, **healthy)) == []  # type: ignore[arg-type]


def test_times_part_at_pauses_and_cameras_are_kept_apart(tmp_path: Path) -> None:
    taken = {"a": (0, "Canon", ""), "b": (2, "Canon", "9"), "c": (9, "Canon", ""), "d": (1, "Nikon", "")}
    for name, (second, camera, fraction) in taken.items():
        save(tmp_path / f"{name}.jpg", np.full((16, 16, 3), 90, np.uint8), at(second), camera, fraction)
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    records = {name: Record(id=name, path=tmp_path / f"{name}.jpg") for name in (*taken, "broken")}
    found = find_bursts(records, dict.fromkeys(records, "JPEG"))
    assert list(found.values()) == [["a", "b"]]
    assert find_bursts(records, dict.fromkeys(records, "BMP")) == {}


def test_bursts_are_the_groups_of_the_identity_test(tmp_path: Path) -> None:
    """Frames are recognised by their features, and the class is not told without them."""
    subject = photographs(tmp_path, 0, scenes=80)
    rng = np.random.default_rng(0)
    scene_of = {record.id: i // 4 for i, record in enumerate(subject.listing.records)}
    places = rng.normal(size=(80, 24))
    features = {
        image_id: (places[scene] + 0.2 * (scene % 2) + 0.1 * rng.normal(size=24)).astype(np.float32)
        for image_id, scene in scene_of.items()
    }
    known = AuditSubject(
        listing=subject.listing,
        facts=subject.facts,
        left_out=[],
        pairs=[],
        manifest=subject.manifest,
        features=features,
    )
    (found,) = identity_leak(known)
    assert "bursts of one camera" in found.message and not found.evidence["named"]
