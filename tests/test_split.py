"""How the data is divided: fair, whole units, the same every time; and the groups that file names give away."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snellen.core.errors import DataError
from snellen.core.record import SPLITS, Record, Split
from snellen.data.duplicates import Duplicate
from snellen.data.groups import find_groups
from snellen.data.manifest import Manifest
from snellen.data.split import leaks, split

Table = dict[str, tuple[int, int, int]]


def records_of(sizes: Mapping[str, int], side: Split | None = None) -> list[Record]:
    name = f"{side}/" if side else ""
    return [
        Record(id=f"{name}{label}/{i:04d}.jpg", path=Path("x"), labels=(label,), split=side)
        for label, size in sizes.items()
        for i in range(size)
    ]


def pair(first: str, second: str) -> Duplicate:
    return Duplicate(first=first, second=second, kind="near", similarity=0.99)


def table(manifest: Manifest) -> Table:
    """Images of every class in train, val and test."""
    counts = Counter((label, row.split) for row in manifest.rows for label in row.labels)
    return {label: (counts[label, "train"], counts[label, "val"], counts[label, "test"]) for label in manifest.classes}


def side_of(manifest: Manifest) -> dict[str, Split]:
    return {row.id: row.split for row in manifest.rows}


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({"a": 100, "b": 40}, {"a": (70, 15, 15), "b": (28, 6, 6)}),
        ({"a": 20, "b": 3}, {"a": (14, 3, 3), "b": (1, 1, 1)}),
        ({"a": 20, "b": 2}, {"a": (14, 3, 3), "b": (1, 0, 1)}),
        ({"a": 20, "b": 1}, {"a": (14, 3, 3), "b": (1, 0, 0)}),
        ({"a": 4, "b": 7}, {"a": (2, 1, 1), "b": (5, 1, 1)}),
    ],
)
def test_every_class_is_divided_in_proportion(sizes: dict[str, int], expected: Table) -> None:
    assert table(split(records_of(sizes), pairs=[])) == expected


def test_rounding_does_not_favour_a_side() -> None:
    manifest = split(records_of({f"class {i}": 9 for i in range(40)}), pairs=[])
    assert [len(manifest.ids(side)) for side in SPLITS] == pytest.approx([252, 54, 54], abs=2)


@given(st.lists(st.integers(1, 30), min_size=2, max_size=6).filter(lambda sizes: max(sizes) >= 7), st.integers(0, 5))
def test_each_image_is_on_one_side_and_no_class_of_three_is_missed(sizes: list[int], seed: int) -> None:
    records = records_of({f"class {i}": size for i, size in enumerate(sizes)})
    manifest = split(records, pairs=[], seed=seed)
    assert [row.id for row in manifest.rows] == sorted(record.id for record in records)
    for (train, val, test), size in zip(table(manifest).values(), sizes, strict=True):
        assert (train, val, test) >= (1, 0, 0) and train + val + test == size
        if size >= 3:
            assert min(train, val, test) >= 1
            assert abs(train - 0.7 * size) <= 1.5 and abs(val - test) <= 2


@given(st.randoms(), st.integers(0, 3))
def test_order_of_the_listing_changes_nothing(rng: random.Random, seed: int) -> None:
    records = records_of({"a": 17, "b": 9, "c": 4})
    pairs = [pair(records[0].id, records[20].id), pair(records[3].id, records[4].id)]
    expected = split(records, pairs=pairs, seed=seed)
    rng.shuffle(records)
    assert split(records, pairs=pairs[::-1], seed=seed) == expected


def test_seed_decides() -> None:
    records = records_of({"a": 50, "b": 50})
    sides = {tuple(split(records, pairs=[], seed=seed).ids("test")) for seed in range(4)}
    assert len(sides) == 4


# ---- units


@given(
    st.lists(st.tuples(st.integers(0, 59), st.integers(0, 59)).filter(lambda ends: ends[0] != ends[1]), max_size=25),
    st.integers(2, 12),
)
def test_duplicates_and_groups_stay_on_one_side(edges: list[tuple[int, int]], num_groups: int) -> None:
    records = [
        replace(record, group=f"g{i % num_groups}" if i % 3 == 0 else None)
        for i, record in enumerate(records_of({"a": 40, "b": 40}))
    ]
    pairs = [pair(records[first].id, records[second].id) for first, second in edges]
    manifest = split(records, pairs=pairs)
    sides = side_of(manifest)
    assert all(sides[each.first] == sides[each.second] for each in pairs)
    by_group: dict[str, set[Split]] = {}
    for row in manifest.rows:
        if row.group is not None:
            by_group.setdefault(row.group, set()).add(row.split)
    assert all(len(found) == 1 for found in by_group.values())
    assert leaks(manifest, pairs) == []


def test_a_group_and_a_duplicate_that_touch_are_one_unit() -> None:
    records = records_of({"a": 30, "b": 30})
    groups = {records[0].id: "one", records[1].id: "one", records[2].id: "two", records[3].id: "two"}
    for seed in range(8):
        sides = side_of(split(records, pairs=[pair(records[1].id, records[2].id)], groups=groups, seed=seed))
        assert len({sides[record.id] for record in records[:4]}) == 1


def test_groups_of_the_records_come_before_those_of_the_file_names() -> None:
    records = [
        replace(record, group="mine") if i < 2 else record for i, record in enumerate(records_of({"a": 9, "b": 9}))
    ]
    rows = split(records, pairs=[], groups={record.id: record.id for record in records}).rows
    assert [row.group for row in rows[:3]] == ["mine", "mine", records[2].id]


def test_groups_keep_the_classes_in_proportion() -> None:
    rng = random.Random(0)
    records = []
    for patient in range(60):
        label = "ill" if patient % 3 == 0 else "well"
        for i in range(rng.randint(1, 8)):
            records.append(Record(id=f"{patient}/{i}", path=Path("x"), labels=(label,), group=str(patient)))
    counts = table(split(records, pairs=[]))
    for train, val, test in counts.values():
        assert [train / (train + val + test), val / (train + val + test)] == pytest.approx([0.7, 0.15], abs=0.05)


def test_clusters_and_hashes_are_in_the_rows() -> None:
    records = records_of({"a": 5, "b": 5})
    pairs = [pair(records[2].id, records[1].id)]
    rows = split(records, pairs=pairs, sha256={records[0].id: "abc"}).rows
    assert [row.cluster for row in rows[:4]] == [None, records[1].id, records[1].id, None]
    assert [row.sha256 for row in rows[:2]] == ["abc", None]


# ---- several labels


def test_several_labels_are_divided_in_proportion_each() -> None:
    rng = random.Random(0)
    rates = {"a": 0.6, "b": 0.3, "c": 0.1, "d": 0.05, "e": 0.02, "f": 0.01}
    records = [
        Record(id=f"{i}", path=Path("x"), labels=tuple(label for label in rates if rng.random() < rates[label]))
        for i in range(1000)
    ]
    manifest = split(records, pairs=[], multi_label=True)
    assert any(not row.labels for row in manifest.rows)
    for train, val, test in table(manifest).values():
        total = train + val + test
        assert min(val, test) >= 1
        assert train == pytest.approx(0.7 * total, abs=max(2, 0.03 * total))
        assert val == pytest.approx(0.15 * total, abs=max(2, 0.03 * total))
    assert [len(manifest.ids(side)) for side in SPLITS] == pytest.approx([700, 150, 150], abs=20)


# ---- the user's split


def test_train_and_val_are_kept_without_a_test() -> None:
    records = records_of({"a": 5, "b": 5}, "train") + records_of({"a": 2, "b": 2}, "val")
    manifest = split(records, pairs=[pair(records[0].id, records[-1].id)])
    assert {row.split for row in manifest.rows if row.id.startswith("val")} == {"val"}
    assert manifest.ids("test") == [] and len(manifest.ids("train")) == 10
    assert manifest.origin == "user" and "no test images" in manifest.reasons[0]


def test_all_three_sides_are_kept() -> None:
    records = [*records_of({"a": 5, "b": 5}, "train"), *records_of({"a": 2}, "val"), *records_of({"b": 9}, "test")]
    assert {(row.id.split("/")[0], row.split) for row in split(records, pairs=[]).rows} == {
        ("train", "train"),
        ("val", "val"),
        ("test", "test"),
    }


def test_val_is_taken_from_train_where_only_test_is_given() -> None:
    records = records_of({"a": 34, "b": 34}, "train") + records_of({"a": 10, "b": 10}, "test")
    manifest = split(records, pairs=[pair("train/a/0000.jpg", "train/a/0001.jpg")])
    assert manifest.ids("test") == sorted(record.id for record in records if record.split == "test")
    assert table(manifest) == {"a": (28, 6, 10), "b": (28, 6, 10)}
    assert manifest.origin == "user"
    assert side_of(manifest)["train/a/0000.jpg"] == side_of(manifest)["train/a/0001.jpg"]


def test_val_and_test_are_taken_from_train_where_only_that_is_given() -> None:
    assert table(split(records_of({"a": 20, "b": 20}, "train"), pairs=[])) == {"a": (14, 3, 3), "b": (14, 3, 3)}


def test_leaks_are_the_pairs_across_a_given_split() -> None:
    records = records_of({"a": 5, "b": 5}, "train") + records_of({"a": 2, "b": 2}, "val")
    within, across = pair("train/a/0000.jpg", "train/a/0001.jpg"), pair("train/a/0000.jpg", "val/a/0001.jpg")
    unknown = pair("train/a/0000.jpg", "elsewhere.jpg")
    assert leaks(split(records, pairs=[within, across]), [within, across, unknown]) == [across]


# ---- refusals

GOOD = records_of({"a": 9, "b": 9})


@pytest.mark.parametrize(
    ("records", "fractions", "message"),
    [
        (GOOD, (0.7, 0.2, 0.2), "sum to 1"),
        (GOOD, (1.2, -0.1, -0.1), "0 or more"),
        (GOOD, (0.8, 0.0, 0.2), "above 0"),
        (GOOD, (0.0, 0.5, 0.5), "above 0"),
        ([], (0.7, 0.15, 0.15), "no images"),
        ([*GOOD, GOOD[3]], (0.7, 0.15, 0.15), "a/0003.jpg is listed more than once"),
        (records_of({"a": 9}), (0.7, 0.15, 0.15), r"1 class \(a\)"),
        (records_of({"a": 1, "b": 1}), (0.7, 0.15, 0.15), "no val images among 2"),
        ([replace(GOOD[0], labels=("a", "b")), *GOOD[1:]], (0.7, 0.15, 0.15), "a/0000.jpg has 2 labels"),
        ([replace(GOOD[0], labels=()), *GOOD[1:]], (0.7, 0.15, 0.15), "a/0000.jpg has 0 labels"),
        ([replace(GOOD[0], split="train"), *GOOD[1:]], (0.7, 0.15, 0.15), "17 of 18 images are on no side"),
        (records_of({"a": 5, "b": 5}, "test"), (0.7, 0.15, 0.15), "no train images, only test"),
        (records_of({"a": 5}, "train") + records_of({"b": 5}, "val"), (0.7, 0.15, 0.15), r"1 class \(a\)"),
    ],
)
def test_what_cannot_be_divided_is_refused_in_one_line(
    records: Sequence[Record], fractions: tuple[float, float, float], message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        split(records, pairs=[], fractions=fractions)
    assert "\n" not in str(caught.value)


def test_one_large_group_cannot_be_divided() -> None:
    with pytest.raises(DataError, match="too few groups"):
        split(GOOD, pairs=[], groups={record.id: "one" for record in GOOD})


def test_test_may_be_left_out() -> None:
    manifest = split(GOOD, pairs=[], fractions=(0.8, 0.2, 0.0))
    assert not manifest.ids("test") and len(manifest.ids("val")) in (3, 4)


# ---- the manifest


def test_manifest_survives_json() -> None:
    manifest = split(records_of({"a": 9, "b": 9, "ü": 3}), pairs=[], groups={"a/0000.jpg": "g"})
    again = Manifest.from_json(json.loads(json.dumps(manifest.to_json())))
    assert again == manifest and again.digest == manifest.digest


def test_digest_tells_splits_apart_and_does_not_mind_the_wording() -> None:
    manifest = split(GOOD, pairs=[])
    other = split(GOOD, pairs=[], seed=1)
    assert len(manifest.digest) == 64
    assert other.digest != manifest.digest
    assert replace(manifest, reasons=("other words",)).digest == manifest.digest
    relabelled = (replace(manifest.rows[0], labels=("b",)), *manifest.rows[1:])
    assert replace(manifest, rows=relabelled).digest != manifest.digest


def test_seal_depends_on_the_test_images_alone() -> None:
    manifest = split(GOOD, pairs=[])
    train, test = manifest.ids("train")[0], manifest.ids("test")[0]

    def moved(image_id: str) -> Manifest:
        rows = tuple(replace(row, split="val") if row.id == image_id else row for row in manifest.rows)
        return replace(manifest, rows=rows)

    assert moved(train).seal == manifest.seal != moved(test).seal


def test_file_names_that_are_not_unicode_can_be_hashed() -> None:
    manifest = split(GOOD, pairs=[])
    renamed = replace(manifest, rows=tuple(replace(row, id=f"\udce4{row.id}") for row in manifest.rows))
    assert renamed.digest != manifest.digest and renamed.seal != manifest.seal


# ---- groups in file names


def named(names: Sequence[str]) -> list[Record]:
    return [Record(id=name, path=Path(name), labels=(name.split("/")[0],)) for name in names]


FOUND = {
    "patients": ([f"{'ab'[i // 4 % 2]}/patient{i // 4}_slide{i % 4}.png" for i in range(40)], "patient0", 10),
    "crops": ([f"{'ab'[i // 3 % 2]}/IMG_{i // 3:04d}_crop{i % 3}.jpg" for i in range(42)], "IMG_0000", 14),
    "plants": ([f"{'ab'[i % 2]}/plant{'ABCD'[i // 10]}-{i % 10 + 1:02d}.jpg" for i in range(40)], "plantA", 4),
    "frames": ([f"{'ab'[i // 10 % 2]}/video{i // 10}_frame{i % 10 * 5:04d}.jpg" for i in range(60)], "video0", 6),
    "steps of 30": ([f"{'ab'[i % 2]}/0016E{i // 20}_f{i % 20 * 30:05d}.jpg" for i in range(60)], "0016E0", 3),
    "augmented copies": ([f"{'ab'[i % 2]}/pic-{i // 3}_jpg.rf.{i:032x}.jpg" for i in range(60)], "pic-0_jpg", 20),
}
NOT_FOUND = {
    "class names": [f"{('ant', 'bee')[i % 2]}/{('ant', 'bee')[i % 2]}_{i:03d}.jpg" for i in range(40)],
    "other names of the classes": [f"{'ab'[i % 2]}/{('x1', 'x2')[i % 2]}_{i:03d}.jpg" for i in range(40)],
    "kinds of the classes": [f"{'ab'[i % 2]}/{('lab', 'tabby', 'pug', 'siam')[i % 4]}_{i:03d}.jpg" for i in range(40)],
    "synsets": [f"{'abc'[i % 3]}/n0144{i % 3}_{i * 37}.jpg" for i in range(90)],
    "counters": [f"{'ab'[i % 2]}/{i:05d}.png" for i in range(40)],
    "camera counters": [f"{'ab'[i % 2]}/IMG_{i:04d}.jpg" for i in range(40)],
    "one image to a name": [f"{'ab'[i % 2]}/{1030023514 + 977 * i}_{i * 7919:x}.jpg" for i in range(40)],
    "days and times": [
        f"{'ab'[i % 2]}/IMG_2021{i // 8:04d}_{random.Random(i).randrange(240000):06d}.jpg" for i in range(40)
    ],
    "half of the files": [f"a/patient{i // 4}_slide{i % 4}.png" for i in range(20)] + [f"b/{i}.png" for i in range(20)],
    "one group with nearly all": [f"a/p1_slide{i}.png" for i in range(36)]
    + [f"b/p{i}_slide1.png" for i in range(2, 6)],
}


@pytest.mark.parametrize(("names", "first", "num_groups"), FOUND.values(), ids=FOUND.keys())
def test_groups_in_file_names_are_found(names: list[str], first: str, num_groups: int) -> None:
    found = find_groups(named(names))
    assert found is not None
    assert found.of.keys() == set(names)
    assert found.of[names[0]] == first and len(set(found.of.values())) == num_groups
    assert f"{num_groups} groups" in found.sentence


@pytest.mark.parametrize("names", NOT_FOUND.values(), ids=NOT_FOUND.keys())
def test_no_groups_are_seen_where_there_are_none(names: list[str]) -> None:
    assert find_groups(named(names)) is None
