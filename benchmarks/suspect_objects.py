"""How well the audit finds boxes and masks that were made wrong: a table of what it names, and what it says untouched.

    python benchmarks/suspect_objects.py DATA [DATA ...] [--seeds 3] [--faults moved,dropped]

DATA is a folder or file that Snellen reads, with boxes or masks, or ``ward:boxes`` and ``ward:masks``, which are drawn
anew for each seed. Images are looked at once for all faults, since what is marked changes nothing in them.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from snellen.audit.mask_edges import masks_off_edges
from snellen.audit.places import boxes_off_edges
from snellen.audit.subject import AuditSubject
from snellen.audit.suspect_boxes import suspect_boxes
from snellen.audit.suspect_masks import suspect_masks
from snellen.core.annotation import Annotation, MaskFile
from snellen.core.config import Config
from snellen.core.console import Console
from snellen.core.record import Record
from snellen.data.mask_files import read_mask, save_mask
from snellen.data.survey import read_listing, survey
from snellen.train.dense_embedding import embed_places

CHECKS = (boxes_off_edges, masks_off_edges, suspect_boxes, suspect_masks)


@dataclass
class Planted:
    """records with a fault; wrong: ``(image, box)`` of what was made wrong, or ``(image, None)`` for masks and for
    boxes that were taken away"""

    records: list[Record]
    wrong: set[tuple[str, tuple[float, ...] | None]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="+")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--faults", default="")
    asked = parser.parse_args()
    faults = asked.faults.split(",") if asked.faults else None
    for name in asked.data:
        for seed in range(asked.seeds):
            with tempfile.TemporaryDirectory() as place:
                subject = looked_at(drawn(name, Path(place), seed), Path(place))
                for fault in faults or ["healthy", *(MASKS if subject.listing.has_masks else BOXES)]:
                    print(f"{name:24} seed {seed}  {fault:18} {row(subject, fault, seed, Path(place))}", flush=True)


def drawn(name: str, place: Path, seed: int) -> Path:
    if not name.startswith("ward:"):
        return Path(name)
    sys.path.insert(0, str(Path(__file__).parent / "ward"))
    from file_units import FOLDERS

    FOLDERS[name.removeprefix("ward:")](place / "data", np.random.default_rng([seed, 81]))
    return place / "data"


def looked_at(data: Path, place: Path) -> AuditSubject:
    config, console = Config.of(data=str(data)), Console(quiet=True)
    name, listing = read_listing(config, place / "cache", console)
    known = survey(name, listing, config, console=console, workers=2, cache=place / "cache")
    return AuditSubject(
        listing=known.listing,
        facts=known.facts,
        left_out=known.left_out,
        pairs=known.pairs,
        manifest=known.manifest,
        maps=embed_places(known, config, console),
    )


def row(subject: AuditSubject, fault: str, seed: int, place: Path) -> str:
    planted = Planted(list(subject.listing.records), set())
    if fault != "healthy":
        planted = {**BOXES, **MASKS}[fault](subject, np.random.default_rng([seed, 7]), place)
    spoilt = replace(subject, listing=replace(subject.listing, records=planted.records))
    found = [finding for check in CHECKS for finding in check(spoilt)]
    if not found:
        return f"silent, {len(planted.wrong)} wrong"
    return "; ".join(judged(finding.code, finding.certainty, finding.evidence, planted) for finding in found)


def judged(code: str, certainty: str, evidence: Any, planted: Planted) -> str:
    if code.endswith("edges"):
        return f"{code} ({certainty}): {evidence['reading']} by {evidence['experiment']}"
    if code == "suspect-masks":
        named = {(image, None) for image in evidence["would_fit"]}
    else:
        named = {
            (each["image"], None if each["given"] == "nothing" else tuple(each["box"])) for each in evidence["objects"]
        }
    right = len(named & planted.wrong)
    total = evidence.get("num_suspects", evidence.get("num_wrong", 0) + evidence.get("num_overlooked", 0))
    return (
        f"{code} ({certainty}): {total} named, of the first {len(named)} right {right}; {len(planted.wrong)} are wrong"
    )


# ---- boxes


def _boxes(share: float, change: Callable[[Annotation, Record, Any, Any], Annotation | None]) -> Any:
    def plant(subject: AuditSubject, rng: np.random.Generator, place: Path) -> Planted:
        planted = Planted([], set())
        for record in subject.listing.records:
            kept = []
            for each in record.objects or ():
                if rng.random() >= share:
                    kept.append(each)
                    continue
                new = change(each, record, rng, subject.manifest.classes)
                wrong = new is None or new != each
                if new is not None:
                    kept.append(new)
                if wrong:
                    box = None if new is None else tuple(round(x, 1) for x in new.box)
                    planted.wrong.add((record.id, box))
            planted.records.append(replace(record, objects=tuple(kept)))
        return planted

    return plant


def _moved(each: Annotation, record: Record, rng: Any, classes: Any) -> Annotation:
    """To where it shares less than half of its area with where it was."""
    assert record.size is not None
    (x0, y0, x1, y1), (width, height) = each.box, record.size
    for _ in range(50):
        left, top = rng.uniform(0, width - (x1 - x0)), rng.uniform(0, height - (y1 - y0))
        shared = max(0.0, (x1 - x0) - abs(left - x0)) * max(0.0, (y1 - y0) - abs(top - y0))
        if shared < 0.5 * (x1 - x0) * (y1 - y0):
            return replace(each, box=(left, top, left + x1 - x0, top + y1 - y0))
    return each


def _swapped(each: Annotation, record: Record, rng: Any, classes: Any) -> Annotation:
    return replace(each, label=str(rng.choice([name for name in classes if name != each.label])))


def _dropped(each: Annotation, record: Record, rng: Any, classes: Any) -> None:
    return None


def _mirrored_boxes(each: Annotation, record: Record, rng: Any, classes: Any) -> Annotation:
    assert record.size is not None
    x0, y0, x1, y1 = each.box
    return replace(each, box=(record.size[0] - x1, y0, record.size[0] - x0, y1))


BOXES: dict[str, Any] = {
    "moved 7 %": _boxes(0.07, _moved),
    "classes swapped 5 %": _boxes(0.05, _swapped),
    "dropped 10 %": _boxes(0.10, _dropped),
    "dropped 20 %": _boxes(0.20, _dropped),
    "dropped 40 %": _boxes(0.40, _dropped),
    "all mirrored": _boxes(1.0, _mirrored_boxes),
}


# ---- masks


def _masks(share: float, change: Callable[[Any, Any], Any]) -> Any:
    """change: the image's mask and that of another -> what is written"""

    def plant(subject: AuditSubject, rng: np.random.Generator, place: Path) -> Planted:
        folder = Path(tempfile.mkdtemp(dir=place))
        planted = Planted([], set())
        masked = [record for record in subject.listing.records if record.mask is not None]
        values = {value: value for value in range(len(subject.manifest.classes))}
        for record in subject.listing.records:
            if record.mask is None or rng.random() >= share:
                planted.records.append(record)
                continue
            other = masked[rng.integers(len(masked))].mask
            assert other is not None
            path = folder / f"{len(planted.records)}.png"
            save_mask(np.ascontiguousarray(change(read_mask(record.mask), read_mask(other))), path)
            planted.records.append(replace(record, mask=MaskFile(path=path, values=values)))
            if record.id in (subject.maps or {}):
                planted.wrong.add((record.id, None))
        return planted

    return plant


MASKS: dict[str, Any] = {
    "mirrored 5 %": _masks(0.05, lambda own, other: own[:, ::-1]),
    "mirrored 50 %": _masks(0.50, lambda own, other: own[:, ::-1]),
    "exchanged 5 %": _masks(0.05, lambda own, other: other),
    "all mirrored": _masks(1.0, lambda own, other: own[:, ::-1]),
}

if __name__ == "__main__":
    main()
