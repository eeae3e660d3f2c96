from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from listings import facts, ids, left_out, put
from snellen.core.errors import DataError
from snellen.core.record import Listing, Record
from snellen.data.formats import read, table


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return put(tmp_path, "1.jpg", "2.jpg", "3.jpg", "sub/4.jpg")


def csv_file(folder: Path, text: str | bytes, name: str = "t.csv") -> Path:
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return folder / name


PLAIN = "image,label\n1.jpg,cat\n2.jpg,dog\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", PLAIN),
        ("t.CSV", PLAIN),
        ("t.csv", "\ufeff" + PLAIN),
        ("t.csv", PLAIN.replace("\n", "\r\n")),
        ("t.csv", PLAIN.rstrip()),
        ("t.csv", "\n" + PLAIN.replace("\n", "\n\n")),
        ("t.csv", PLAIN.replace(",", ";")),
        ("t.csv", PLAIN.replace(",", "\t")),
        ("t.tsv", PLAIN.replace(",", "\t")),
        ("t.csv", 'image,label\n"1.jpg","cat"\n"2.jpg","dog"\n'),
        ("t.csv", "label , Image\ncat, 1.jpg\ndog,2.jpg\n"),
        ("t.csv", "id,FileName,width,Class\n7,1.jpg,5,cat\n8,2.jpg,5,dog\n"),
        ("t.csv", "Image Path,category\n./1.jpg,cat\nsub/../2.jpg,dog\n"),
        ("t.csv", "image,path,label\n1.jpg,/elsewhere,cat\n2.jpg,/elsewhere,dog\n"),
    ],
)
def test_tables_as_people_write_them(photos: Path, name: str, text: str) -> None:
    listing = read(csv_file(photos, text, name))
    assert [(record.id, record.labels) for record in listing.records] == [("1.jpg", ("cat",)), ("2.jpg", ("dog",))]
    assert (listing.classes, listing.multi_label, listing.left_out) == (("cat", "dog"), False, ())


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
def test_class_names_stay_text(tmp_path: Path, suffix: str) -> None:
    names = ["no", "012", "1:30", "1e-3", "null", "NaN", "True", "a,b", 'q"q', "two\nlines", "🐈 Größe", "2024-01-01"]
    records = []
    for i, name in enumerate(names):
        put(tmp_path, f"{i:02d}.jpg")
        records.append(Record(id=f"{i:02d}.jpg", path=tmp_path / f"{i:02d}.jpg", labels=(name,), group=f"0{i}"))
    listing = Listing(root=tmp_path, format="made", records=tuple(records), classes=tuple(sorted(names)))
    table.write(listing, tmp_path / f"t.{suffix}")
    assert facts(read(tmp_path / f"t.{suffix}")) == facts(listing)


LABEL = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="|;"), min_size=1, max_size=5)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sets(LABEL, max_size=3), min_size=1, max_size=4), st.sampled_from(["csv", "tsv", "parquet"]))
def test_any_labels_survive_a_table(
    tmp_path_factory: pytest.TempPathFactory, labels: list[set[str]], suffix: str
) -> None:
    labels = [{"x"}, *labels]
    root = tmp_path_factory.mktemp("data")
    records = []
    for i, some in enumerate(labels):
        (root / f"{i}.jpg").write_bytes(b"")
        records.append(Record(id=f"{i}.jpg", path=root / f"{i}.jpg", labels=tuple(sorted(some))))
    classes = tuple(sorted(set().union(*labels)))
    listing = Listing(root=root, format="made", records=tuple(records), classes=classes, multi_label=True)
    table.write(listing, root / f"t.{suffix}")
    assert facts(read(root / f"t.{suffix}", multi_label=True)) == facts(listing)


def test_parquet_numbers_and_missing_values_become_text(photos: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    columns = {
        "path": ["1.jpg", "2.jpg", "3.jpg"],
        "label": pyarrow.array([7, 12, None], pyarrow.int64()),
        "thumbnail": [b"1", b"2", b"3"],
        "group": pyarrow.array(["a", "a", None]).dictionary_encode(),
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), photos / "t.parquet")
    listing = read(photos / "t.parquet")
    assert [(r.labels, r.group) for r in listing.records] == [(("7",), "a"), (("12",), "a")]
    assert left_out(listing) == {"3.jpg": "no label"}


