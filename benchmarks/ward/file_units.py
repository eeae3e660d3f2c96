"""Units whose fault lies in files: folders of drawn pictures, healthy or spoilt, and what an audit says of them.

No training judges these: a box beside its object is wrong by construction.
"""

from __future__ import annotations

import io
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pictures
from folders import audit, picture
from PIL import Image

Spoil = Callable[[Path, Any, np.random.Generator], None]


def cards(folder: Path, rng: np.random.Generator) -> None:
    """Photographs of one shape each, as JPEG, with sides."""
    for side, number in (("train", 40), ("val", 25)):
        for kind, name in enumerate(pictures.SHAPES):
            place = folder / side / name
            place.mkdir(parents=True)
            for row in range(number):
                picture(pictures.shape(rng, kind, size=48)).save(place / f"{row}.jpg", quality=90)


def boxes(folder: Path, rng: np.random.Generator, number: int = 240) -> None:
    """Objects on a ground, with a COCO file of their boxes."""
    (folder / "images").mkdir(parents=True)
    content: dict[str, list[Any]] = {"images": [], "annotations": [], "categories": []}
    content["categories"] = [
        {"id": count + 1, "name": name} for count, name in enumerate(("disc", "square", "triangle"))
    ]
    for row in range(number):
        image, truth = pictures.scene(rng, size=72)
        picture(image).save(folder / "images" / f"{row}.png")
        content["images"].append({"id": row, "file_name": f"{row}.png", "width": 72, "height": 72})
        for kind in np.unique(truth[truth > 0]):
            down, right = np.nonzero(truth == kind)
            box = [int(right.min()), int(down.min()), int(np.ptp(right)) + 1, int(np.ptp(down)) + 1]
            content["annotations"].append(
                {"id": len(content["annotations"]) + 1, "image_id": row, "category_id": int(kind), "bbox": box}
            )
    (folder / "instances.json").write_text(json.dumps(content))


def masks(folder: Path, rng: np.random.Generator, number: int = 240) -> None:
    """Objects on a ground, with a map of classes for each picture."""
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    for row in range(number):
        image, truth = pictures.scene(rng, size=72)
        picture(image).save(folder / "images" / f"{row}.png")
        Image.fromarray(truth.astype(np.uint8)).save(folder / "masks" / f"{row}.png")


FOLDERS: dict[str, Callable[[Path, np.random.Generator], None]] = {"cards": cards, "boxes": boxes, "masks": masks}


def _files(folder: Path, pattern: str, share: float, rng: np.random.Generator) -> list[Path]:
    return [path for path in sorted(folder.glob(pattern)) if rng.random() < share]


def _truncate(folder: Path, share: float, rng: np.random.Generator) -> None:
    for path in _files(folder, "train/*/*.jpg", share, rng):
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * rng.uniform(0.3, 0.8))])


def _again(
    folder: Path, change: Callable[[Image.Image], Image.Image], share: float, rng: Any, quality: int = 90
) -> None:
    """A share of one class, saved once more."""
    for path in _files(folder, f"*/{pictures.SHAPES[0]}/*.jpg", share, rng):
        change(Image.open(path).copy()).save(path, quality=quality)


def _near_copies(folder: Path, share: float, rng: np.random.Generator) -> None:
    """Images of validation are in training, cropped and compressed once more."""
    for path in _files(folder, "val/*/*.jpg", share, rng):
        copy = Image.open(path).crop((2, 2, 46, 46)).resize((48, 48))
        copy.save(folder / "train" / path.parent.name / f"n{path.name}", quality=70)


