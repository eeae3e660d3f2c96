"""What the audit leaves out of training: images that show nothing, copies that contradict, copies of judged ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from audit_features import Seen, seen
from snellen.audit.files import empty_images
from snellen.audit.leaks import conflicting_labels, leak_across_splits
from snellen.audit.remedies import left_out_of_training
from snellen.audit.subject import AuditSubject
from snellen.data.duplicates import Duplicate
from snellen.data.split import split


def _data(seed: int = 0) -> Seen:
    data = seen(seed, num=240, classes=3, hardness=0.3)
    data.give_sides(seed)
    return data


def _with_pairs(data: Seen, pairs: list[tuple[str, str]]) -> AuditSubject:
    subject = data.subject()
    exact = [Duplicate(first=one, second=other, kind="exact", similarity=1.0) for one, other in pairs]
    manifest = split(data.records, pairs=exact, classes=subject.manifest.classes, multi_label=False)
    return replace(subject, pairs=exact, manifest=manifest)


def _left_out(subject: AuditSubject, check: object) -> set[str]:
    (finding,) = check(subject)  # type: ignore[operator]
    changes = finding.treatment.get("overlay", [])
    assert {each["action"] for each in changes} <= {"leave out"}
    return {each["image"] for each in changes}


@pytest.mark.parametrize("seed", range(3))
def test_empty_images_are_left_out_of_training_alone(seed: int) -> None:
    data = _data(seed)
    subject = data.subject()
    blank = {record.id for record in data.records[::6]}
    facts = {each: replace(known, contrast=0.0) if each in blank else known for each, known in subject.facts.items()}
    train = {record.id for record in data.records if record.split == "train"}
    assert _left_out(replace(subject, facts=facts), empty_images) == blank & train


def test_a_class_that_means_an_empty_picture_is_kept() -> None:
    data = _data()
    subject = data.subject()
    facts = {
        record.id: replace(subject.facts[record.id], contrast=0.0 if record.labels == (data.labels()[0],) else 0.2)
        for record in data.records
    }
    assert _left_out(replace(subject, facts=facts), empty_images) == set()


@pytest.mark.parametrize("seed", range(3))
def test_of_copies_that_contradict_each_other_the_one_is_kept_whose_label_fits(seed: int) -> None:
    data = _data(seed)
    train = [i for i, record in enumerate(data.records) if record.split == "train"][:20]
    names = sorted(set(data.labels()))
    pairs = []
    for i in train:
        record = data.records[i]
        other = names[(names.index(record.labels[0]) + 1) % len(names)]
        data.records.append(replace(record, id=f"copy of {record.id}", labels=(other,)))
        data.features = np.concatenate([data.features, data.features[i : i + 1]])
        pairs.append((record.id, f"copy of {record.id}"))
    subject = _with_pairs(data, pairs)
    gone = _left_out(subject, conflicting_labels)
    assert {other for _, other in pairs} <= gone  # the wrong ones, and of few both
    assert len(gone) <= 25
    without = _left_out(replace(subject, features=None), conflicting_labels)
    assert without == {each for pair in pairs for each in pair}


def test_blank_copies_are_left_out_with_those_that_have_the_same_label() -> None:
    """Copies are told as pairs with the first of them, so that not each differs from the one it is paired with."""
    data = _data()
    blank = [record.id for record in data.records if record.split == "train"][:30]
    subject = _with_pairs(data, [(blank[0], each) for each in blank[1:]])
    facts = {each: replace(known, contrast=0.0) if each in blank else known for each, known in subject.facts.items()}
    assert _left_out(replace(subject, facts=facts), conflicting_labels) == set(blank)


def test_training_images_that_are_copies_of_judged_ones_are_left_out() -> None:
    data = _data()
    sides = {side: [record.id for record in data.records if record.split == side] for side in ("train", "val")}
    pairs = list(zip(sides["train"][:10], sides["val"][:10], strict=True))
    assert _left_out(_with_pairs(data, pairs), leak_across_splits) == set(sides["train"][:10])


def test_what_would_take_half_of_training_is_no_remedy() -> None:
    data = _data()
    train = [record.id for record in data.records if record.split == "train"]
    subject = data.subject()
    assert left_out_of_training(subject, train[: len(train) // 2 + 2]) == {}
    assert left_out_of_training(subject, []) == {}
    assert len(left_out_of_training(subject, train[: len(train) // 4])["overlay"]) == len(train) // 4
