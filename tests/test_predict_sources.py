"""Which images are meant: files, folders, lists; in order, one after another, and under names that cannot collide."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predict_cases import Eyes
from snellen.core.errors import ConfigError, DataError, ImageError
from snellen.predict.images import ImageFile, SourceImage, shared_stems
from snellen.predict.predictor import Predictor
from snellen.predict.sources import Images
from snellen.predict.writers.base import file_for


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return folder


def names_of(*given: Any, **options: Any) -> list[str]:
    return [image.name for image in Images(given, **options)]


def test_a_folder_is_the_images_in_it_in_the_order_of_their_paths(tmp_path: Path) -> None:
    names = ("b.jpg", "a/2.PNG", "a/10.webp", "a.b/1.jpg", "a/deep/er/z.tif", "B/x.gif")
    touch(tmp_path, *names, "note.md", ".hidden.jpg", ".git/x.jpg", "a/clip.mp4", "list.txt")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "round").symlink_to(tmp_path)
    (tmp_path / "link.jpg").symlink_to(tmp_path / "b.jpg")
    (tmp_path / "lost.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "round.jpg").symlink_to(tmp_path)
    found = names_of(tmp_path)
    assert found == [str(path) for path in sorted(tmp_path / name for name in (*names, "link.jpg", "lost.jpg"))]
    assert Images([tmp_path]).total == len(names) + 2


def test_an_image_of_a_folder_that_is_a_link_to_nowhere_is_told_and_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "lost.jpg").symlink_to(tmp_path / "nowhere")
    [lost] = Images([tmp_path])
    with pytest.raises(ImageError, match="lost"):
        lost.read()


def test_a_folder_is_named_as_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "photos/a.jpg")
    monkeypatch.chdir(tmp_path)
    assert names_of("photos") == names_of("./photos/") == ["photos/a.jpg"]
    assert names_of(".") == ["photos/a.jpg"]


def test_a_list_names_files_beside_it(tmp_path: Path) -> None:
    touch(tmp_path, "photos/ä b.jpg", "photos/#1.jpg", "other/c.png")
    lines = ["\ufeffä b.jpg", "", "  # a comment", "#1.jpg", "./#1.jpg  ", "../other/c.png"]
    lines.append(str(tmp_path / "other/c.png"))
    (tmp_path / "photos/list.TXT").write_bytes("\r\n".join(lines).encode())
    assert [os.path.relpath(name, tmp_path) for name in names_of(tmp_path / "photos/list.TXT")] == [
        "photos/ä b.jpg",
        "photos/#1.jpg",
        "photos/../other/c.png" if False else "other/c.png",
        "other/c.png",
    ]
    assert {image.key for image in Images([tmp_path / "photos/list.TXT"])} == {
        "photos/ä b.jpg",
        "photos/#1.jpg",
        "other/c.png",
    }


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a.jpg\n\nnope.jpg\n", r"list\.txt, line 3: .*nope\.jpg does not exist; paths in a list are relative"),
        (b"a.jpg\nsub\n", r"line 2: .*sub is a folder"),
        (b"list.txt\n", r"line 1: .*list\.txt is a list itself"),
        (b"a.jpg\n\xff\xfe\n", r"list\.txt is no list of images: give UTF-8 text"),
        (b"a\0b.jpg\n", r"line 1: .* does not exist"),
        (b"# nothing\n", r"list\.txt holds no images"),
    ],
)
def test_a_wrong_list_is_refused_before_any_work(content: bytes, words: str, tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "sub/b.jpg")
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(DataError, match=words):
        Images([tmp_path / "a.jpg", tmp_path / "list.txt"])


@pytest.mark.parametrize(
    ("given_", "words"),
    [
        ([], "no images were given"),
        ([""], "empty name"),
        (["nope.jpg"], "nope.jpg does not exist"),
        (["photos", "nope"], "nope does not exist"),
        (["empty"], "empty holds no images"),
    ],
)
def test_a_wrong_path_is_refused_before_any_work(
    given_: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "photos/a.jpg", "empty/note.md")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=words):
        Images(given_)


@pytest.mark.parametrize("every", [0, -1, True, 1.5])
def test_a_step_is_a_whole_number(every: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give a whole number from 1"):
        Images([touch(tmp_path, "a.jpg")], every=every)


def test_steps_without_a_video_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="every = 2 counts frames, and there is no video: leave it out"):
        Images([touch(tmp_path, "a.jpg")], every=2)


def test_what_is_written_among_the_images_is_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "runs/out/pictures/a.jpg", "runs/other.jpg")
    images = Images([tmp_path], without=tmp_path / "runs" / "out")
    assert [image.key for image in images] == ["a.jpg", "runs/other.jpg"]


def test_images_of_several_places_are_told_apart(tmp_path: Path) -> None:
    touch(tmp_path, "one/x.jpg", "two/x.jpg", "two/sub/x.jpg")
    images = Images([tmp_path / "one" / "x.jpg", tmp_path / "two"])
    assert [image.key for image in images] == ["one/x.jpg", "two/sub/x.jpg", "two/x.jpg"]
    assert [image.place for image in images] == ["one/x", "two/sub/x", "two/x"]


STEMS = st.sampled_from(["x", "X", "x.jpg", "y", "x.png.jpg", "..y", "a" * 248, "ü" * 124, "-", "a\nb", "=1"])
SUFFIXES = st.sampled_from([".jpg", ".png", ".JPG", ".jpeg"])
FOLDERS = st.sampled_from(["", "sub/", "sub/x.jpg/", "x/"])


@given(st.sets(st.tuples(FOLDERS, STEMS, SUFFIXES).map("".join), min_size=1), st.sampled_from([".webp", ".txt"]))
def test_what_is_written_has_a_name_of_its_own_below_the_folder(names: set[str], suffix: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        root, out = Path(place, "in"), Path(place, "out")
        there = [name for name in sorted(names) if len(os.fsencode(PurePosixPath(name).name)) <= 255]
        for name in there:
            if not any(part in names for part in map(str, PurePosixPath(name).parents)):
                touch(root, name)
        shared_stems.cache_clear()
        files = [ImageFile(path, str(path.relative_to(root))) for path in sorted(root.rglob("*")) if path.is_file()]
        written = [file_for(out, image, suffix) for image in files]
        assert len(set(written)) == len(files)
        for path in written:
            assert path.is_relative_to(out) and ".." not in path.relative_to(out).parts
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")


def test_a_name_keeps_its_suffix_only_where_it_must(tmp_path: Path) -> None:
    touch(tmp_path, "x.jpg", "x.png", "y.jpg", "y.txt", "Z.jpg", "z.JPG")
    shared_stems.cache_clear()
    places = {image.key: image.place for image in Images([tmp_path])}
    assert places == {"x.jpg": "x.jpg", "x.png": "x.png", "y.jpg": "y", "Z.jpg": "Z.jpg", "z.JPG": "z.JPG"}


class Held:
    """A frame that is in memory until it is read."""

    holds_pixels = True
    name = key = place = "frame"
    alive = 0
    most = 0

    def __init__(self) -> None:
        Held.alive += 1
        Held.most = max(Held.most, Held.alive)

    def size(self) -> tuple[int, int]:
        return 8, 8

    def read(self, min_side: int | None = None) -> Any:
        import numpy as np

        Held.alive -= 1
        return self.size(), np.zeros((8, 8, 3), np.uint8)


def test_few_frames_wait_in_memory_and_few_images_are_read_ahead() -> None:
    taken = 0

    def frames() -> Iterator[SourceImage]:
        nonlocal taken
        for _ in range(100):
            taken += 1
            yield Held()

    eyes = Eyes("regression")
    for done, _ in enumerate(Predictor(eyes).answers(frames()), start=1):
        assert taken <= done + 3 * eyes.batch
    assert taken == 100 and Held.alive == 0
    assert Held.most <= 6