def test_unfit_parquet_is_refused_in_one_line(photos: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    (photos / "bad.parquet").write_bytes(b"PAR1 this is not one")
    with pytest.raises(DataError, match=r"cannot read .* as Parquet") as caught:
        read(photos / "bad.parquet")
    assert "\n" not in str(caught.value)
    columns = pyarrow.table({"image": ["1.jpg"], "label": [["cat", "dog"]]})
    pyarrow.parquet.write_table(columns, photos / "lists.parquet")
    with pytest.raises(DataError, match=r"no column 'label', but 'image'; 'label' is of type list<.*not text"):
        read(photos / "lists.parquet")


def test_groups_and_splits_are_read(photos: Path) -> None:
    text = "image,label,Group,subset\n1.jpg,cat,ann,TRAIN\n2.jpg,dog,,Validation\n3.jpg,dog,bob,test\n"
    listing = read(csv_file(photos, text))
    assert [(r.group, r.split) for r in listing.records] == [("ann", "train"), (None, "val"), ("bob", "test")]
    empty = read(csv_file(photos, "image,label,split\n1.jpg,cat,\n2.jpg,dog,\n"))
    assert not empty.has_user_split


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("image,label\n1.jpg,cat|dog\n2.jpg,\n3.jpg,cat\n", [("cat", "dog"), (), ("cat",)]),
        ("image,label\n1.jpg,dog; cat\n2.jpg,dog\n", [("cat", "dog"), ("dog",)]),
        ("image,label\n1.jpg,cat|a;b\n2.jpg,dog\n", [("a;b", "cat"), ("dog",)]),
        ("image;label\n1.jpg;cat|dog\n2.jpg;dog\n", [("cat", "dog"), ("dog",)]),
        ('image;label\n1.jpg;"a;b"\n2.jpg;"c|d"\n', [("a;b",), ("c", "d")]),
        ("image,label\n1.jpg,cat|\n2.jpg,dog\n", [("cat",), ("dog",)]),
        ("image,label\n1.jpg,cat|dog\n2.jpg,cat\n2.jpg,bird\n", [("cat", "dog"), ("bird", "cat")]),
    ],
)
def test_several_labels_in_one_cell_make_the_table_multi_label(
    photos: Path, text: str, expected: list[tuple[str, ...]]
) -> None:
    listing = read(csv_file(photos, text))
    assert listing.multi_label
    assert [record.labels for record in listing.records] == expected
    assert listing.classes == tuple(sorted(set().union(*expected)))


def test_commas_do_not_separate_labels(photos: Path) -> None:
    listing = read(csv_file(photos, 'image,label\n1.jpg,"coffee, roasted"\n2.jpg,tea\n'))
    assert (listing.classes, listing.multi_label) == (("coffee, roasted", "tea"), False)


def test_multi_label_can_be_named(photos: Path) -> None:
    rows = csv_file(photos, "image,label\n1.jpg,cat\n1.jpg,dog\n2.jpg,\n")
    listing = read(rows, multi_label=True)
    assert [record.labels for record in listing.records] == [("cat", "dog"), ()]
    assert listing.multi_label
    bars = csv_file(photos, "image,label\n1.jpg,cat|dog\n2.jpg,a;b\n")
    listing = read(bars, multi_label=False)
    assert [record.labels for record in listing.records] == [("cat|dog",), ("a;b",)]
    assert not listing.multi_label


