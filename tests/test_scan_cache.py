"""What was seen of images is what would be seen again, and is asked for only while their bytes are the same."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from snellen.core.config import Config
from snellen.core.console import Console
from snellen.data import formats, scan_cache, survey
from snellen.data.scan import ImageFacts
from snellen.data.survey import Survey


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two classes of six random pictures, one of them twice, one of them broken."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(6):
            pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{i}.png")
    (tmp_path / "data/a/copy.png").write_bytes((tmp_path / "data/a/0.png").read_bytes())
    (tmp_path / "data/b/broken.png").write_bytes(b"these are words, not an image")
    return tmp_path / "data"


def look(data: Path, cache: Path | None, min_side: int | None = None) -> tuple[Survey, list[str], str]:
    """The survey, the ids of the images that were decoded for it, and what the user was told."""
    decoded, told = [], io.StringIO()
    config = Config.of(data=str(data), split="50/50/0")
    found = survey.survey(
        "data",
        formats.read(data),
        config,
        console=Console(told),
        workers=1,
        cache=cache,
        min_side=min_side,
        keep=lambda record, pixels: decoded.append(record.id),
    )
    return found, decoded, told.getvalue()


def same(one: ImageFacts, other: ImageFacts) -> bool:
    pictures = (
        np.array_equal(one.fingerprint.grey, other.fingerprint.grey),
        np.array_equal(one.fingerprint.colour, other.fingerprint.colour),
    )
    return one == other and all(pictures)


def test_images_that_were_seen_are_not_decoded_again_and_nothing_else_changes(data: Path, tmp_path: Path) -> None:
    first, decoded, _ = look(data, tmp_path / "cache")
    assert len(decoded) == 13
    again, decoded, told = look(data, tmp_path / "cache")
    assert decoded == [] and "13 images were seen before" in told
    plain, decoded, _ = look(data, None)
    assert len(decoded) == 13
    for other in (again, plain):
        assert other.manifest == first.manifest
        assert list(other.facts) == list(first.facts)
        assert all(same(other.facts[image_id], first.facts[image_id]) for image_id in first.facts)
        assert list(other.pairs) == list(first.pairs) and len(first.pairs) == 1
        assert other.left_out == first.left_out and len(first.left_out) == 1


def test_changed_and_new_images_are_looked_at_and_compared(data: Path, tmp_path: Path) -> None:
    look(data, tmp_path / "cache")
    (data / "a/5.png").write_bytes((data / "b/5.png").read_bytes())  # a copy now, under an old name
    Image.new("RGB", (30, 30), "red").save(data / "b/new.png")
    found, decoded, _ = look(data, tmp_path / "cache")
    assert decoded == ["b/new.png"]  # the copy's bytes were seen
    assert {(pair.first, pair.second) for pair in found.pairs} == {("a/0.png", "a/copy.png"), ("a/5.png", "b/5.png")}
    assert look(data, tmp_path / "cache")[1] == []


def test_another_scale_is_another_look(data: Path, tmp_path: Path) -> None:
    look(data, tmp_path / "cache")
    assert len(look(data, tmp_path / "cache", min_side=32)[1]) == 13


@pytest.mark.parametrize("damage", ["cut", "emptied", "words", "another version"])
def test_damaged_memories_are_made_anew(
    data: Path, tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    look(data, tmp_path / "cache")
    (kept,) = (tmp_path / "cache/scans").iterdir()
    if damage == "another version":
        monkeypatch.setattr(scan_cache, "_CONDITIONS", "of another decoder")
    else:
        content = kept.read_bytes()
        kept.write_bytes({"cut": content[: len(content) // 2], "emptied": b"", "words": b"nothing of use"}[damage])
    assert len(look(data, tmp_path / "cache")[1]) == 13
    assert look(data, tmp_path / "cache")[1] == []


def test_single_wrong_bits_never_end_a_run(data: Path, tmp_path: Path) -> None:
    look(data, tmp_path / "cache")
    (kept,) = (tmp_path / "cache/scans").iterdir()
    content = bytearray(kept.read_bytes())
    for place in np.random.default_rng(0).integers(0, min(len(content), 400), 150).tolist():
        content[place] ^= 1 << place % 8
        kept.write_bytes(content)
        assert len(scan_cache.load(kept).facts) in (0, 12)
        content[place] ^= 1 << place % 8


def test_folders_may_have_names_that_are_no_text(tmp_path: Path) -> None:
    assert scan_cache.place_of(tmp_path, "caf\udce9", None) != scan_cache.place_of(tmp_path, "cafe", None)


def test_a_cache_that_cannot_be_written_is_told_and_no_error(data: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where a folder is needed")
    found, decoded, told = look(data, tmp_path / "cache")
    assert len(decoded) == len(found.facts) == 13
    assert "is not kept" in told
