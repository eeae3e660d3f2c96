"""Data sets of numbers about to be audited, healthy ones and ones with a planted fault."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from audit_data import facts_of, pair
from snellen.audit.subject import AuditSubject
from snellen.core.record import Listing, Record
from snellen.data.duplicates import Duplicate
from snellen.data.scan import ImageFacts
from snellen.data.split import split


def subject(numbers: list[float], pairs: list[Duplicate] | None = None) -> AuditSubject:
    rng = np.random.default_rng(0)
    records = [Record(id=f"{i:04d}.jpg", path=Path("x"), values=(number,)) for i, number in enumerate(numbers)]
    facts: dict[str, ImageFacts] = {record.id: facts_of(rng) for record in records}
    manifest = split(records, pairs=[], classes=("age",))
    listing = Listing(root=Path("x"), format="table", records=records, classes=("age",))
    return AuditSubject(listing=listing, facts=facts, left_out=[], pairs=pairs or [], manifest=manifest)


def ages(n: int = 500) -> list[float]:
    return np.random.default_rng(7).normal(40, 12, n).round(1).tolist()


def unknown_as_999() -> AuditSubject:
    return subject([*ages(497), 999.0, 999.0, -1e6])


def exact_copies_that_disagree() -> AuditSubject:
    numbers = ages()
    numbers[1] = numbers[0] + 0.1
    return subject(numbers, [pair("0000.jpg", "0001.jpg", "exact")])


def near_copies_that_disagree() -> AuditSubject:
    numbers = ages()
    numbers[1] = numbers[0] + 30
    return subject(numbers, [pair("0000.jpg", "0001.jpg")])


def larger_photographs_of_the_old() -> AuditSubject:
    made_ = subject(ages())
    facts = {
        row.id: replace(made_.facts[row.id], width=100 + int(5 * row.values[0]), height=300)
        for row in made_.manifest.rows
        if row.values
    }
    return replace(made_, facts=facts)


def seconds_since_1970() -> AuditSubject:
    return subject([1.7e9 + age for age in ages()])


def few() -> AuditSubject:
    return subject(ages(100))


def near_copies_that_nearly_agree() -> AuditSubject:
    numbers = ages()
    numbers[1] = numbers[0] + 1
    return subject(numbers, [pair("0000.jpg", "0001.jpg")])


PLANTED: list[tuple[str, Callable[[], AuditSubject], str]] = [
    # code, data with the fault, severity
    ("outlying-values", unknown_as_999, "warning"),
    ("conflicting-values", exact_copies_that_disagree, "serious"),
    ("conflicting-values", near_copies_that_disagree, "warning"),
    ("shortcut-resolution", larger_photographs_of_the_old, "warning"),
    ("narrow-values", seconds_since_1970, "serious"),
    ("too-few-images", few, "warning"),
]
