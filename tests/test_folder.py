from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from listings import ids, left_out, put
from snellen.core.errors import DataError
from snellen.core.record import Listing, Record
from snellen.data.formats import folder, read


def test_first_folder_is_the_class_however_deep_the_image(tmp_path: Path) -> None:
    listing = read(put(tmp_path, "cat/1.jpg", "cat/2024/may/1.JPG", "dog/1.png"))
    assert {record.id: record.labels for record in listing.records} == {
        "cat/1.jpg": ("cat",),
        "cat/2024/may/1.JPG": ("cat",),
        "dog/1.png": ("dog",),
    }
    assert not listing.has_user_split


@pytest.mark.parametrize(
    ("spelling", "split"), [("val", "val"), ("Valid", "val"), ("VALIDATION", "val"), ("Test", "test")]
)
def test_split_folders_are_known_in_any_case(tmp_path: Path, spelling: str, split: str) -> None:
    listing = read(put(tmp_path, "Train/a/1.jpg", "Train/b/1.jpg", f"{spelling}/a/1.jpg"))
    assert {record.id: record.split for record in listing.records} == {
        "Train/a/1.jpg": "train",
        "Train/b/1.jpg": "train",
        f"{spelling}/a/1.jpg": split,
    }


def test_a_class_missing_from_one_split_keeps_its_id(tmp_path: Path) -> None:
    listing = read(put(tmp_path, "train/b/1.jpg", "train/c/1.jpg", "test/a/1.jpg"))
    assert listing.classes == ("a", "b", "c")


def test_classes_named_like_splits_stay_classes(tmp_path: Path) -> None:
    listing = read(put(tmp_path, "train/1.jpg", "bus/1.jpg", "car/1.jpg"))
    assert listing.classes == ("bus", "car", "train")


def test_everything_not_used_is_named_with_a_reason(tmp_path: Path) -> None:
    put(tmp_path, "cat/1.jpg", "dog/1.jpg", "cat/.hidden.jpg", "cat/notes.txt", "cat/README", "cat/p.heic", "cover.jpg")
    put(tmp_path, "cat/Thumbs.db", "dog/desktop.ini", "dog/.DS_Store", ".ipynb_checkpoints/1.jpg", "__MACOSX/cat/1.jpg")
    put(tmp_path, "bird/list.txt", "cat/deep/.cache/1.jpg")
    (tmp_path / "empty").mkdir()
    listing = read(tmp_path)
    assert ids(listing) == ["cat/1.jpg", "dog/1.jpg"]
    assert listing.classes == ("cat", "dog")
    assert left_out(listing) == {
        ".ipynb_checkpoints/": "hidden folder",
        "__MACOSX/": "folder of the operating system",
        "bird/": "class folder without images",
        "bird/list.txt": "not an image by its suffix .txt",
        "cat/.hidden.jpg": "hidden file",
        "cat/README": "not an image: its name has no suffix",
        "cat/Thumbs.db": "file of the operating system",
        "cat/deep/.cache/": "hidden folder",
        "cat/notes.txt": "not an image by its suffix .txt",
        "cat/p.heic": "HEIC cannot be read; convert it to JPEG",
        "cover.jpg": "not in a class folder",
        "dog/.DS_Store": "hidden file",
        "dog/desktop.ini": "file of the operating system",
        "empty/": "class folder without images",
    }


def test_what_stands_beside_the_splits_is_left_out(tmp_path: Path) -> None:
    listing = read(
        put(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "test/1.jpg", "test/a/1.jpg", "raw/1.jpg", "val/b/x.txt")
    )
    assert ids(listing) == ["test/a/1.jpg", "train/a/1.jpg", "train/b/1.jpg"]
    assert left_out(listing) == {
        "raw/1.jpg": "beside the folders of the splits",
        "test/1.jpg": "not in a class folder",
        "val/b/": "class folder without images",
        "val/b/x.txt": "not an image by its suffix .txt",
    }


