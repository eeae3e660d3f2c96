"""Plant changed copies of real photographs and count how many are found, and how many pairs are wrong.

    python scripts/measure_duplicates.py FOLDER [--limit 300] [--seed 0]

FOLDER holds photographs (in any depth) without duplicates among them. For every change one row is printed: the share of
the copies that were paired with their original, and how many other pairs were reported.
"""

from __future__ import annotations

import argparse
import io
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from snellen.core.record import Record
from snellen.data.duplicates import find_duplicates
from snellen.data.image import IMAGE_SUFFIXES, decode
from snellen.data.scan import ImageFacts, scan

Change = Callable[[Image.Image, random.Random], Image.Image]


def resized(image: Image.Image, _: random.Random) -> Image.Image:
    return image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC)


def squashed(image: Image.Image, _: random.Random) -> Image.Image:
    return image.resize((224, 224), Image.Resampling.BILINEAR)


def recompressed(image: Image.Image, _: random.Random, quality: int = 40) -> Image.Image:
    written = io.BytesIO()
    image.save(written, "JPEG", quality=quality)
    return Image.open(written).convert("RGB")


def cropped(image: Image.Image, rng: random.Random, area: float = 0.8) -> Image.Image:
    stretch = rng.uniform(-0.05, 0.05)
    width = int(image.width * min(1.0, area**0.5 * (1 + stretch)))
    height = int(image.height * min(1.0, area**0.5 / (1 + stretch)))
    left, top = rng.randint(0, image.width - width), rng.randint(0, image.height - height)
    return image.crop((left, top, left + width, top + height))


def mirrored(image: Image.Image, _: random.Random) -> Image.Image:
    return ImageOps.mirror(image)


def brighter(image: Image.Image, _: random.Random) -> Image.Image:
    return image.point([min(255, int(value * 1.15)) for value in range(256)] * 3)


def chain(*changes: Change) -> Change:
    def changed(image: Image.Image, rng: random.Random) -> Image.Image:
        for change in changes:
            image = change(image, rng)
        return image

    return changed


CHANGES: dict[str, Change] = {
    "resize 50 %": resized,
    "squash to 224 x 224": squashed,
    "JPEG quality 40": recompressed,
    "JPEG quality 30": lambda image, rng: recompressed(image, rng, 30),
    "crop 90 %": lambda image, rng: cropped(image, rng, 0.9),
    "crop 80 %": cropped,
    "crop 70 %": lambda image, rng: cropped(image, rng, 0.7),
    "mirror": mirrored,
    "15 % brighter": brighter,
    "crop 80 % + mirror": chain(cropped, mirrored),
    "resize + quality 40": chain(resized, recompressed),
    "crop 80 % + resize + mirror + quality 40": chain(cropped, resized, mirrored, recompressed),
}


def facts_of(images: dict[str, Image.Image], folder: Path) -> dict[str, ImageFacts]:
    records: list[Record] = []
    for name, image in images.items():
        path = folder / f"{len(records)}.png"
        image.save(path, compress_level=1)
        records.append(Record(id=name, path=path))
    return scan(records).facts


def measure(photos: dict[str, Image.Image], seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        originals = facts_of({f"original {name}": photo for name, photo in photos.items()}, Path(folder))
    pairs = find_duplicates(originals)
    print(f"{len(originals)} originals: {len(pairs)} pairs among them")
    for pair in pairs[:10]:
        print(f"    {pair.similarity:.3f}  {pair.first}  {pair.second}")
    print(f"{'change':42} {'found':>7} {'missed':>7} {'wrong pairs':>12} {'seconds':>8}")
    for name, change in CHANGES.items():
        rng = random.Random(seed)
        with tempfile.TemporaryDirectory() as folder:
            copies = facts_of({f"copy {key}": change(photo, rng) for key, photo in photos.items()}, Path(folder))
        began = time.perf_counter()
        found = find_duplicates({**originals, **copies})
        seconds = time.perf_counter() - began
        right = sum(pair.first.removeprefix("copy ") == pair.second.removeprefix("original ") for pair in found)
        wrong = len(found) - right
        print(f"{name:42} {right / len(copies):7.3f} {len(copies) - right:7} {wrong:12} {seconds:8.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit", type=int, default=300, help="most photographs used (default: 300)")
    parser.add_argument("--seed", type=int, default=0, help="where the crops lie (default: 0)")
    chosen = parser.parse_args()
    paths = sorted(path for path in chosen.folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    picked = paths[:: max(1, len(paths) // chosen.limit)][: chosen.limit]
    photos = {path.relative_to(chosen.folder).as_posix(): Image.fromarray(np.asarray(decode(path))) for path in picked}
    measure(photos, chosen.seed)


if __name__ == "__main__":
    main()
