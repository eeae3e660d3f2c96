"""Marks at the border, JPEG headers and broken-off pictures are found; healthy images are left alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from audit_data import Data
from audit_places import Change, cut_off, photographs, planted_places, stamp, truncated
from snellen.audit.borders import shortcut_border
from snellen.audit.checks import CHECKS
from snellen.audit.compression import shortcut_compression
from snellen.audit.files import broken_files
from snellen.audit.truncated import truncated_images
from snellen.core.finding import Finding
from snellen.core.record import Record
from snellen.core.thresholds import alpha
from snellen.data.overlay import read_overlay
from snellen.data.scan import scan

OWN = (shortcut_border, shortcut_compression, truncated_images)


def findings(data: Data) -> list[Finding]:
    subject = data.subject()
    return [finding for check in OWN for finding in check(subject)]


def one(data: Data, code: str) -> Finding:
    found = findings(data)
    assert [finding.code for finding in found] == [code]
    assert found[0].message.endswith(".") and found[0].advice.endswith(".") and found[0].images
    return found[0]


# ---- marks at the border


def frame(pixels: np.ndarray, _: int) -> np.ndarray:
    pixels = pixels.copy()
    pixels[:9], pixels[-9:], pixels[:, :12], pixels[:, -12:] = 40, 40, 40, 40
    return pixels


@pytest.mark.parametrize(("change", "where"), [(stamp, "upper left"), (frame, "as a whole")])
def test_a_mark_of_one_class_is_found(change: Change, where: str, tmp_path: Path) -> None:
    finding = one(photographs(tmp_path, change), "shortcut-border")
    assert where in finding.message and finding.certainty == "observed"
    assert finding.evidence["youden_j"]["a"] > 0.8 and finding.evidence["p"] < alpha("shortcut-border", 2)
    assert set(finding.images) <= {f"{i:03d}.jpg" for i in range(0, 120, 2)}


def test_a_mark_on_most_of_a_class_is_found_and_on_few_is_not(tmp_path: Path) -> None:
    def on(share: float) -> Change:
        return lambda pixels, i: stamp(pixels, i) if i % 40 < 40 * share else pixels

    one(photographs(tmp_path / "most", on(0.9)), "shortcut-border")
    assert not findings(photographs(tmp_path / "few", on(0.3)))


@pytest.mark.parametrize("seed", range(6))
def test_skies_round_one_class_are_no_mark(seed: int, tmp_path: Path) -> None:
    assert not findings(photographs(tmp_path, seed=seed))


def test_a_mark_on_all_images_gives_nothing_away(tmp_path: Path) -> None:
    data = photographs(tmp_path, stamp)
    for i in range(1, 120, 2):
        path = tmp_path / f"{i:03d}.jpg"
        Image.fromarray(stamp(np.array(Image.open(path)), i)).save(path, quality=90)
    data.facts.update(scan(data.records).facts)
    assert not findings(data)


@pytest.mark.parametrize("seed", range(2))
def test_what_reaches_into_a_dark_border_is_no_mark(seed: int, tmp_path: Path) -> None:
    """Narrow things and wide ones before black: the border tells them apart, and rightly so."""
    rng = np.random.default_rng(seed)
    records = []
    for i in range(120):
        pixels = np.zeros((28, 28), np.uint8)
        half = int(rng.integers(3, 6)) if i % 2 else 14
        pixels[2:26, 14 - half : 14 + half] = rng.integers(90, 250)
        path = tmp_path / f"{i:03d}.png"
        Image.fromarray(pixels).save(path)
        records.append(Record(id=path.name, path=path, labels=("ab"[i % 2],)))
    data = Data(records, scan(records).facts)
    assert not [finding for finding in findings(data) if finding.evidence.get("grey") == 0]


def test_images_of_few_groups_show_nothing(tmp_path: Path) -> None:
    data = photographs(tmp_path, stamp)
    data.records[:] = [replace(record, group=f"{record.labels[0]}{i % 5}") for i, record in enumerate(data.records)]
    assert not findings(data)


# ---- how files were made


def test_a_quality_of_one_class_is_found(tmp_path: Path) -> None:
    finding = one(photographs(tmp_path, options={"quality": 60}), "shortcut-compression")
    assert finding.evidence["property"] == "quality"
    assert sorted(finding.evidence["median_quality"].values()) == [60, 90]
    assert finding.evidence["p"] < alpha("shortcut-compression", 8)


def test_a_colour_resolution_of_one_class_is_found(tmp_path: Path) -> None:
    finding = one(photographs(tmp_path, options={"subsampling": 0}), "shortcut-compression")
    assert finding.evidence["property"] == "sampling"


def test_a_camera_of_one_class_is_found(tmp_path: Path) -> None:
    data = photographs(tmp_path)
    for i in range(120):
        exif = Image.Exif()
        exif[271], exif[272] = "Maker", f"Model {1 if i % 2 else 2}"
        path = tmp_path / f"{i:03d}.jpg"
        Image.fromarray(np.array(Image.open(path))).save(path, quality=90, exif=exif)
    assert one(data, "shortcut-compression").evidence["property"] == "camera"


@pytest.mark.parametrize("seed", range(4))
def test_files_from_many_sources_give_nothing_away(seed: int, tmp_path: Path) -> None:
    data, rng = photographs(tmp_path, seed=seed), np.random.default_rng(seed)
    for i in range(120):
        path = tmp_path / f"{i:03d}.jpg"
        Image.fromarray(np.array(Image.open(path))).save(path, quality=int(rng.choice([60, 75, 85, 90, 95])))
    assert not findings(data)


# ---- pictures that break off


def test_pictures_that_break_off_in_grey_are_found(tmp_path: Path) -> None:
    finding = one(truncated(tmp_path), "truncated-images")
    assert finding.evidence["num_truncated"] >= 2  # one that breaks off at the end of a row has a straight edge
    assert set(finding.images) <= {"000.jpg", "004.jpg", "008.jpg"}
    assert all(0.05 < share < 0.9 for share in finding.evidence["lost_share"].values())


def test_the_proposed_changes_can_be_read(tmp_path: Path) -> None:
    finding = one(truncated(tmp_path), "truncated-images")
    path = tmp_path / "overlay.json"
    path.write_text(json.dumps({"changes": finding.treatment["overlay"]}))
    assert {change.image for change in read_overlay(path)} == set(finding.images)


def test_padding_and_grey_pictures_do_not_break_off(tmp_path: Path) -> None:
    data = photographs(tmp_path)
    for i, fill in ((0, "below"), (1, "all"), (2, "below")):
        pixels = np.array(Image.open(tmp_path / f"{i:03d}.jpg"))
        pixels[56 if fill == "below" else 0 :] = 128
        Image.fromarray(pixels).save(tmp_path / f"{i:03d}.jpg", quality=90)
    data.facts.update(scan(data.records).facts)
    assert not findings(data)


def test_a_file_that_is_still_broken_is_told_as_broken(tmp_path: Path) -> None:
    data = photographs(tmp_path)
    path = tmp_path / "000.jpg"
    path.write_bytes(path.read_bytes()[:-900])
    found = scan(data.records)
    data.facts, data.left_out = found.facts, found.left_out
    assert [finding.code for finding in broken_files(data.subject())] == ["broken-files"]
    assert not findings(data)


def test_cut_off_pictures_end_in_grey() -> None:
    pixels = cut_off(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8), 0.5)
    assert (abs(pixels[-8:].astype(int) - 128) <= 2).all() and np.ptp(pixels[:8]) > 100


# ---- all of these checks


def test_each_check_is_registered_and_speaks_of_its_own_fault_only(tmp_path: Path) -> None:
    subjects = planted_places(tmp_path)
    codes = (
        "boxes-off-edges",
        "boxes-of-turned-images",
        "masks-off-edges",
        "mask-values-between",
        "shortcut-border",
        "shortcut-compression",
        "truncated-images",
    )
    checks = {check.__name__.replace("_", "-"): check for check in CHECKS}
    for subject, code in zip(subjects, codes, strict=True):
        assert [name for name in codes if list(checks[name](subject))] == [code]