def test_images_are_found_where_the_user_says(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    text = f"image,label\n1.jpg,cat\nsub\\4.jpg,dog\n{photos / '2.jpg'},dog\n../{photos.name}/3.jpg,cat\n"
    listing = read(csv_file(other, text), images=photos)
    assert ids(listing) == ["1.jpg", "2.jpg", "3.jpg", "sub/4.jpg"]
    assert listing.root == photos
    outside = read(csv_file(photos / "sub", "image,label\n../1.jpg,cat\n4.jpg,dog\n"))
    assert ids(outside) == ["../1.jpg", "4.jpg"]


def test_what_a_table_cannot_use_is_named_with_a_reason(photos: Path) -> None:
    text = "image,label\n1.jpg,cat\n2.jpg,dog\n3.jpg, \ngone.jpg,cat\nsub,cat\n,cat\n"
    listing = read(csv_file(photos, text))
    assert ids(listing) == ["1.jpg", "2.jpg"]
    assert left_out(listing) == {
        "3.jpg": "no label",
        "gone.jpg": "file not found",
        "sub": "file not found",
        "line 7": "names no image",
    }
    assert listing.num_found == 6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("image,label\n", "has a header but no rows"),
        ("1.jpg,cat\n2.jpg,dog\n", "has no header: its first line holds '1.jpg'"),
        ("photo,kind\n1.jpg,cat\n", "has no column 'image', but 'photo', 'kind'"),
        ("image,kind\n1.jpg,cat\n", "has no column 'label', but 'image', 'kind'"),
        (
            "file,path,label\n1.jpg,1.jpg,cat\n",
            "2 columns for the image, 'file' and 'path'; name the right one 'image'",
        ),
        ("image,label,label\n1.jpg,a,b\n", "2 columns for the label"),
        ("image,label\n1.jpg,cat\n\n2.jpg,dog,more\n", "line 4: 3 cells under 2 column names"),
        ('image,label\n1.jpg,cat\n2.jpg,"dog\n3.jpg,cat\n', "row that begins on line 3 is not valid CSV"),
        (b"image,label\n1.jpg,cat\n2.jpg,Gr\xf6\xdfe\n", "line 3: not UTF-8 text"),
        (PLAIN.encode("utf-16"), "line 1: not UTF-8 text"),
        (
            "image,label\n1.jpg,cat\n2.jpg,dog\n1.jpg,dog\n",
            "'1.jpg' has two labels, 'cat' in line 2 and 'dog' in line 4;",
        ),
        ("image,label\n1.jpg,cat\n1.jpg,dog\n", r"write 'cat\|dog' or use --task multilabel"),
        ("image,label\n1.jpg,cat\n2.jpg,dog\n./1.jpg,cat\n", "'cat' twice, in line 2 and line 4; remove one"),
        ("image,label\n1.jpg,cat\n2.jpg,dog\n1.jpg,\n", "'1.jpg' is in line 2 and in line 4; remove one"),
        ("image,label\n1.jpg,a|b\n1.jpg,b\n", "'b' twice, in line 2 and line 3"),
        ("image,label,group\n1.jpg,a|b,x\n1.jpg,c,y\n", "two groups or splits, in line 2 and line 3"),
        ("image,label,split\n1.jpg,a,train\n2.jpg,b,dev\n", "line 3: unknown split 'dev'; use train, val or test"),
        ("image,label,split\n1.jpg,a,train\n2.jpg,b,\n", "line 3: the split is empty, but other rows have one"),
        ("image,label\n1.jpg,cat\n2.jpg,cat\n", "only one class with images, 'cat'"),
        ("image,label\n1.jpg,\n2.jpg,\n", "no image has a label"),
        (
            "image,label\n1.jpg,a\nx.jpg,b\ny.jpg,b\n",
            r"2 of 3 images are not there; the first, 'x.jpg', .* with --images",
        ),
        ("image,label\n0a1,a\n0a2,b\n", "names need their suffix"),
        ("image,label\nnul\0.jpg,a\ntwo lines,b\n", "not there"),
        ('image,label\n1.jpg,"' + "x" * 200_000 + '"\n', "not valid CSV"),
    ],
)
def test_an_unfit_table_gets_one_line_with_the_place(photos: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read(csv_file(photos, text))
    assert "t.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_wrong_folder_of_images_is_named(photos: Path) -> None:
    with pytest.raises(DataError, match=r"the folder of images, .*/nowhere, does not exist"):
        read(csv_file(photos, PLAIN), images=photos / "nowhere")
    with pytest.raises(DataError, match=r"2 of 2 images are not there; .*looked for at '.*/sub/1\.jpg'"):
        read(csv_file(photos, PLAIN), images=photos / "sub")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_damaged_tables_read_or_raise_data_error(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    rng = random.Random(seed)
    root = put(tmp_path_factory.mktemp("data"), "1.jpg", "2.jpg")
    data = bytearray("image,label,group,split\n1.jpg,cat,a,train\n2.jpg,d\u00f6g,b,test\n".encode())
    for _ in range(rng.randint(1, 6)):
        data[rng.randrange(len(data))] = rng.choice(b',;|"\n\r\t\x00\xff./ag1')
    try:
        listing = read(csv_file(root, bytes(data[: rng.randint(0, len(data))])))
    except DataError as error:
        assert "\n" not in str(error)
    else:
        assert listing.records


@pytest.mark.parametrize("label", [" a", "", "a|b", "a;b"])
def test_a_table_refuses_labels_that_would_read_back_differently(photos: Path, label: str) -> None:
    records = (Record(id="1.jpg", path=photos / "1.jpg", labels=(label,)),)
    listing = Listing(root=photos, format="made", records=records, classes=(label,), multi_label=True)
    with pytest.raises(DataError, match="cannot be written to a table"):
        table.write(listing, photos / "new.csv")
    with pytest.raises(DataError, match=r"a table ends in \.csv"):
        table.write(listing, photos / "new.txt")