def _frames(folder: Path, share: float, rng: np.random.Generator) -> None:
    """Each scene of validation has three neighbours of the same film in training: moved, in other noise and light."""
    for path in _files(folder, "val/*/*.jpg", share, rng):
        pixels = np.asarray(Image.open(path)).astype(float)
        for count in range(3):
            moved = np.roll(pixels, tuple(rng.integers(-3, 4, 2)), (0, 1)) * rng.uniform(0.85, 1.15)
            noisy = np.clip(moved + rng.normal(0, 10, moved.shape), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(folder / "train" / path.parent.name / f"f{count}-{path.name}", quality=90)


def _boxes(change: Callable[[list[float], Any], list[float]]) -> Spoil:
    def spoil(folder: Path, level: Any, rng: np.random.Generator) -> None:
        content = json.loads((folder / "instances.json").read_text())
        for annotation in content["annotations"]:
            annotation["bbox"] = change(annotation["bbox"], level)
        (folder / "instances.json").write_text(json.dumps(content))

    return spoil


def _drop_boxes(folder: Path, share: float, rng: np.random.Generator) -> None:
    content = json.loads((folder / "instances.json").read_text())
    content["annotations"] = [each for each in content["annotations"] if rng.random() >= share]
    (folder / "instances.json").write_text(json.dumps(content))


def _turn(folder: Path, share: float, rng: np.random.Generator) -> None:
    """Files say that they are to be turned; the boxes are of the picture as it is stored."""
    for path in _files(folder, "images/*.png", share, rng):
        image = Image.open(path)
        exif = image.getexif()
        exif[0x0112] = 6
        image.save(path, exif=exif)


def _masks(change: Callable[[Any, Any], Any]) -> Spoil:
    def spoil(folder: Path, level: Any, rng: np.random.Generator) -> None:
        for path in sorted(folder.glob("masks/*.png")):
            Image.fromarray(change(np.asarray(Image.open(path)), level)).save(path)

    return spoil


def _smoothed(truth: Any, factor: int) -> Any:
    """Made smaller and larger again as if it were a photograph."""
    small = Image.fromarray(truth).resize(
        (truth.shape[1] // factor, truth.shape[0] // factor), Image.Resampling.BILINEAR
    )
    return np.asarray(small.resize(truth.shape[::-1], Image.Resampling.BILINEAR))


def _recompressed(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return Image.open(io.BytesIO(buffer.getvalue())).copy()


@dataclass(frozen=True, kw_only=True)
class FileFault:
    name: str
    id: str
    folder: str
    codes: tuple[str, ...]
    levels: tuple[Any, Any, Any]
    spoil: Spoil


def _fault(name: str, number: str, folder: str, codes: str, levels: tuple[Any, Any, Any], spoil: Spoil) -> FileFault:
    return FileFault(name=name, id=number, folder=folder, codes=tuple(codes.split()), levels=levels, spoil=spoil)


_OFF = "boxes-off-edges suspect-boxes lost-annotations objects-at-the-border"
_MASKS = "masks-off-edges suspect-masks"
FILE_FAULTS = {
    fault.name: fault
    for fault in (
        _fault(
            "files-truncated", "D01", "cards", "broken-files truncated-images left-out", (0.02, 0.05, 0.15), _truncate
        ),
        _fault(
            "class-in-grey",
            "D03",
            "cards",
            "shortcut-mode mixed-modes",
            (0.6, 0.9, 1.0),
            lambda f, n, r: _again(f, lambda i: i.convert("L"), n, r),
        ),
        _fault(
            "class-compressed",
            "D10",
            "cards",
            "shortcut-compression",
            (60, 40, 20),
            lambda f, n, r: _again(f, _recompressed, 1.0, r, n),
        ),
        _fault(
            "class-smaller",
            "D10",
            "cards",
            "shortcut-size shortcut-resolution shortcut-shape",
            (0.6, 0.9, 1.0),
            lambda f, n, r: _again(f, lambda i: i.resize((40, 40)), n, r),
        ),
        _fault("near-copies", "S02", "cards", "leak-across-splits near-duplicates", (0.2, 0.5, 0.9), _near_copies),
        _fault(
            "frames-on-both-sides",
            "S03",
            "cards",
            "identity-leak leak-across-splits near-duplicates",
            (0.3, 0.6, 1.0),
            _frames,
        ),
        _fault(
            "boxes-as-corners",
            "L06",
            "boxes",
            _OFF,
            (1, 2, 3),
            _boxes(lambda b, n: [b[0], b[1], b[0] + b[2], b[1] + b[3]]),
        ),
        _fault(
            "boxes-shifted", "L06", "boxes", _OFF, (4, 7, 10), _boxes(lambda b, n: [b[0] + n, b[1] + n, b[2], b[3]])
        ),
        _fault("boxes-mirrored", "L06", "boxes", _OFF, (1, 2, 3), _boxes(lambda b, n: [72 - b[0] - b[2], *b[1:]])),
        _fault("boxes-missing", "L07", "boxes", "suspect-boxes images-without-objects", (0.2, 0.4, 0.6), _drop_boxes),
        _fault("boxes-of-turned-images", "D02", "boxes", f"boxes-of-turned-images {_OFF}", (0.2, 0.5, 1.0), _turn),
        _fault(
            "masks-mirrored",
            "L08",
            "masks",
            _MASKS,
            (1, 2, 3),
            _masks(lambda t, n: t[:, ::-1].copy() if n != 2 else t[::-1].copy()),
        ),
        _fault("masks-shifted", "L08", "masks", _MASKS, (2, 4, 8), _masks(lambda t, n: np.roll(t, n, 1))),
        _fault("masks-smoothed", "L08", "masks", f"mask-values-between {_MASKS}", (2, 3, 4), _masks(_smoothed)),
    )
}


def run_file_unit(folder: str, fault: str, severity: str, seed: int) -> dict[str, Any]:
    """A row like those of ``unit.run_unit``, with the audit as the only doctor."""
    from faults import SEVERITIES

    from snellen.doctor.examine import ranked

    rng = np.random.default_rng([seed, 81])
    started = time.process_time()
    with tempfile.TemporaryDirectory() as place:
        data = Path(place) / "data"
        FOLDERS[folder](data, rng)
        if fault:
            known = FILE_FAULTS[fault]
            known.spoil(data, known.levels[SEVERITIES.index(severity)], rng)
        made = time.process_time()
        findings = ranked(audit(data))
    alarms = [finding.code for finding in findings if finding.is_diagnosis]
    verdict: dict[str, Any] = {"alarms": alarms, "signs": [each.code for each in findings if not each.is_diagnosis]}
    verdict["seconds"] = round(time.process_time() - made, 2)
    if fault:
        right = [code in FILE_FAULTS[fault].codes for code in alarms]
        verdict["rank"] = right.index(True) + 1 if True in right else 0
    key = "/".join((folder, "files", fault or "healthy", severity or "-", str(seed)))
    row = {"key": key, "world": folder, "recipe": "files", "fault": fault, "severity": severity, "seed": seed}
    return {**row, "files": True, "train_seconds": round(made - started, 2), "verdicts": {"snellen": verdict}}
