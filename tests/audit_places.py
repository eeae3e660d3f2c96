"""Images on disk with boxes, masks or borders, healthy and with planted faults, about to be audited."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from audit_data import Data, facts_of
from audit_objects import Marked
from snellen.audit.subject import AuditSubject
from snellen.core.annotation import Box, MaskFile
from snellen.core.record import Record
from snellen.data.formats.drafts import Draft, settle
from snellen.data.scan import scan

SIZE = (160, 120)
FACTS = replace(facts_of(np.random.default_rng(0)), width=SIZE[0], height=SIZE[1])

Misread = Callable[[float, float, float, float], Box]
Change = Callable[[np.ndarray, int], np.ndarray]


@dataclass(frozen=True, eq=False)
class Picture:
    """pixels uint8 [h, w, 3], the true boxes of its objects, and the class of each pixel: 0, 1, 2."""

    pixels: np.ndarray
    boxes: tuple[Box, ...]
    classes: np.ndarray


def picture(rng: np.random.Generator, size: tuple[int, int] = SIZE) -> Picture:
    """Two to four blurred discs and blocks on a ground that is smooth above and rough below, as sky and grass are."""
    width, height = size
    y, x = np.mgrid[:height, :width].astype(np.float64)
    ground = rng.normal(0, 1, (height, width)) * np.linspace(2, 14, height)[:, None] + rng.uniform(90, 160)
    classes = np.zeros((height, width), np.uint8)
    boxes: list[Box] = []
    for _ in range(int(rng.integers(2, 5))):
        w, h = rng.integers(18, 44, 2)
        x0, y0 = int(rng.integers(3, width - w - 3)), int(rng.integers(3, height - h - 3))
        if any(x0 < b[2] + 6 and b[0] < x0 + w + 6 and y0 < b[3] + 6 and b[1] < y0 + h + 6 for b in boxes):
            continue
        kind = int(rng.integers(1, 3))
        across, down = (x + 0.5 - x0 - w / 2) / (w / 2), (y + 0.5 - y0 - h / 2) / (h / 2)
        inside = across**2 + down**2 <= 1 if kind == 1 else np.maximum(abs(across), abs(down)) <= 1
        ground[inside] = rng.choice([30.0, 225.0]) + rng.normal(0, 14, int(inside.sum()))
        classes[inside] = kind
        boxes.append((x0, y0, x0 + float(w), y0 + float(h)))
    grey = np.clip(ground, 0, 255).astype(np.uint8)
    return Picture(np.repeat(grey[:, :, None], 3, axis=2), tuple(boxes), classes)


@cache
def pictures(num: int, seed: int) -> tuple[Picture, ...]:
    rng = np.random.default_rng(seed)
    return tuple(picture(rng) for _ in range(num))


def boxed_images(
    folder: Path,
    misread: Misread | None = None,
    *,
    num: int = 40,
    seed: int = 0,
    orientation: int = 1,
    every: int = 1,
) -> Marked:
    """Images whose boxes stand as ``misread`` has them; every so many of them with an EXIF orientation."""
    records, facts = [], {}
    for i, made in enumerate(pictures(num, seed)):
        path = folder / f"{i:03d}.png"
        turned = orientation if i % every == 0 else 1
        boxes = made.boxes if misread is None or i % every else tuple(misread(*box) for box in made.boxes)
        save(path, made.pixels, turned)
        drafts = [Draft(where="x", label="thing", box=box) for box in boxes]
        objects = settle(drafts, SIZE).objects
        labels = tuple({each.label for each in objects})
        records.append(Record(id=path.name, path=path, labels=labels, objects=objects, size=SIZE))
        facts[path.name] = replace(FACTS, orientation=turned)
    return Marked(records, facts, classes=("thing",))


def save(path: Path, upright: np.ndarray, orientation: int = 1) -> None:
    """Write an image whose EXIF orientation brings it upright; only 1 and 6 (a quarter turn) are known here."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(upright if orientation == 1 else np.ascontiguousarray(np.rot90(upright)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, exif=exif, compress_level=1)


def masked_images(
    folder: Path, change: Change | None = None, *, num: int = 40, seed: int = 0, scale: int = 1
) -> Marked:
    """Images whose masks stand as ``change`` (mask, number of the image) has them. scale: of the values, 1 a class."""
    records, facts = [], {}
    for i, made in enumerate(pictures(num, seed)):
        path, mask = folder / f"{i:03d}.png", folder / f"{i:03d}-mask.png"
        save(path, made.pixels)
        values = made.classes * scale
        save_grey(mask, values if change is None else change(values, i))
        records.append(
            Record(
                id=path.name,
                path=path,
                labels=("disc", "ground"),
                mask=MaskFile(path=mask, values={0: 0, scale: 1, 2 * scale: 2}),
                size=SIZE,
            )
        )
        facts[path.name] = FACTS
    return Marked(records, facts, classes=("ground", "disc", "block"))