NAMES = st.sampled_from(
    ["a", "b", "train", "test", "val", ".git", "__MACOSX", "1.jpg", "2.PNG", "x.txt", "noext", ".s.jpg"]
)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(NAMES, min_size=1, max_size=4), max_size=12))
def test_every_file_is_a_record_or_left_out(tmp_path_factory: pytest.TempPathFactory, paths: list[list[str]]) -> None:
    root = tmp_path_factory.mktemp("data")
    for parts in [["a", "0.jpg"], ["b", "0.jpg"], ["train", "a", "0.jpg"], ["train", "b", "0.jpg"], *paths]:
        path = root.joinpath(*parts)
        if not any(parent.is_file() for parent in path.parents) and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
    listing = read(root)
    known = ids(listing) + [item.path for item in listing.left_out]
    assert len(set(known)) == len(known) == listing.num_found
    closed = tuple(path for path in left_out(listing) if path.endswith("/"))
    for path in root.rglob("*"):
        relative = path.relative_to(root).as_posix()
        if path.is_file():
            assert relative in known or relative.startswith(closed)
    assert set(ids(listing)).isdisjoint(left_out(listing))


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    root = put(tmp_path / "data", "cat/1.jpg", "dog/1.jpg")
    put(tmp_path / "else", "1.jpg", "more/2.jpg")
    (root / "cat/linked.jpg").symlink_to(tmp_path / "else/1.jpg")
    (root / "fox").symlink_to(tmp_path / "else")
    (root / "fox2").symlink_to(tmp_path / "else")
    (root / "cat/up").symlink_to(root)
    (root / "cat/top").symlink_to(tmp_path)
    (root / "another dog").symlink_to(root / "dog")
    (root / "cat/gone.jpg").symlink_to(tmp_path / "nothing.jpg")
    (root / "cat/self.jpg").symlink_to(root / "cat/self.jpg")
    os.mkfifo(root / "cat/pipe.jpg")
    listing = read(root)
    kept = [name for name in ("fox", "fox2") if f"{name}/1.jpg" in ids(listing)]
    assert len(kept) == 1
    other = "fox" if kept == ["fox2"] else "fox2"
    assert sorted(ids(listing)) == sorted(
        ["cat/1.jpg", "cat/linked.jpg", "dog/1.jpg", f"{kept[0]}/1.jpg", f"{kept[0]}/more/2.jpg"]
    )
    assert left_out(listing) == {
        "another dog/": "link to a folder that is read already",
        "cat/gone.jpg": "link to nothing",
        "cat/pipe.jpg": "not a regular file",
        "cat/self.jpg": "link to nothing",
        "cat/top/": "link to a folder that is read already",
        "cat/up/": "link to a folder that is read already",
        f"{other}/": "link to a folder that is read already",
    }


def test_one_class_in_two_unicode_spellings_is_one_class(tmp_path: Path) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    listing = read(put(tmp_path, f"train/{composed}/1.jpg", "train/tea/1.jpg", f"val/{decomposed}/2.jpg"))
    assert listing.classes == (composed, "tea")


def test_a_name_that_is_not_utf8_is_left_out(tmp_path: Path) -> None:
    put(tmp_path, "a/1.jpg", "b/1.jpg")
    try:
        (tmp_path / os.fsdecode(b"a/\xff.jpg")).write_bytes(b"")
    except OSError:
        pytest.skip("the file system takes UTF-8 names only")
    listing = read(tmp_path)
    assert left_out(listing) == {"a/\\udcff.jpg": "its name is not UTF-8; rename it"}
    json.dumps([item.path for item in listing.left_out]).encode()


