"""Checks of duplicates and groups: within the data, with other labels, and across the split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from snellen.audit.files import shows_nothing
from snellen.audit.remedies import left_out_of_training
from snellen.audit.subject import MAX_IMAGES, AuditSubject, counted, listed
from snellen.core.finding import Certainty, Finding
from snellen.core.record import Split
from snellen.data.duplicates import Duplicate, clusters
from snellen.data.split import leaks

_MAX_PAIRS = 12  # pairs spelt out in the evidence
_CLEARLY = 0.3  # of about a probability, by which one label is likelier than another


def exact_duplicates(subject: AuditSubject) -> Iterator[Finding]:
    yield from _duplicates(subject, "exact", "exact-duplicates", "are copies of another, pixel for pixel")


def near_duplicates(subject: AuditSubject) -> Iterator[Finding]:
    yield from _duplicates(
        subject,
        "near",
        "near-duplicates",
        "show the same picture as another, resized, recompressed, cropped, mirrored or turned",
    )


def _duplicates(subject: AuditSubject, kind: str, code: str, what: str) -> Iterator[Finding]:
    """Warning when more than a twentieth of the images are redundant; below that duplicates change little."""
    pairs = [pair for pair in subject.pairs if pair.kind == kind]
    if not pairs:
        return
    sets = clusters(subject.rows, pairs)
    redundant = sum(len(members) - 1 for members in sets)
    total = len(subject.facts)
    together = (
        "Copies are kept on one side of the split, so the result is honest"
        if subject.manifest.origin == "snellen"
        else "The given split was kept; whether copies cross it is checked separately"
    )
    yield Finding(
        code=code,
        severity="warning" if redundant > 0.05 * total else "info",
        certainty=_certainty(pairs),
        message=f"{counted(redundant, 'image')} of {total:,} {what} ({counted(len(sets), 'set')}, "
        f"the largest of {max(map(len, sets))}).",
        advice=f"{together}; remove copies if they are not meant to count more.",
        evidence={
            "num_pairs": len(pairs),
            "num_sets": len(sets),
            "num_redundant": redundant,
            "share": redundant / total,
            "distinct_images": total - redundant,
            "pairs": _spelt_out(pairs),
        },
        images=_images(pairs),
    )


def conflicting_labels(subject: AuditSubject) -> Iterator[Finding]:
    """Duplicates whose labels differ: one of the two must be wrong when they are exact, so that is serious.

    Pictures that are nearly the same may well show other objects: of marked data ``conflicting_marks`` tells.
    """
    if subject.is_marked:
        return
    labels = {image_id: frozenset(row.labels) for image_id, row in subject.rows.items()}
    pairs = [pair for pair in _known(subject) if labels[pair.first] != labels[pair.second]]
    if not pairs:
        return
    exact = sum(pair.kind == "exact" for pair in pairs)
    between = Counter(
        " / ".join(sorted(_named(subject, image_id) for image_id in (pair.first, pair.second))) for pair in pairs
    )
    first = pairs[0]
    yield Finding(
        code="conflicting-labels",
        severity="serious" if exact else "warning",
        certainty=_certainty(pairs),
        message=f"{counted(len(pairs), 'pair')} of duplicates ({exact} exact) have different labels: {first.first} is "
        f"{_named(subject, first.first)} and {first.second} is {_named(subject, first.second)}.",
        advice="Decide which label is right and correct it or remove the image; a model cannot learn both.",
        evidence={
            "num_pairs": len(pairs),
            "num_exact": exact,
            "between": dict(between.most_common(10)),
            "pairs": _spelt_out(pairs),
        },
        images=_images(pairs),
        treatment=left_out_of_training(subject, _contradicted(subject)),
    )


def _contradicted(subject: AuditSubject) -> Iterator[str]:
    """Copies, pixel for pixel, whose label is not the one that a model gives them which has seen none of them; where
    it gives none of their labels clearly, or they show nothing, all of them."""
    seen = subject.labelled
    place = {} if seen is None else {image_id: i for i, image_id in enumerate(seen.ids)}
    for members in clusters(subject.rows, [pair for pair in subject.pairs if pair.kind == "exact"]):
        if len({frozenset(subject.rows[each].labels) for each in members}) < 2:
            continue
        meant: frozenset[str] = frozenset()
        together = len({subject.unit_of(each) for each in members}) == 1 and not shows_nothing(
            subject.facts[members[0]]
        )
        if seen is not None and members[0] in place and together:
            given = {seen.codes[place[each]] for each in members if each in place}
            scores = seen.scores[place[members[0]]]
            first, *others = sorted(given, key=lambda code: -scores[code])
            if all(scores[first] - scores[other] >= _CLEARLY for other in others):
                meant = frozenset({seen.classes[first]})
        yield from (each for each in members if frozenset(subject.rows[each].labels) != meant)


def leak_across_splits(subject: AuditSubject) -> Iterator[Finding]:
    """Duplicates on two sides of a split. Serious when train is one of the sides: the score then rewards memory."""
    pairs = leaks(subject.manifest, _known(subject))
    if not pairs:
        return
    side_of = {image_id: row.split for image_id, row in subject.rows.items()}
    leaked: dict[Split, set[str]] = {"val": set(), "test": set()}
    for pair in pairs:
        for one, other in ((pair.first, pair.second), (pair.second, pair.first)):
            if side_of[one] in leaked and side_of[other] == "train":
                leaked[side_of[one]].add(one)
    sizes = {side: len(subject.manifest.ids(side)) for side in leaked}
    shares = {side: len(found) / sizes[side] for side, found in leaked.items() if found}
    told = " and ".join(f"{len(leaked[side])} of {sizes[side]} {side} images ({shares[side]:.1%})" for side in shares)
    message = f"{told} show the same picture as a train image." if told else "val and test share pictures."
    yield Finding(
        code="leak-across-splits",
        severity="serious" if shares else "warning",
        certainty=_certainty(pairs),
        message=message,
        advice="The measured result comes out too good. Let Snellen divide the data, or move each pair to one side.",
        evidence={
            "num_pairs": len(pairs),
            "num_exact": sum(pair.kind == "exact" for pair in pairs),
            "leaked": {side: len(found) for side, found in leaked.items()},
            "shares": shares,
            "pairs": _spelt_out(pairs),
        },
        images=_images(pairs),
        treatment=left_out_of_training(subject, (each for pair in pairs for each in (pair.first, pair.second))),
    )


def groups_across_splits(subject: AuditSubject) -> Iterator[Finding]:
    """Groups on several sides of a split: serious when the user named the groups, a warning when file names did."""
    sides: dict[str, Counter[Split]] = {}
    example: dict[str, str] = {}
    for row in subject.manifest.rows:
        if row.group is not None:
            sides.setdefault(row.group, Counter())[row.split] += 1
            example.setdefault(row.group, row.id)
    divided = {group: counts for group, counts in sides.items() if len(counts) > 1}
    if not divided:
        return
    named = any(record.group in divided for record in subject.listing.records)
    guessed = "" if named else " (groups as the file names tell them)"
    worst = sorted(divided, key=lambda group: (-divided[group].total(), group))
    yield Finding(
        code="groups-across-splits",
        severity="serious" if named else "warning",
        certainty="certain" if named else "observed",
        message=f"{counted(len(divided), 'group')} of {len(sides):,} {'is' if len(divided) == 1 else 'are'} on several "
        f"sides of the split, for example {listed(worst, 3)}{guessed}.",
        advice="A model can recognise the patient, plant or scene instead of the class. Keep each group on one side.",
        evidence={
            "num_groups": len(sides),
            "num_divided": len(divided),
            "groups": {group: dict(divided[group]) for group in worst[:_MAX_PAIRS]},
        },
        images=tuple(example[group] for group in worst[:MAX_IMAGES]),
    )


def _certainty(pairs: Iterable[Duplicate]) -> Certainty:
    """Equal pixels are equal pictures; near duplicates were laid over each other, which tells them from look-alikes."""
    return "certain" if any(pair.kind == "exact" for pair in pairs) else "confirmed"


def _known(subject: AuditSubject) -> list[Duplicate]:
    return [pair for pair in subject.pairs if pair.first in subject.rows and pair.second in subject.rows]


def _named(subject: AuditSubject, image_id: str) -> str:
    return " + ".join(sorted(subject.rows[image_id].labels)) or "(no label)"


def _spelt_out(pairs: Sequence[Duplicate]) -> list[list[str | float]]:
    return [[pair.first, pair.second, pair.kind, pair.similarity] for pair in pairs[:_MAX_PAIRS]]


def _images(pairs: Iterable[Duplicate]) -> tuple[str, ...]:
    """The pairs' ids side by side, no id twice."""
    return tuple(dict.fromkeys(image_id for pair in pairs for image_id in (pair.first, pair.second)))[:MAX_IMAGES]
