from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from listings import facts, ids, put
from snellen.core.errors import DataError, StorageError
from snellen.core.record import LeftOut, Listing, Record
from snellen.data.formats import FORMATS, load, read

# ---- the contract of every format


def listing_of(root: Path, *, split: bool) -> Listing:
    """Two classes in a layout that every format can hold."""
    records = []
    for i, (name, label) in enumerate([("b/2.jpg", "b"), ("a/1.png", "a"), ("a/x/1.png", "a"), ("b/é ü.jpg", "b")]):
        side = ("train", "train", "test", "test")[i] if split else None
        id = f"{side}/{name}" if side else name
        put(root, id)
        records.append(Record(id=id, path=root / id, labels=(label,), split=side))
    return Listing(
        root=root,
        format="made",
        records=tuple(sorted(records, key=lambda record: record.id)),
        classes=("a", "b"),
        left_out=(LeftOut(path="x", reason="y"),),
    )


def written(name: str, listing: Listing, target: Path) -> tuple[Path, Path | None]:
    """Write a listing in one format: where it is now, and what ``images`` must be to read it."""
    target = target / "out.csv" if name == "table" else target / "out"
    load(name).write(listing, target)
    return target, listing.root if name == "table" else None


@pytest.mark.parametrize("name", ["folder", "table"])  # those of marks have suites of their own
@pytest.mark.parametrize("split", [False, True])
class TestEveryFormat:
    def test_what_is_written_reads_back_the_same(self, tmp_path: Path, name: str, split: bool) -> None:
        listing = listing_of(tmp_path / "in", split=split)
        target, images = written(name, listing, tmp_path)
        again = read(target, images=images)
        assert facts(again) == facts(listing)
        assert again.format == name
        assert again.left_out == ()
        assert again.has_user_split == split

    def test_records_are_unique_sorted_and_absolute(self, tmp_path: Path, name: str, split: bool) -> None:
        target, images = written(name, listing_of(tmp_path / "in", split=split), tmp_path)
        listing = read(os.path.relpath(target), images=images)
        assert ids(listing) == sorted(set(ids(listing)))
        assert all(record.path.is_absolute() and record.path.is_file() for record in listing.records)
        assert all(Path(os.path.normpath(listing.root / record.id)) == record.path for record in listing.records)

    def test_writing_refuses_what_is_there_already(self, tmp_path: Path, name: str, split: bool) -> None:
        listing = listing_of(tmp_path / "in", split=split)
        target, _ = written(name, listing, tmp_path)
        before = sorted(path for path in tmp_path.rglob("*"))
        with pytest.raises(DataError, match="exists"):
            load(name).write(listing, target)
        assert sorted(path for path in tmp_path.rglob("*")) == before

    def test_failed_writing_leaves_nothing_behind(
        self, tmp_path: Path, name: str, split: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*rest: object) -> None:
            raise OSError(28, "No space left on device")

        listing = listing_of(tmp_path / "in", split=split)
        monkeypatch.setattr("os.replace", full)
        with pytest.raises(StorageError, match="No space left"):
            written(name, listing, tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["in"]

    def test_only_its_own_layout_matches(self, tmp_path: Path, name: str, split: bool) -> None:
        target, _ = written(name, listing_of(tmp_path / "in", split=split), tmp_path)
        assert [other for other in FORMATS if load(other).matches(target)] == [name]


# ---- choosing the format


def test_missing_path_names_the_nearest_one(tmp_path: Path) -> None:
    put(tmp_path, "flowers/a/1.jpg", "labels.csv")
    with pytest.raises(DataError, match=r"flower does not exist; did you mean 'flowers'\?"):
        read(tmp_path / "flower")
    with pytest.raises(DataError, match="nor does the folder"):
        read(tmp_path / "no" / "such")


def test_a_file_of_another_kind_is_refused_with_what_would_do(tmp_path: Path) -> None:
    put(tmp_path, "archive.zip")
    with pytest.raises(DataError, match="in no format that can be read; give a folder"):
        read(tmp_path / "archive.zip")
    with pytest.raises(DataError, match="unknown data format 'tabel'; did you mean 'table'"):
        load("tabel")


def test_reading_a_folder_or_a_csv_imports_no_heavy_package(tmp_path: Path) -> None:
    put(tmp_path, "a/1.jpg", "b/1.jpg")
    (tmp_path / "t.csv").write_text("image,label\na/1.jpg,a\nb/1.jpg,b\n")
    program = (
        f"import sys; from snellen.data.formats import read; read({str(tmp_path)!r}); "
        f"read({str(tmp_path / 't.csv')!r}); "
        "print(sorted({'torch', 'sklearn', 'pyarrow', 'scipy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"
