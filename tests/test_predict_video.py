"""Frames of a video as images: each with its number, decoded again where it is drawn, and few of them in memory."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from predict_cases import predictor, tree
from snellen.core.errors import ConfigError, ImageError
from snellen.predict.sources import Images
from snellen.predict.writing import write_predictions

NUM, SIZE = 14, (64, 48)


def colour_of(index: int) -> tuple[int, int, int]:
    """RGB of a frame; no two are near each other, and red is not blue."""
    return 15 * index + 20, 255 - 15 * index, 40


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    writer = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, SIZE)
    for index in range(NUM):
        writer.write(np.full((SIZE[1], SIZE[0], 3), colour_of(index)[::-1], np.uint8))
    writer.release()
    return tmp_path / "clip.avi"


@pytest.mark.parametrize("every", [1, 5])
def test_frames_have_their_numbers_and_their_colours(clip: Path, every: int) -> None:
    frames = list(Images([clip], every=every))
    assert [frame.name for frame in frames] == [f"{clip}#{index:06d}" for index in range(0, NUM, every)]
    assert [frame.place for frame in frames] == [f"clip.avi/{index:06d}" for index in range(0, NUM, every)]
    for index, frame in zip(range(0, NUM, every), frames, strict=True):
        size, pixels = frame.read()
        assert size == frame.size() == SIZE and pixels.shape == (SIZE[1], SIZE[0], 3)
        assert np.abs(pixels.astype(int) - colour_of(index)).max() < 12
        again = frame.read()[1]
        assert np.array_equal(again, pixels)


def test_frames_are_read_again_in_any_order(clip: Path) -> None:
    frames = list(Images([clip]))
    first = [frame.read()[1] for frame in frames]
    for index in (9, 3, 4, 13, 0):
        assert np.array_equal(frames[index].read()[1], first[index])
    clip.write_bytes(b"gone")
    with pytest.raises(ImageError, match=r"clip\.avi has no frame 0 any more"):
        frames[0].read()


def test_a_video_among_images_is_predicted_frame_by_frame_and_drawn(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    images = Images([tmp_path / "broken.mp4", clip], every=6)
    assert images.total is None
    files = write_predictions(
        predictor("segmentation"), images, tmp_path / "out", ["masks", "pictures", "jsonl"], asked={}
    )
    assert (files.num_images, files.num_errors) == (4, 1)
    (error,) = files.errors()
    assert error == {
        "path": str(tmp_path / "broken.mp4"),
        "error": f"{tmp_path / 'broken.mp4'} cannot be decoded as a video",
    }
    drawn = [f"clip.avi/{index:06d}" for index in (0, 6, 12)]
    assert set(tree(files.formats["masks"])) == {f"{name}.png" for name in drawn}
    assert set(tree(files.formats["pictures"])) == {f"{name}.webp" for name in drawn}


def test_without_opencv_a_video_is_refused_with_the_name_of_the_extra(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ConfigError, match=r"clip\.avi is a video, and .*: pip install 'snellen\[video\]'"):
        Images([clip])
