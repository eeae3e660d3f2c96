"""How many changed copies of photographs are found as copies, and how many of the pairs found are wrong.

    python benchmarks/near_duplicates.py photos/ cells/
    RIVALS/bin/python benchmarks/near_duplicates.py photos/ --ways snellen,phash-0,phash-10,cnn-0.9,cleanvision

The folders hold photographs (in any depth), each of another scene. Every photograph gets ``--copies`` changed copies,
each with another change of the list below, written to files as JPEG. Originals and copies are searched together, so the
photographs are each other's negatives, and those of one kind (cells, parts) are the hard ones.

found      share of the copies that were paired with their original, directly
linked     share of the copies that are in a cluster with their original, as a group-wise split sees it
precision  of all pairs reported, those within one photograph's family. Wrong pairs are printed: look at them. Originals
           that are one picture are named in the file given as ``--same``, a group of names a line, and count as right

The other ways need imagededup and cleanvision, which are no part of the project, and are left out where they can't be
imported. imagededup's own weights are downloaded by it; where that fails, its CNN runs on EfficientNet-Lite0.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import logging
import random
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

Change = Callable[[Image.Image, random.Random], Image.Image]
Pairs = set[tuple[str, str]]


# ---- changes


def cropped(area: float) -> Change:
    """A crop of that share of the area at a random place, its aspect changed by up to 5 %."""

    def change(image: Image.Image, rng: random.Random) -> Image.Image:
        stretch = 1 + rng.uniform(-0.05, 0.05)
        width = round(image.width * min(1.0, area**0.5 * stretch))
        height = round(image.height * min(1.0, area**0.5 / stretch))
        left, top = rng.randint(0, image.width - width), rng.randint(0, image.height - height)
        return image.crop((left, top, left + width, top + height))

    return change


def resized(scale: float) -> Change:
    def change(image: Image.Image, _: random.Random) -> Image.Image:
        size = (round(image.width * scale), round(image.height * scale))
        return image.resize(size, Image.Resampling.BICUBIC)

    return change


def recompressed(quality: int) -> Change:
    def change(image: Image.Image, _: random.Random) -> Image.Image:
        written = io.BytesIO()
        image.save(written, "JPEG", quality=quality)
        return Image.open(written).convert("RGB")

    return change


def lit(factor: float) -> Change:
    return lambda image, _: image.point([min(255, round(value * factor)) for value in range(256)] * 3)


def turned(how: Image.Transpose) -> Change:
    return lambda image, _: image.transpose(how)


def chain(*changes: Change) -> Change:
    def changed(image: Image.Image, rng: random.Random) -> Image.Image:
        for change in changes:
            image = change(image, rng)
        return image

    return changed


MIRROR, UPSIDE_DOWN = turned(Image.Transpose.FLIP_LEFT_RIGHT), turned(Image.Transpose.FLIP_TOP_BOTTOM)
QUARTER, HALF = turned(Image.Transpose.ROTATE_90), turned(Image.Transpose.ROTATE_180)
CHANGES: dict[str, Change] = {
    "crop to 90 % of the area": cropped(0.9),
    "crop to 80 %": cropped(0.8),
    "crop to 70 %": cropped(0.7),
    "half the size": resized(0.5),
    "1.5 times the size": resized(1.5),
    "squashed to a square": lambda image, _: image.resize((min(image.size),) * 2, Image.Resampling.BICUBIC),
    "JPEG quality 60": recompressed(60),
    "JPEG quality 30": recompressed(30),
    "mirrored left to right": MIRROR,
    "mirrored top to bottom": UPSIDE_DOWN,
    "quarter turn": QUARTER,
    "half turn": HALF,
    "20 % brighter": lit(1.2),
    "20 % darker": lit(0.8),
    "crop to 80 % + mirrored": chain(cropped(0.8), MIRROR),
    "crop to 90 % + quarter turn": chain(cropped(0.9), QUARTER),
    "crop to 80 % + half the size + quality 30": chain(cropped(0.8), resized(0.5), recompressed(30)),
    "mirrored + 20 % brighter + quality 60": chain(MIRROR, lit(1.2), recompressed(60)),
    "crop to 80 % + 20 % darker + 1.5 times": chain(cropped(0.8), lit(0.8), resized(1.5)),
    "turned by 25 degrees, black corners": lambda image, _: image.rotate(25, Image.Resampling.BICUBIC),
}


# ---- the files


@dataclass(frozen=True)
class Planted:
    """Files in one folder: originals by name, and for every copy its original and change."""

    folder: Path
    originals: dict[str, str]  # name -> the path it came from
    copies: dict[str, tuple[str, str]]  # name -> original's name, change

    def family(self, name: str) -> str:
        return self.copies[name][0] if name in self.copies else name


def plant(sources: Sequence[Path], folder: Path, copies: int, seed: int) -> Planted:
    """Write originals and copies. Changes go round, so that each is used about equally often."""
    names, originals, planted = list(CHANGES), {}, {}
    for number, path in enumerate(sources):
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGB")
        original = f"{number:05}.jpg"
        image.save(folder / original, quality=95)
        originals[original] = str(path)
        rng = random.Random(f"{seed} {path.name}")
        for i in range(copies):
            change = names[(number * copies + i) % len(names)]
            name = f"{number:05}-{i}.jpg"
            CHANGES[change](image, rng).save(folder / name, quality=95)
            planted[name] = (original, change)
    return Planted(folder, originals, planted)


# ---- ways to search


def by_snellen(folder: Path) -> Pairs:
    from snellen.core.record import Record
    from snellen.data.duplicates import find_duplicates
    from snellen.data.scan import scan

    facts = scan([Record(id=path.name, path=path) for path in sorted(folder.iterdir())]).facts
    began = time.perf_counter()
    found = find_duplicates(facts)
    print(f"    (of which the search {time.perf_counter() - began:.1f} s)")
    return {(pair.first, pair.second) for pair in found}


def by_phash(distance: int) -> Callable[[Path], Pairs]:
    def search(folder: Path) -> Pairs:
        from imagededup.methods import PHash

        method = PHash(verbose=False)
        encodings = method.encode_images(image_dir=folder, num_enc_workers=1)
        found = method.find_duplicates(
            encoding_map=encodings, max_distance_threshold=distance, num_enc_workers=1, num_dist_workers=1
        )
        return _pairs_of(found)

    return search


def by_cnn(similarity: float) -> Callable[[Path], Pairs]:
    def search(folder: Path) -> Pairs:
        from imagededup.methods import CNN

        try:
            method = CNN(verbose=False)
        except OSError:
            print("    (MobileNetV3's weights could not be downloaded: EfficientNet-Lite0 instead)")
            method = CNN(verbose=False, model_config=_lite0())
        found = method.find_duplicates(image_dir=folder, min_similarity_threshold=similarity, num_sim_workers=1)
        return _pairs_of(found)

    return search


def _lite0() -> Any:
    from imagededup.utils import CustomModel
    from torchvision import transforms

    from snellen.nn.efficientnet_lite import EfficientNetLite0
    from snellen.nn.pretrained import load_embedded

    model = EfficientNetLite0()
    load_embedded(model)
    steps = [transforms.Resize((256, 256)), transforms.CenterCrop(224), transforms.ToTensor()]
    steps.append(transforms.Normalize([0.5] * 3, [0.5] * 3))
    return CustomModel(name="EfficientNet-Lite0", model=model.eval(), transform=transforms.Compose(steps))


def by_cleanvision(folder: Path) -> Pairs:
    from cleanvision import Imagelab

    with contextlib.redirect_stdout(io.StringIO()):
        lab = Imagelab(data_path=str(folder), verbose=False)
        lab.find_issues({"exact_duplicates": {}, "near_duplicates": {}}, n_jobs=1, verbose=False)
    pairs: Pairs = set()
    for kind in ("exact_duplicates", "near_duplicates"):
        for group in lab.info.get(kind, {}).get("sets", []):
            pairs |= _all_pairs(Path(name).name for name in group)
    return pairs


def _pairs_of(found: dict[str, list[str]]) -> Pairs:
    return {(min(one, other), max(one, other)) for one, others in found.items() for other in others}


def _all_pairs(names: Iterable[str]) -> Pairs:
    ordered = sorted(names)
    return {(one, other) for i, one in enumerate(ordered) for other in ordered[i + 1 :]}


WAYS: dict[str, tuple[str, Callable[[Path], Pairs]]] = {
    "snellen": ("snellen", by_snellen),
    "phash-0": ("imagededup", by_phash(0)),
    "phash-10": ("imagededup", by_phash(10)),
    "cnn-0.9": ("imagededup", by_cnn(0.9)),
    "cleanvision": ("cleanvision", by_cleanvision),
}


# ---- what was found


@dataclass(frozen=True)
class Outcome:
    way: str
    seconds: float
    pairs: int
    wrong: list[tuple[str, str]]
    found: dict[str, list[bool]]  # change -> of each copy
    linked: dict[str, list[bool]]


def judge(way: str, pairs: Pairs, seconds: float, planted: Planted, same: dict[str, str]) -> Outcome:
    def family(name: str) -> str:
        original = planted.family(name)
        return same.get(Path(planted.originals[original]).name, original)

    wrong = sorted((one, other) for one, other in pairs if family(one) != family(other))
    leader = _leaders(planted, pairs)
    found, linked = defaultdict(list), defaultdict(list)
    for copy, (original, change) in planted.copies.items():
        found[change].append((original, copy) in pairs or (copy, original) in pairs)
        linked[change].append(leader(copy) == leader(original))
    return Outcome(way, seconds, len(pairs), wrong, found, linked)


def _leaders(planted: Planted, pairs: Pairs) -> Callable[[str], str]:
    parent = {name: name for name in (*planted.originals, *planted.copies)}

    def leader(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for one, other in pairs:
        parent[leader(one)] = leader(other)
    return leader


def show(outcomes: Sequence[Outcome], planted: Planted) -> None:
    print(f"\n{'found':44}" + "".join(f"{each.way:>12}" for each in outcomes))
    for change in CHANGES:
        cells = "".join(f"{np.mean(each.found[change]):12.3f}" for each in outcomes)
        print(f"{change:44}{cells}   of {len(outcomes[0].found[change])}")
    rows: dict[str, Callable[[Outcome], str]] = {
        "found, all changes": lambda each: f"{_share(each.found.items()):.4f}",
        "found, without the turn by 25 degrees": lambda each: f"{_share(_upright(each.found)):.4f}",
        "linked, without the turn by 25 degrees": lambda each: f"{_share(_upright(each.linked)):.4f}",
        "precision": lambda each: f"{1 - len(each.wrong) / max(each.pairs, 1):.5f}",
        "pairs": lambda each: str(each.pairs),
        "wrong pairs": lambda each: str(len(each.wrong)),
        "seconds per 1,000 images": lambda each: f"{1000 * each.seconds / _number(planted):.1f}",
    }
    for name, tell in rows.items():
        print(f"{name:44}" + "".join(f"{tell(each):>12}" for each in outcomes))


def _share(rows: Iterable[tuple[str, list[bool]]]) -> float:
    return float(np.mean([each for _, values in rows for each in values]))


def _upright(rows: dict[str, list[bool]]) -> Iterator[tuple[str, list[bool]]]:
    return ((change, values) for change, values in rows.items() if "25 degrees" not in change)


def _number(planted: Planted) -> int:
    return len(planted.originals) + len(planted.copies)


def show_wrong(outcome: Outcome, planted: Planted, most: int) -> None:
    for one, other in outcome.wrong[:most]:
        told = []
        for name in (one, other):
            change = planted.copies[name][1] if name in planted.copies else "original"
            told.append(f"{Path(planted.originals[planted.family(name)]).name} ({change})")
        print(f"    wrong: {told[0]}  {told[1]}")


def read_same(path: Path | None) -> dict[str, str]:
    """File name -> the first name of its group."""
    lines = path.read_text().splitlines() if path else []
    return {name: line.split()[0] for line in lines for name in line.split() if not line.startswith("#")}


def photographs(folders: Sequence[Path], most: int) -> list[Path]:
    """At most ``most`` of every folder, evenly spaced."""
    picked: list[Path] = []
    for folder in folders:
        paths = sorted(each for each in folder.rglob("*") if each.suffix.lower() in {".jpg", ".jpeg", ".png"})
        picked += paths[:: max(1, -(-len(paths) // most))]
    return picked


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--copies", type=int, default=8, help="of every photograph (default: 8)")
    parser.add_argument("--most", type=int, default=1_000, help="photographs of every folder (default: 1,000)")
    parser.add_argument("--ways", default="snellen", help=f"some of {','.join(WAYS)} (default: snellen)")
    parser.add_argument("--same", type=Path, help="groups of originals that are one picture")
    parser.add_argument("--keep", type=Path, help="an empty or missing folder where the files stay")
    parser.add_argument("--wrong", type=int, default=10, help="wrong pairs told of each way (default: 10)")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    logging.disable(logging.INFO)
    folder = chosen.keep or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    try:
        planted = plant(photographs(chosen.folders, chosen.most), folder, chosen.copies, chosen.seed)
        print(f"{len(planted.originals)} photographs, {len(planted.copies)} copies")
        outcomes = []
        for way in chosen.ways.split(","):
            package, search = WAYS[way]
            if importlib.util.find_spec(package) is None:
                print(f"{way}: {package} is not installed")
                continue
            began = time.perf_counter()
            pairs = search(folder)
            outcomes.append(judge(way, pairs, time.perf_counter() - began, planted, read_same(chosen.same)))
            print(f"{way}: {len(pairs)} pairs in {outcomes[-1].seconds:.0f} s", flush=True)
            show_wrong(outcomes[-1], planted, chosen.wrong)
        if outcomes:
            show(outcomes, planted)
    finally:
        if chosen.keep is None:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
