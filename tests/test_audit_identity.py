"""Recognised groups and sides of another kind are found in a given split; a fair split is silent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

import audit_features as faults
from audit_features import DIMENSIONS, Seen, seen, with_groups
from snellen.audit.identity import identity_leak
from snellen.audit.sides import class_shares_differ, sides_differ
from snellen.core.finding import Finding

CHECKS = (identity_leak, sides_differ, class_shares_differ)


def found_in(data: Seen) -> dict[str, Finding]:
    subject = data.subject()
    return {finding.code: finding for check in CHECKS for finding in check(subject)}


@pytest.mark.parametrize(
    ("plant", "code"),
    [
        (with_groups, "identity-leak"),
        (faults.another_camera, "sides-differ"),
        (faults.another_mixture, "class-shares-differ"),
    ],
)
@pytest.mark.parametrize("seed", range(2))
def test_planted_fault_is_found(plant: Callable[[int], Seen], code: str, seed: int) -> None:
    found = found_in(plant(seed))
    assert found.keys() == {code}
    assert found[code].evidence["p"] < 1e-3 and found[code].message.endswith(".")


@pytest.mark.parametrize("seed", range(12))
def test_a_split_by_lot_is_silent(seed: int) -> None:
    data = seen(seed, num=300, classes=2 + seed % 4, hardness=(0.2, 0.6, 1.2)[seed % 3])
    data.give_sides(seed)
    assert found_in(data) == {}


@pytest.mark.parametrize("seed", range(3))
def test_snellens_own_split_is_not_looked_at(seed: int) -> None:
    data = with_groups(seed)
    data.records = [replace(record, split=None) for record in data.records]
    assert found_in(data) == {}


@pytest.mark.parametrize("seed", range(3))
def test_backgrounds_that_recur_with_every_class_are_no_leak(seed: int) -> None:
    assert found_in(with_groups(seed, follow_class=False)) == {}


@pytest.mark.parametrize("seed", range(4))
def test_backgrounds_that_recur_within_a_class_are_no_leak_where_the_class_shows_beside_them(seed: int) -> None:
    """The nearest image is one of the same background, but nobody needs it to tell the class."""
    data = with_groups(seed)
    rng = np.random.default_rng(5000 + seed)
    codes = np.array([int(label.split()[1]) for label in data.labels()])
    direction = rng.normal(size=DIMENSIONS)
    direction /= np.linalg.norm(direction)
    data.features += np.outer(6.0 * (codes - 0.5), direction)
    assert "identity-leak" not in found_in(data)


@pytest.mark.parametrize("seed", range(3))
def test_kinds_of_things_are_no_individuals(seed: int) -> None:
    """Many tight classes, or parts of classes, are on both sides of every fair split."""
    assert found_in(with_groups(seed, num_groups=12, size=40)) == {}


def named(seed: int, *, recognisable: bool) -> Seen:
    """Patients that are named, on both sides; half of the time nothing in the features tells them apart."""
    data = with_groups(seed, num_groups=80, size=5)
    films = np.arange(len(data.records)) // 5
    if not recognisable:
        data.features = np.random.default_rng(seed).normal(size=(len(films), DIMENSIONS))
    data.records = [replace(record, group=f"patient {film}") for record, film in zip(data.records, films, strict=True)]
    return data


def test_named_groups_that_are_recognised_are_told_and_grouped() -> None:
    finding = found_in(named(0, recognisable=True))["identity-leak"]
    assert finding.evidence["named"] and finding.certainty == "confirmed"
    group_of = {record.id: record.group for record in named(0, recognisable=True).records}
    assert all(group_of[change["image"]] == change["value"] for change in finding.treatment["overlay"])


@pytest.mark.parametrize("seed", range(4))
def test_named_groups_that_nothing_tells_apart_are_silent(seed: int) -> None:
    assert "identity-leak" not in found_in(named(seed, recognisable=False))


def test_sets_that_are_sought_are_the_films() -> None:
    data = with_groups(0)
    film = {record.id: i // 6 for i, record in enumerate(data.records)}
    changes = found_in(data)["identity-leak"].treatment["overlay"]
    films_of: dict[str, set[int]] = {}
    for change in changes:
        films_of.setdefault(change["value"], set()).add(film[change["image"]])
    assert len(films_of) > 60 and all(len(films) == 1 for films in films_of.values())


def test_patients_that_stay_on_one_side_do_not_make_sides_differ() -> None:
    """The sides then show other patients, and so they should: each patient is one draw."""
    data = with_groups(4)
    films = np.arange(len(data.records)) // 6
    data.records = [
        replace(record, group=f"patient {film}", split="train" if film % 5 < 3 else "val")
        for record, film in zip(data.records, films, strict=True)
    ]
    assert found_in(data) == {}