def test_folders_nested_a_thousand_deep_are_read(tmp_path: Path) -> None:
    put(tmp_path, "b/1.jpg", "a/1.jpg")
    deep = tmp_path / "a"
    for _ in range(1200):  # Python's own limit of recursion is 1000
        deep = deep / "d"
        deep.mkdir()
    try:
        assert ids(read(tmp_path)) == ["a/1.jpg", "b/1.jpg"]
    finally:
        for _ in range(1200):  # what cleans up after tests does recurse
            deep.rmdir()
            deep = deep.parent


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "is empty; it should hold one folder"),
        (["a.txt", "b/c.txt"], "holds no images"),
        (
            ["1.jpg", "2.jpg"],
            "holds 2 images, but not in class folders; put them in one folder for each class, or write",
        ),
        (["1.jpg", "labels.csv"], r"holds 1 image, .* give the table: .*labels\.csv"),
        (["cat/1.jpg", "dog/x.txt"], "only one class with images, 'cat'; a classifier needs two or more"),
        (
            ["photos/cat/1.jpg", "photos/dog/1.jpg"],
            "only one class with images, 'photos'; if the classes .* give .*/photos$",
        ),
        (["train/cat/1.jpg", "val/cat/1.jpg"], "only one class with images, 'cat'"),
        (["train/images/1.jpg", "train/annotations/a/2.jpg"], "no image has a mask; put images in images/"),
    ],
)
def test_an_unfit_folder_gets_one_line_that_says_what_to_do(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read(put(tmp_path, *names))
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_closed_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "a/1.jpg", "b/1.jpg")
    scandir = os.scandir

    def closed(path: Path) -> object:
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(folder.os, "scandir", closed)
    with pytest.raises(DataError, match=r"cannot read the folder .*/b: Permission denied"):
        read(tmp_path)


def test_a_folder_takes_neither_images_nor_several_labels(tmp_path: Path) -> None:
    put(tmp_path, "a/1.jpg", "b/1.jpg")
    with pytest.raises(DataError, match="--images goes with a table"):
        read(tmp_path, images=tmp_path)
    with pytest.raises(DataError, match="for several labels write a table"):
        read(tmp_path, multi_label=True)
    with pytest.raises(DataError, match="is not a folder"):
        folder.read(tmp_path / "a/1.jpg")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": ("a/b",)}, "cannot be a folder's name"),
        ({"labels": ("..",)}, "cannot be a folder's name"),
        ({"labels": (".a",)}, "cannot be a folder's name"),
        ({"labels": ("",)}, "cannot be put in a class folder"),
        ({"id": "a/1.txt"}, "not an image by its suffix"),
        ({"id": "a/.1.jpg"}, "hidden file"),
        ({"group": "g"}, "cannot hold groups"),
    ],
)
def test_class_folders_refuse_what_they_cannot_hold(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    put(tmp_path, "in/1.jpg")
    fields = {"id": "1.jpg", "path": tmp_path / "in/1.jpg", "labels": ("a",), **changes}
    listing = Listing(root=tmp_path / "in", format="made", records=(Record(**fields),), classes=fields["labels"])
    with pytest.raises(DataError, match=message):
        folder.write(listing, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_table_can_be_written_as_class_folders(tmp_path: Path) -> None:
    put(tmp_path / "in", "1.jpg", "x/1.jpg", "b/1.jpg")
    (tmp_path / "in/t.csv").write_text("image,label,split\n1.jpg,a,train\nx/1.jpg,b,test\nb/1.jpg,b,train\n")
    listing = read(tmp_path / "in/t.csv")
    with pytest.raises(DataError, match="inside the data"):
        folder.write(listing, tmp_path / "in/out")
    folder.write(listing, tmp_path / "out")
    assert ids(read(tmp_path / "out")) == ["test/b/x/1.jpg", "train/a/1.jpg", "train/b/b/1.jpg"]
    multi = Listing(**{**{f: getattr(listing, f) for f in Listing.__slots__}, "multi_label": True})
    with pytest.raises(DataError, match="write a table"):
        folder.write(multi, tmp_path / "multi")


def test_classes_that_would_read_back_as_splits_are_refused(tmp_path: Path) -> None:
    root = put(tmp_path / "in", "1.jpg", "2.jpg")
    records = tuple(Record(id=f"{c}.jpg", path=root / "1.jpg", labels=(c,)) for c in ("test", "train"))
    with pytest.raises(DataError, match="read back as splits"):
        folder.write(Listing(root=root, format="made", records=records, classes=("test", "train")), tmp_path / "o")
