"""What one look at every image promises."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from snellen.core.record import Record
from snellen.data.image import decode
from snellen.data.scan import scan, worthwhile_threads


def record(path: Path) -> Record:
    return Record(id=path.name, path=path, labels=("a",))


@pytest.fixture
def pictures(tmp_path: Path) -> list[Record]:
    """Nine random PNGs of different sizes."""
    rng = np.random.default_rng(0)
    for i in range(9):
        pixels = rng.integers(0, 256, (20 + i, 40 - i, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    return [record(path) for path in sorted(tmp_path.iterdir())]


def test_every_image_has_facts_or_a_reason(pictures: list[Record], tmp_path: Path) -> None:
    (tmp_path / "4.png").write_bytes((tmp_path / "4.png").read_bytes()[:300])
    (tmp_path / "5.png").write_bytes(b"")
    (tmp_path / "6.png").write_bytes(b"these are words, not an image")
    (tmp_path / "7.png").unlink()
    found = scan(pictures)
    assert list(found.facts) == ["0.png", "1.png", "2.png", "3.png", "8.png"]
    assert [each.path for each in found.left_out] == ["4.png", "5.png", "6.png", "7.png"]
    reasons = [each.reason for each in found.left_out]
    assert "0 bytes" in reasons[1] and "not an image" in reasons[2] and "does not exist" in reasons[3]
    assert not any(str(tmp_path) in reason or "uploaded" in reason for reason in reasons)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are a Unix thing")
def test_a_named_pipe_is_left_out_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert [each.path for each in scan([record(tmp_path / "pipe.png")]).left_out] == ["pipe.png"]


def test_facts_agree_with_numpy(pictures: list[Record]) -> None:
    for image_id, facts in scan(pictures).facts.items():
        path = next(each.path for each in pictures if each.id == image_id)
        pixels = decode(path)
        luma = np.asarray(Image.fromarray(pixels).convert("L")) / 255
        scaled = pixels.reshape(-1, 3) / 255
        assert (facts.height, facts.width) == pixels.shape[:2]
        assert facts.brightness == pytest.approx(luma.mean())
        assert facts.contrast == pytest.approx(luma.std())
        assert facts.channel_means == pytest.approx(scaled.mean(axis=0))
        assert facts.channel_squares == pytest.approx((scaled**2).mean(axis=0))
        assert facts.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert (facts.mode, facts.format, facts.orientation) == ("RGB", "PNG", 1)


def test_size_is_that_of_the_upright_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "turned.jpg", exif=exif)
    facts = scan([record(tmp_path / "turned.jpg")]).facts["turned.jpg"]
    assert (facts.width, facts.height, facts.orientation) == (20, 30, 6)


def test_pixel_hash_sees_pixels_and_shape_but_not_the_file(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(pixels).save(tmp_path / "b.bmp")
    Image.fromarray(pixels.reshape(12, 8, 3)).save(tmp_path / "c.png")
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(tmp_path / "d.png")
    facts = scan([record(path) for path in sorted(tmp_path.iterdir())]).facts
    assert facts["a.png"].pixel_hash == facts["b.bmp"].pixel_hash
    assert len({each.pixel_hash for each in facts.values()}) == 3
    assert len({each.sha256 for each in facts.values()}) == 4


def test_keep_gets_the_pixels_of_every_image_that_has_facts(pictures: list[Record], tmp_path: Path) -> None:
    (tmp_path / "3.png").write_bytes(b"broken")
    kept: dict[str, np.ndarray] = {}
    found = scan(pictures, keep=lambda each, pixels: kept.update({each.id: pixels}), workers=4)
    assert kept.keys() == found.facts.keys()
    for each in pictures:
        if each.id in kept:
            np.testing.assert_array_equal(kept[each.id], decode(each.path))


@pytest.mark.parametrize("workers", [1, 3])
def test_result_does_not_depend_on_the_number_of_threads(pictures: list[Record], workers: int) -> None:
    expected, found = scan(pictures, workers=2), scan(pictures, workers=workers)
    assert list(found.facts.items()) == list(expected.facts.items())


def test_progress_counts_to_the_end(pictures: list[Record]) -> None:
    told: list[tuple[int, int]] = []
    scan(pictures, progress=lambda done, total: told.append((done, total)))
    assert told == [(i, 9) for i in range(1, 10)]


def test_few_images_are_in_flight(pictures: list[Record]) -> None:
    started: list[str] = []
    ahead: list[int] = []
    scan(
        pictures * 10,
        workers=1,
        keep=lambda each, _: started.append(each.id),
        progress=lambda done, _: ahead.append(len(started) - done),
    )
    assert max(ahead) <= 8


def test_an_interrupt_stops_the_scan_and_its_threads(pictures: list[Record]) -> None:
    looked_at: list[str] = []

    def interrupt(done: int, _: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan(pictures * 50, keep=lambda each, _: looked_at.append(each.id), progress=interrupt)
    assert len(looked_at) < 30
    assert not any(thread.name.startswith("snellen-scan") for thread in threading.enumerate())


def test_an_error_of_keep_is_raised_not_taken_for_a_broken_image(pictures: list[Record]) -> None:
    def full(_: Record, __: np.ndarray) -> None:
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        scan(pictures, keep=full)


def test_small_files_are_read_by_one_thread(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, side in (("small", 16), ("large", 80)):
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(tmp_path / name / f"{i}.png")
    small, large = ([record(path) for path in (tmp_path / name).iterdir()] for name in ("small", "large"))
    assert worthwhile_threads(small, 4) == 1
    assert worthwhile_threads(large, 4) == 4
    assert worthwhile_threads([record(tmp_path / "gone.png")], 4) == 4
    assert worthwhile_threads([], 0) == 1
