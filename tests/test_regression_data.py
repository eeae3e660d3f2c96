"""Numbers to be predicted: how tables and folders of them are read, left out, divided and audited."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from listings import left_out, put
from snellen.core.config import Config
from snellen.core.errors import DataError
from snellen.core.record import Listing, Record
from snellen.data.duplicates import Duplicate
from snellen.data.formats import folder, read, table
from snellen.data.manifest import Manifest
from snellen.data.split import split
from snellen.data.survey import task_of


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return put(tmp_path, *(f"{i}.jpg" for i in range(1, 9)))


def csv_file(place: Path, text: str, name: str = "t.csv") -> Path:
    (place / name).write_text(text, encoding="utf-8")
    return place / name


def values(listing: Listing) -> dict[str, tuple[float, ...] | None]:
    return {record.id: record.values for record in listing.records}


# ---- tables


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", "image,age\n1.jpg,23\n2.jpg,-4.5e1\n"),
        ("t.csv", "age,image\n 23 ,1.jpg\n-45.,2.jpg\n"),
        ("t.csv", "Image;age\n1.jpg;23\n2.jpg;-45,0\n"),
        ("t.tsv", "filename\tage\n1.jpg\t+23.0\n2.jpg\t-45\n"),
        ("t.csv", ",image,age\n0,1.jpg,23\n1,2.jpg,-45\n"),
        ("t.csv", "Unnamed: 0,id,image,age,remark\n0,7,1.jpg,23,young\n1,8,2.jpg,-45,\n"),
        ("t.csv", "image,label,age\n1.jpg,cat,23\n2.jpg,dog,-45\n"),
        ("t.csv", "image,split,age,group\n1.jpg,train,23,1\n2.jpg,test,-45,2\n"),
    ],
)
def test_tables_of_numbers_as_people_write_them(photos: Path, name: str, text: str) -> None:
    listing = read(csv_file(photos, text, name), numeric=True)
    assert values(listing) == {"1.jpg": (23.0,), "2.jpg": (-45.0,)}
    assert (listing.classes, listing.numeric, listing.left_out) == (("age",), True, ())
    assert listing.notes[0].startswith("to be predicted: age")
    assert all(record.labels == () for record in listing.records)


def test_every_column_of_numbers_is_an_output_under_its_own_name(photos: Path) -> None:
    listing = read(csv_file(photos, "image,weight,name,age\n1.jpg,60,Ann,23\n2.jpg,70.5,Bob,30\n"), numeric=True)
    assert listing.classes == ("weight", "age")
    assert values(listing) == {"1.jpg": (60, 23), "2.jpg": (70.5, 30)}
    assert listing.notes == ("to be predicted: weight, age; columns not used: name",)


BAD_CELLS = {
    "": "no number for 'age'",
    "  ": "no number for 'age'",
    "old": "'old' for 'age' is not a finite number",
    "nan": "'nan' for 'age' is not a finite number",
    "-inf": "'-inf' for 'age' is not a finite number",
    "1e999": "'1e999' for 'age' is not a finite number",
    "1_000": "'1_000' for 'age' is not a finite number",
    "0x10": "'0x10' for 'age' is not a finite number",
    "23 years": "'23 years' for 'age' is not a finite number",
    "٣": "'٣' for 'age' is not a finite number",
}


@pytest.mark.parametrize(("cell", "reason"), BAD_CELLS.items())
def test_an_image_without_a_number_is_left_out_with_the_reason(photos: Path, cell: str, reason: str) -> None:
    rows = "".join(f"{i}.jpg,{i}.5\n" for i in (1, 2, 3))
    listing = read(csv_file(photos, f"image,age\n{rows}4.jpg,{cell}\n,7\ngone.jpg,8\n"), numeric=True)
    assert left_out(listing) == {"4.jpg": reason, "line 6": "names no image", "gone.jpg": "file not found"}
    assert listing.num_found == 6


def test_missing_parquet_cells_are_missing_numbers(photos: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    columns = {"image": ["1.jpg", "2.jpg", "3.jpg"], "age": [1.5, None, float("nan")]}
    pyarrow.parquet.write_table(pyarrow.table(columns), photos / "t.parquet")
    listing = read(photos / "t.parquet", numeric=True)
    assert values(listing) == {"1.jpg": (1.5,)}
    reasons = {"2.jpg": "no number for 'age'", "3.jpg": "'nan' for 'age' is not a finite number"}
    assert left_out(listing) == reasons


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,label\n1.jpg,cat\n2.jpg,dog\n", r"no column of numbers to predict beside the images, but 'label'; add"),
        ("image\n1.jpg\n", "no column of numbers to predict beside the images, but no other"),
        ("image,id\n1.jpg,1\n2.jpg,2\n", "no column of numbers to predict"),
        ("image,age,age\n1.jpg,1,2\n2.jpg,2,2\n", "has two columns 'age'; rename one"),
        ("image,age\n1.jpg,1\n1.jpg,2\n", r"'1.jpg' is in line 2 and in line 3; remove one"),
        ("image,age,size\n1.jpg,1,nan\n2.jpg,,2\n", "no image has a number in 'age' and 'size'"),
        ("age,weight\n1,2\n", "no column 'image', but 'age', 'weight'"),
        ("image,age\n", "has a header but no rows"),
    ],
)
def test_a_table_that_cannot_be_used_says_why_in_one_line(photos: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read(csv_file(photos, text), numeric=True)
    assert "\n" not in str(caught.value)


def test_a_table_without_labels_hints_at_regression(photos: Path) -> None:
    with pytest.raises(DataError, match=r"no column 'label', but 'image', 'age'.*give --task regression"):
        read(csv_file(photos, "image,age\n1.jpg,23\n2.jpg,45\n"))


def test_a_column_that_is_often_empty_is_told_of(photos: Path) -> None:
    rows = "".join(f"{i}.jpg,{i},{i if i < 6 else ''}\n" for i in range(1, 9))
    listing = read(csv_file(photos, f"image,age,weight\n{rows}"), numeric=True)
    assert any("'weight' is empty for 38% of the rows, which are left out" in note for note in listing.notes)
    assert len(listing.records) == 5 and len(listing.left_out) == 3


FINITE = st.floats(-1e30, 1e30, allow_nan=False)


@settings(max_examples=25)
@given(st.lists(st.tuples(FINITE, FINITE), min_size=1, max_size=4), st.sampled_from(["csv", "tsv", "parquet"]))
def test_any_numbers_survive_a_table(
    tmp_path_factory: pytest.TempPathFactory, numbers: list[tuple[float, float]], suffix: str
) -> None:
    root = tmp_path_factory.mktemp("data")
    put(root, *(f"{i}.jpg" for i in range(len(numbers))))
    records = [Record(id=f"{i}.jpg", path=root / f"{i}.jpg", values=pair_) for i, pair_ in enumerate(numbers)]
    table.write(Listing(root=root, format="made", records=records, classes=("a", "größe, kg")), root / f"t.{suffix}")
    again = read(root / f"t.{suffix}", numeric=True)
    assert values(again) == {record.id: record.values for record in records}
    assert again.classes == ("a", "größe, kg")


@pytest.mark.parametrize("name", ["group", "file name", " age", "id"])
def test_a_column_that_would_read_back_as_something_else_is_not_written(tmp_path: Path, name: str) -> None:
    records = [Record(id="1", path=tmp_path, values=(1.0,))]
    listing = Listing(root=tmp_path / "in", format="made", records=records, classes=(name,))
    with pytest.raises(DataError, match="would not be read back as numbers; rename it"):
        table.write(listing, tmp_path / "t.csv")
    with pytest.raises(DataError, match="this data has numbers; write a table"):
        folder.write(listing, tmp_path / "copy")


# ---- is it a number or a class? (nobody said)

MEASURED = "".join(f"{i}.jpg,{i}.{i}7\n" for i in range(1, 9))
WHOLE = "".join(f"{i}.jpg,{i}\n" for i in range(1, 9))


@pytest.mark.parametrize(
    ("header", "rows", "numeric"),
    [
        ("image,label", MEASURED, True),
        ("image,target", MEASURED, True),
        ("image,value", MEASURED, True),
        ("image,value", WHOLE, True),
        ("image,label", WHOLE, False),
        ("image,target", WHOLE, False),
        ("image,label", MEASURED.replace("8.87", "cat").replace("7.77", "dog"), False),
        ("image,label", "1.jpg,0.5\n2.jpg,0.5\n3.jpg,1.5\n4.jpg,1.5\n5.jpg,1.5\n6.jpg,0.5\n", False),
    ],
)
def test_numbers_that_measure_are_told_from_names_of_classes(
    photos: Path, header: str, rows: str, numeric: bool
) -> None:
    path = csv_file(photos, f"{header}\n{rows}")
    listing = read(path)
    assert listing.numeric == numeric
    assert task_of(Config.of(data=str(path)), listing) == ("regression" if numeric else "classification")
    said = [note for note in listing.notes if "amounts to be predicted (regression)" in note]
    assert bool(said) == numeric and all("give --task classification" in note for note in said)


@pytest.mark.parametrize("numeric", [False, None])
def test_labels_that_were_asked_for_stay_labels(photos: Path, numeric: bool | None) -> None:
    path = csv_file(photos, f"image,label\n{MEASURED}")
    listing = read(path, numeric=numeric, multi_label=False)
    assert not listing.numeric and "1.17" in listing.classes


def test_many_whole_numbers_stay_classes_and_the_doubt_is_told(tmp_path: Path) -> None:
    put(tmp_path, *(f"{i}.jpg" for i in range(25)))
    listing = read(csv_file(tmp_path, "image,label\n" + "".join(f"{i}.jpg,{i}\n" for i in range(25))))
    assert not listing.numeric
    assert listing.notes == (
        "the column 'label' has 25 different numbers, each taken for a class; if they are amounts to be predicted, "
        "give --task regression",
    )


# ---- folders named by numbers


def test_folders_named_by_numbers_are_numbers_when_asked(tmp_path: Path) -> None:
    put(tmp_path, "23/a.jpg", "23/b.jpg", "-4.5/c.jpg", "007/d.jpg", "unknown/e.jpg")
    listing = read(tmp_path, numeric=True)
    assert values(listing) == {"-4.5/c.jpg": (-4.5,), "007/d.jpg": (7.0,), "23/a.jpg": (23.0,), "23/b.jpg": (23.0,)}
    assert listing.classes == ("value",) and listing.num_found == 5
    assert left_out(listing) == {"unknown/e.jpg": "its folder 'unknown' is not a number"}
    assert read(tmp_path).classes == ("-4.5", "007", "23", "unknown")


def test_folders_of_classes_are_no_numbers(tmp_path: Path) -> None:
    put(tmp_path, "ants/a.jpg", "bees/b.jpg", "3/c.jpg")
    with pytest.raises(DataError, match="no two folders named by a number, such as 23"):
        read(tmp_path, numeric=True)


# ---- other data for a model that is there


def made(root: Path, names: tuple[str, ...], format: str = "table") -> Listing:
    records = [Record(id="1.jpg", path=root / "1.jpg", values=tuple(float(i) for i in range(len(names))))]
    return Listing(root=root, format=format, records=records, classes=names)


def test_other_data_is_matched_by_the_names_of_its_columns(tmp_path: Path) -> None:
    matched = made(tmp_path, ("weight", "junk", "age")).with_outputs(("age", "weight"))
    assert matched.classes == ("age", "weight") and values(matched) == {"1.jpg": (2.0, 0.0)}
    assert values(made(tmp_path, ("value",), "folder").with_outputs(("age",))) == {"1.jpg": (0.0,)}
    with pytest.raises(DataError, match="no column of numbers 'age', which the model predicts, but weight; rename"):
        made(tmp_path, ("weight",)).with_outputs(("age",))


# ---- dividing


def records_of(numbers: list[float]) -> list[Record]:
    return [Record(id=f"{i:04d}.jpg", path=Path("x"), values=(number,)) for i, number in enumerate(numbers)]


@pytest.mark.parametrize("skewed", [False, True])
def test_every_side_has_its_share_of_low_and_high_numbers(skewed: bool) -> None:
    numbers = np.random.default_rng(0).normal(0, 1, 400)
    numbers = np.exp(2 * numbers) if skewed else numbers
    manifest = split(records_of(numbers.tolist()), pairs=[], classes=("age",), seed=3)
    quarters = np.searchsorted(np.quantile(numbers, (0.25, 0.5, 0.75)), numbers)
    for side, share in (("train", 0.7), ("val", 0.15), ("test", 0.15)):
        chosen = [int(image_id[:4]) for image_id in manifest.ids(side)]  # type: ignore[arg-type]
        counts = np.bincount(quarters[chosen], minlength=4)
        assert abs(counts - 100 * share).max() <= 4
    assert "divided by age (in equal parts)" in manifest.reasons[0]
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_of_several_numbers_the_one_with_most_values_divides() -> None:
    rng = np.random.default_rng(1)
    records = [Record(id=f"{i:03d}", path=Path("x"), values=(float(i % 2), float(rng.normal()))) for i in range(120)]
    manifest = split(records, pairs=[], classes=("sex", "height"))
    assert "divided by height" in manifest.reasons[0]


def test_groups_and_duplicates_stay_together_whatever_their_numbers() -> None:
    numbers = np.random.default_rng(2).normal(0, 1, 120).tolist()
    records = [replace(record, group=f"patient {i // 6}") for i, record in enumerate(records_of(numbers))]
    copies = Duplicate(first="0000.jpg", second="0119.jpg", kind="exact", similarity=1.0)
    manifest = split(records, pairs=[copies], classes=("age",))
    side_of = {row.id: row.split for row in manifest.rows}
    assert side_of["0000.jpg"] == side_of["0119.jpg"]
    assert all(len({side_of[f"{i:04d}.jpg"] for i in range(start, start + 6)}) == 1 for start in range(0, 120, 6))


def test_a_number_that_never_changes_is_an_error() -> None:
    with pytest.raises(DataError, match="every train image has the same 'age', 3: there is nothing to learn"):
        split(records_of([3.0] * 50), pairs=[], classes=("age",))


def test_the_hash_of_a_division_follows_the_numbers_and_that_of_classes_knows_of_none() -> None:
    numbers = [float(i) for i in range(30)]
    digests = {split(records_of(each), pairs=[], classes=("age",)).digest for each in (numbers, [*numbers[:-1], 29.5])}
    assert len(digests) == 2
    classes = [Record(id=str(i), path=Path("x"), labels=("ab"[i % 2],)) for i in range(30)]
    assert "values" not in split(classes, pairs=[]).to_json()["rows"][0]