def save_grey(path: Path, values: np.ndarray) -> None:
    Image.fromarray(np.ascontiguousarray(values)).save(path)


def photographs(
    folder: Path,
    change: Change | None = None,
    *,
    num: int = 120,
    seed: int = 0,
    options: Mapping[str, int] | None = None,
) -> Data:
    """JPEGs of two classes; ``change`` (pixels, number) is made on the even ones, which are all of class a."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    for i in range(num):
        pixels = photograph(rng, sky=i % 2 == 0)
        if change is not None and i % 2 == 0:
            pixels = change(pixels, i)
        path = folder / f"{i:03d}.jpg"
        Image.fromarray(pixels).save(path, **{"quality": 90, **((options or {}) if i % 2 == 0 else {})})
        records.append(Record(id=path.name, path=path, labels=("ab"[i % 2],)))
    return Data(records, scan(records).facts)


def photograph(rng: np.random.Generator, *, sky: bool, size: tuple[int, int] = (96, 72)) -> np.ndarray:
    """Blobs on a ground; with ``sky`` its upper part is bright and smooth, as that of one class may well be."""
    width, height = size
    coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    pixels = np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)).astype(np.float64)
    if sky:
        share = np.clip(1.5 - np.arange(height) / (height * rng.uniform(0.3, 0.6)), 0, 1)[:, None, None]
        pixels = share * rng.uniform((90, 130, 170), (190, 210, 255)) + (1 - share) * pixels
    return np.clip(pixels + rng.normal(0, 5, pixels.shape), 0, 255).astype(np.uint8)


def cut_off(pixels: np.ndarray, share: float) -> np.ndarray:
    """What a decoder makes of the first part of the file."""
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    whole = buffer.getvalue()
    start = whole.index(b"\xff\xda")
    part = whole[: start + int(share * (len(whole) - start))]
    import PIL.ImageFile

    before = PIL.ImageFile.LOAD_TRUNCATED_IMAGES
    PIL.ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        with Image.open(BytesIO(part)) as image:
            return np.array(image.convert("RGB"))
    finally:
        PIL.ImageFile.LOAD_TRUNCATED_IMAGES = before


# ---- faults


def as_width(x0: float, y0: float, x1: float, y1: float) -> Box:
    """Two corners, read as a corner, width and height."""
    return x0, y0, x0 + x1, y0 + y1


def mirrored(x0: float, y0: float, x1: float, y1: float) -> Box:
    return SIZE[0] - x1, y0, SIZE[0] - x0, y1


def as_stored(x0: float, y0: float, x1: float, y1: float) -> Box:
    """Where a box of the upright image lies in the file that is to be turned by orientation 6."""
    return y0, SIZE[0] - x1, y1, SIZE[0] - x0


def stamp(pixels: np.ndarray, _: int) -> np.ndarray:
    pixels = pixels.copy()
    pixels[3:13, 3:13] = (230, 60, 40)
    return pixels


def bilinear(mask: np.ndarray, _: int) -> np.ndarray:
    small = Image.fromarray(mask).resize((53, 41), Image.Resampling.BILINEAR)
    return np.array(small.resize(SIZE, Image.Resampling.BILINEAR))


def truncated(folder: Path) -> Data:
    data = photographs(folder)
    for i in range(0, 12, 4):
        path = folder / f"{i:03d}.jpg"
        Image.fromarray(cut_off(np.array(Image.open(path)), 0.6)).save(path, quality=95)
    data.facts.update(scan(data.records).facts)
    return data


def planted_places(folder: Path) -> list[AuditSubject]:
    """One for each code of these checks."""
    made: list[Data] = [
        boxed_images(folder / "boxes", mirrored),
        boxed_images(folder / "turned", as_stored, orientation=6),
        masked_images(folder / "masks", lambda mask, _: mask[:, ::-1]),
        masked_images(folder / "between", bilinear, scale=100),
        photographs(folder / "stamps", stamp),
        photographs(folder / "quality", options={"quality": 60}),
        truncated(folder / "truncated"),
    ]
    return [data.subject() for data in made]
