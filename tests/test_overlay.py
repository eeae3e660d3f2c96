"""Changes to the data: read with good errors, made on what was read and on nothing else, kept with the run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from snellen.core.annotation import Annotation
from snellen.core.errors import DataError
from snellen.core.finding import Finding
from snellen.core.record import Change, Listing, Record
from snellen.data.overlay import apply_overlay, merged, proposed, read_overlay, write_overlay

SOURCE = Path("changes.json")


def a_listing(**more: Any) -> Listing:
    """Six images of ants and bees, in no group and on no side."""
    records = [
        Record(id=f"{name}s/{i}.png", path=Path("x"), labels=(name,)) for name in ("ant", "bee") for i in (1, 2, 3)
    ]
    return Listing(**{"root": Path("x"), "format": "folder", "records": records, "classes": ("ant", "bee"), **more})


def of_numbers(*names: str) -> Listing:
    records = [Record(id=f"{i}.png", path=Path("x"), values=(float(i),) * len(names)) for i in range(4)]
    return Listing(root=Path("x"), format="table", records=records, classes=names)


def of_objects() -> Listing:
    dog = Annotation(label="dog", box=(0, 0, 5, 5))
    records = [
        Record(id=f"{i}.png", path=Path("x"), labels=("dog",), objects=(dog,) * i, size=(9, 9)) for i in range(4)
    ]
    return Listing(
        root=Path("x"), format="coco", records=records, classes=("dog",), multi_label=True, num_annotations=6
    )


def change(image: str, action: str, value: Any = None, because: str = "") -> Change:
    return Change(image=image, action=action, value=value, because=because)  # type: ignore[arg-type]


def changed(listing: Listing, *changes: Change) -> Listing:
    return apply_overlay(listing, changes, SOURCE)


def records_of(listing: Listing) -> dict[str, Record]:
    return {record.id: record for record in listing.records}


# ---- what is changed


def test_each_action_changes_what_it_names_and_nothing_else() -> None:
    before = a_listing(records=[replace(each, split="train") for each in a_listing().records])
    after = changed(
        before,
        change("ants/1.png", "leave out", because="exact-duplicates"),
        change("ants/2.png", "relabel", "bee"),
        change("bees/1.png", "group", "garden"),
        change("bees/2.png", "side", "val"),
    )
    found, was = records_of(after), records_of(before)
    assert found == {
        "ants/2.png": replace(was["ants/2.png"], labels=("bee",)),
        "ants/3.png": was["ants/3.png"],
        "bees/1.png": replace(was["bees/1.png"], group="garden"),
        "bees/2.png": replace(was["bees/2.png"], split="val"),
        "bees/3.png": was["bees/3.png"],
    }
    assert [(left.path, left.reason) for left in after.left_out] == [
        ("ants/1.png", "left out by the overlay (exact-duplicates)")
    ]
    assert after.num_found == before.num_found and after.classes == before.classes
    assert list(after.notes) == [
        "4 images are changed by changes.json: 1 left out, 1 relabelled, 1 put into a group, 1 put on a side"
    ]


def test_several_changes_of_one_image_are_all_made_and_leaving_out_wins() -> None:
    both = [change("ants/1.png", "relabel", "bee"), change("ants/1.png", "group", "g")]
    assert records_of(changed(a_listing(), *both))["ants/1.png"].labels == ("bee",)
    assert records_of(changed(a_listing(), *both))["ants/1.png"].group == "g"
    without = changed(a_listing(), *both, change("ants/1.png", "leave out"))
    assert "ants/1.png" not in records_of(without)
    assert list(without.notes) == ["1 image is changed by changes.json: 1 left out"]


def test_what_was_so_before_is_said() -> None:
    after = changed(a_listing(), change("ants/1.png", "relabel", "ant"), change("ants/2.png", "relabel", "bee"))
    assert list(after.notes) == ["2 images are changed by changes.json: 2 relabelled; 1 was so before"]
    assert list(changed(a_listing()).notes) == ["nothing is changed by changes.json"]


def test_several_labels_and_numbers_are_relabelled() -> None:
    several = a_listing(multi_label=True)
    after = records_of(
        changed(several, change("ants/1.png", "relabel", ("bee", "ant")), change("ants/2.png", "relabel", ()))
    )
    assert after["ants/1.png"].labels == ("ant", "bee") and after["ants/2.png"].labels == ()
    assert records_of(changed(of_numbers("age"), change("1.png", "relabel", 7)))["1.png"].values == (7.0,)
    assert records_of(changed(of_numbers("x", "y"), change("1.png", "relabel", (7, 0.5))))["1.png"].values == (7.0, 0.5)


def test_objects_of_images_that_are_left_out_are_not_lost_annotations() -> None:
    after = changed(of_objects(), change("3.png", "leave out"))
    assert after.num_annotations == 3 == sum(len(record.objects or ()) for record in after.records) + len(after.lost)


def test_all_images_may_be_put_on_sides() -> None:
    sides = ("train", "train", "val", "train", "val", "test")
    whole = [change(record.id, "side", side) for record, side in zip(a_listing().records, sides, strict=True)]
    assert [record.split for record in changed(a_listing(), *whole).records] == list(sides)


IMPOSSIBLE: list[tuple[Listing, Sequence[Change], str]] = [
    (a_listing(), [change("ants/1.jpg", "leave out")], r"change 1, 'ants/1\.jpg'; ids here are like 'ants/1\.png'"),
    (a_listing(), [change("x/1.png", "leave out")], "one change is of an image that the data has not"),
    (
        a_listing(),
        [change("ants/1.png", "leave out"), change("x/3.png", "group", "g"), change("y", "group", "g")],
        r"2 of 3 changes are .* the first is change 2, 'x/3\.png'; did you mean 'ants/3\.png'; correct the name",
    ),
    (a_listing(), [change("ants/1.png", "relabel", "be")], "change 1: the data has no class 'be'; did you mean 'bee'"),
    (a_listing(), [change("ants/1.png", "relabel", 3)], "no class 3; give the name of a class"),
    (a_listing(), [change("ants/1.png", "relabel", ("ant", "bee"))], "each image has one class.*give one name"),
    (of_numbers("age"), [change("1.png", "relabel", "old")], r"change 1: give a number \(age\), got 'old'"),
    (of_numbers("x", "y"), [change("1.png", "relabel", 3)], r"a list of 2 numbers \(x, y\), got 3"),
    (of_objects(), [change("1.png", "relabel", "dog")], "correct the marks in their file, or leave the image out"),
    (
        a_listing(),
        [change("ants/1.png", "relabel", "ant"), change("ants/1.png", "relabel", "bee")],
        "changes 1 and 2 contradict each other: 'relabel' of ants/1.png is 'ant' and 'bee'; keep one",
    ),
    (
        a_listing(),
        [change(f"{name}s/{i}.png", "leave out") for name in ("ant", "bee") for i in (1, 2, 3)],
        "all 6 images",
    ),
    (a_listing(), [change("ants/1.png", "side", "val")], "puts 1 of 6 images on a side.*every image.*'group' instead"),
]


@pytest.mark.parametrize(("listing", "changes", "message"), IMPOSSIBLE, ids=range(len(IMPOSSIBLE)))
def test_what_cannot_be_changed_is_said(listing: Listing, changes: Sequence[Change], message: str) -> None:
    with pytest.raises(DataError, match=f"^changes.json.*{message}"):
        changed(listing, *changes)


# ---- files


def written(folder: Path, content: Any) -> Path:
    path = folder / "overlay.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def one(**fields: Any) -> dict[str, Any]:
    return {"changes": [{"image": "a.png", "action": "leave out", **fields}]}


WRONG: list[tuple[Any, str]] = [
    ("{", "is not JSON"),
    ("[" * 100_000, "is not JSON"),
    ([], 'no file of changes: it must hold {"changes"'),
    ({"change": []}, "no file of changes"),
    ({"changes": {}}, "no file of changes"),
    ({"version": 2, "changes": []}, "version 2, this Snellen reads 1: update"),
    ({"changes": ["a.png"]}, 'change 1: it must be as {"image": ..., "action": ...}, got \'a.png\''),
    (one(img="b"), "change 1: unknown field 'img'; did you mean 'image'"),
    (one(image=3), "change 1: 'image' must name an image by its id.*got 3"),
    (one(image=""), "'image' must name an image"),
    (one(action="leaveout"), "unknown action 'leaveout'; did you mean 'leave out'"),
    (one(action=["side"]), "unknown action"),
    (one(because=3), "'because' must be text, got 3"),
    (one(value="ant"), "'ant' is no value for 'leave out': leave its value away"),
    (one(action="relabel"), "None is no value for 'relabel': give a class"),
    (one(action="relabel", value={"a": 1}), "no value for 'relabel'"),
    (one(action="relabel", value=[["ant"]]), "no value for 'relabel'"),
    ('{"changes": [{"image": "a.png", "action": "relabel", "value": NaN}]}', "nan is no value"),
    (one(action="group", value=""), "'' is no value for 'group': give the name"),
    (one(action="side", value="validation"), "give one of train, val, test"),
    (one(action="side", value=["val"]), "give one of train, val, test"),
]


@pytest.mark.parametrize(("content", "message"), WRONG, ids=range(len(WRONG)))
def test_what_is_wrong_in_a_file_is_said_with_its_place(content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message) as raised:
        read_overlay(written(tmp_path, content))
    assert str(tmp_path / "overlay.json") in str(raised.value) and "\n" not in str(raised.value)


def test_a_file_that_is_not_there_is_told_with_its_option(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file of changes at .*none\.json: check --overlay"):
        read_overlay(tmp_path / "none.json")


def test_what_is_written_is_read_back_and_the_least_is_enough(tmp_path: Path) -> None:
    changes = (
        change("a.png", "leave out", because="empty-images"),
        change("b.png", "relabel", ("ant", "bee")),
        change("名.png", "relabel", 3.5),
        change("c.png", "group", "g"),
    )
    write_overlay(tmp_path / "overlay.json", "photos", changes)
    assert read_overlay(tmp_path / "overlay.json") == changes
    assert json.loads((tmp_path / "overlay.json").read_text())["data"] == "photos"
    assert read_overlay(written(tmp_path, one())) == (change("a.png", "leave out"),)


# ---- what is proposed


def a_finding(code: str, *overlay: dict[str, Any]) -> Finding:
    return Finding(code=code, severity="warning", message="m", advice="a", treatment={"overlay": list(overlay)})


def test_proposals_of_all_findings_are_merged_leaving_out_wins_and_the_first_of_equals() -> None:
    found = [
        a_finding("suspect-labels", {"image": "a", "action": "relabel", "value": "ant"}),
        a_finding("classes-confused", {"image": "a", "action": "relabel", "value": "bee"}),
        a_finding("identity-leak", {"image": "a", "action": "group", "value": "g"}),
        a_finding("suspect-labels", {"image": "b", "action": "relabel", "value": "ant"}),
        a_finding("empty-images", {"image": "b", "action": "leave out"}),
        Finding(code="imbalance", severity="info", message="m", advice="a"),
    ]
    assert proposed(found) == [
        change("a", "relabel", "ant", "suspect-labels"),
        change("a", "group", "g", "identity-leak"),
        change("b", "leave out", because="empty-images"),
    ]
    assert merged(proposed(found)) == proposed(found)


def test_a_check_that_proposes_nonsense_is_named() -> None:
    with pytest.raises(DataError, match="treatment of suspect-labels: unknown action 'drop'"):
        proposed([a_finding("suspect-labels", {"image": "a", "action": "drop"})])
