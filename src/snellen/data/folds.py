"""Cross-validation: what is not sealed for testing is divided into folds, and each in turn is the validation side.

The test side is that of an ordinary split, so that a fold and a run without folds can be compared. With another seed
and the same test side the folds are others: so a cross-validation is repeated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from snellen.core.errors import ConfigError, DataError
from snellen.core.record import Record
from snellen.core.seeds import keyed_seed
from snellen.data.manifest import Manifest, Row
from snellen.data.split import check_sides, deal, kept_together

if TYPE_CHECKING:
    from snellen.core.config import Config

_NAMED = 5  # classes in a sentence
_SEEDS = 2**31  # as many as Config allows


def check_folds(config: Config) -> None:
    """Raises ConfigError for a fold of nothing, or one that there is not, and for repeats of anything but all folds."""
    if config.fold is not None and config.folds is None:
        raise ConfigError(f"fold = {config.fold} needs folds: say how many there are, as in --folds 5 --fold 2")
    if config.fold is not None and config.folds is not None and config.fold > config.folds:
        raise ConfigError(f"fold = {config.fold} is not one of {config.folds} folds: use 1 to {config.folds}")
    if config.repeats == 1:
        return
    if config.folds is None:
        raise ConfigError(
            f"repeats = {config.repeats} needs folds to repeat: say how many there are, as in --folds 5 --repeats "
            f"{config.repeats}"
        )
    if config.fold is not None:
        raise ConfigError(f"repeats = {config.repeats} repeats all folds: leave out fold = {config.fold}, or repeats")
    if config.seed + config.repeats > _SEEDS:
        raise ConfigError(
            f"seed = {config.seed} is too large for {config.repeats} repeats, each with the next: use a smaller seed"
        )


def told_folds(num_folds: int, repeats: int) -> str:
    """``5 folds``, or ``3 repeats of 5 folds``."""
    return f"{num_folds} folds" if repeats == 1 else f"{repeats} repeats of {num_folds} folds"


def take_fold(manifest: Manifest, num_folds: int, fold: int, seed: int | None = None) -> Manifest:
    """The same test side, fold number ``fold`` (from 1) as validation side, all other images for training.

    ``seed`` deals the folds, by default that of the manifest. Groups and duplicates are never parted; classes, or the
    numbers to be predicted, are in proportion in every fold.
    Raises DataError when there are too few images, or groups of them, for so many folds.
    """
    seed = manifest.seed if seed is None else seed
    fold_of = fold_numbers(manifest, num_folds, seed)
    sizes = Counter(fold_of.values())
    if len(sizes) < num_folds:
        raise DataError(
            f"{len(fold_of)} images cannot be divided into {num_folds} folds without parting groups or duplicates: "
            f"{len(sizes)} of the folds would have any; use fewer folds"
        )
    rows = tuple(
        row if row.id not in fold_of else replace(row, split="val" if fold_of[row.id] == fold else "train")
        for row in manifest.rows
    )
    reasons = (_told(manifest, num_folds, fold, seed), *kept_together(rows, frozenset()), *_rare(manifest, num_folds))
    taken = replace(manifest, rows=rows, reasons=reasons)
    check_sides(taken)
    return taken


def fold_numbers(manifest: Manifest, num_folds: int, seed: int) -> dict[str, int]:
    """The fold, from 1, of every image that is not for testing, by id."""
    rows = [row for row in manifest.rows if row.split != "test"]
    records = [Record(id=row.id, path=Path(), labels=row.labels, values=row.values, group=row.group) for row in rows]
    shares = dict.fromkeys(range(1, num_folds + 1), 1 / num_folds)
    return deal(records, manifest.classes, _ties(rows), shares, keyed_seed("folds", seed))


def _ties(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Pairs of ids that tie the rows of each set of duplicates: the image that names the set may be a test image."""
    first: dict[str, str] = {}
    return [(first.setdefault(row.cluster, row.id), row.id) for row in rows if row.cluster is not None]


def _told(manifest: Manifest, num_folds: int, fold: int, seed: int) -> str:
    num_test = len(manifest.ids("test"))
    kept = "given by you" if manifest.origin == "user" else "those of a run without folds"
    others = (
        f"the {num_test} test images are {kept}; the others" if num_test else "the images, none of them for testing,"
    )
    return (
        f"{others} are divided into {num_folds} folds with seed {seed}, and fold {fold} is for validation; "
        "duplicates and groups stay together"
    )


def _rare(manifest: Manifest, num_folds: int) -> list[str]:
    found = Counter(label for row in manifest.rows if row.split != "test" for label in row.labels)
    rare = sorted(label for label, count in found.items() if count < num_folds)
    if not rare:
        return []
    names = ", ".join(rare[:_NAMED]) + (", ..." if len(rare) > _NAMED else "")
    have = "class has" if len(rare) == 1 else "classes have"
    return [f"{len(rare)} {have} fewer images than there are folds ({names}): not every fold can have one"]
