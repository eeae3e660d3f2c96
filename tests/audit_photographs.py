"""Photographs with the times at which a camera says it took them: scenes of several frames each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from snellen.audit.subject import AuditSubject
from snellen.core.record import Listing, Record, Split
from snellen.data.scan import scan
from snellen.data.split import split

Times = Callable[[int], str | None]
_EXIF = 0x8769
_SIDE = 32


def at(second: float) -> str:
    """As a camera writes it, ``second`` after nine o'clock."""
    whole = int(second)
    return f"2024:05:04 {9 + whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}"


def save(path: Path, pixels: np.ndarray, taken: str | None, camera: str = "Canon", fraction: str = "") -> None:
    exif = Image.Exif()
    if camera:
        exif[271], exif[272] = camera, "R5"
    if taken is not None:
        exif.get_ifd(_EXIF).update({36867: taken, **({37521: fraction} if fraction else {})})
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95, exif=exif)


def photographs(
    root: Path,
    seed: int,
    *,
    scenes: int = 24,
    frames: int = 4,
    taken: Times = lambda i: at(60 * (i // 4) + i % 4),
    alike: bool = True,
    sides: Callable[[int], Split] = lambda i: "train" if i % 4 < 3 else "val",
    camera: str = "Canon",
) -> AuditSubject:
    """Scenes of so many frames each, two classes; ``alike``: the frames of a scene show it with a little noise."""
    rng = np.random.default_rng(seed)
    records = []
    scene = np.zeros((4, 4, 3))
    for i in range(scenes * frames):
        if i % frames == 0 or not alike:
            scene = rng.uniform(40, 215, (4, 4, 3))
        pixels = np.kron(scene, np.ones((_SIDE // 4, _SIDE // 4, 1))) + rng.normal(0, 12, (_SIDE, _SIDE, 3))
        path = root / f"{rng.integers(10**9)}.jpg"
        save(path, pixels.clip(0, 255).astype(np.uint8), taken(i), camera)
        label = f"kind {i // frames % 2}"
        records.append(Record(id=path.name, path=path, labels=(label,), split=sides(i)))
    return subject_of(records)


def subject_of(records: Sequence[Record]) -> AuditSubject:
    facts = scan(records, workers=1).facts
    classes = tuple(sorted({label for record in records for label in record.labels}))
    manifest = split(records, pairs=[], classes=classes)
    listing = Listing(root=Path("x"), format="folder", records=list(records), classes=classes)
    return AuditSubject(listing=listing, facts=facts, left_out=[], pairs=[], manifest=manifest)
