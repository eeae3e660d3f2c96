"""Images that travel with an artifact, and what it must say of them.

They are small, and chosen so that each known fault of deployment (``faults.py``) makes at least one of them come out
otherwise: a machine without torch, or a program in another language, can find out whether it runs the model rightly.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from snellen.core.errors import RunError
from snellen.core.files import write_bytes, write_json
from snellen.core.geometry import squash
from snellen.data.image import decode
from snellen.data.warp import warp_image
from snellen.export.runtimes import Answers, Run

if TYPE_CHECKING:
    from snellen.export.reference import Reference

FOLDER = "golden"
_FEWEST, _MOST = 6, 16
_TWICE = 2  # goldens that should notice a fault, and candidates that it is tried on at a time
_ENOUGH = 8  # candidates tried, after which one that notices it will do
_SURE = 0.05  # the score from which an object must be found again
_AREA = 1.5  # of the input: larger than it in one direction at least, so that a missing antialiasing shows

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """How far numbers may be apart: ``share`` of their size, and ``least`` where they are tiny; and the share of the
    pixels of a map that may differ."""

    share: float = 2e-3
    least: float = 1e-9
    pixels: float = 1e-3


FP32 = Tolerance()
LOOSE = Tolerance(share=0.2, least=0.02, pixels=0.02)  # of 8 bits and of bf16, whose kernels differ between machines


@dataclass(frozen=True, slots=True, eq=False)
class Golden:
    """name  of the file; pixels uint8 [H, W, 3], upright; expected: the answers for it alone"""

    name: str
    pixels: Pixels
    expected: Answers


def candidates_of(images: Sequence[Pixels], input_size: tuple[int, int], seed: int = 0) -> list[Pixels]:
    """Small versions of photographs, of many shapes: wide, tall, larger and smaller than the input. Every third one is
    a half of one image beside a half of another, of which models are seldom sure."""
    rng = np.random.default_rng(seed)
    found = []
    for i, image in enumerate(images):
        if i % 3 == 2 and i:
            image = _side_by_side(image, images[i - 1])
        aspect = np.exp(rng.uniform(-0.6, 0.6))
        area = rng.uniform(0.6, _AREA) * input_size[0] * input_size[1]
        size = (max(8, round(np.sqrt(area * aspect))), max(8, round(np.sqrt(area / aspect))))
        found.append(warp_image(image, squash((image.shape[1], image.shape[0]), size), size))
    return found


def _side_by_side(one: Pixels, other: Pixels) -> Pixels:
    size = (one.shape[1], one.shape[0])
    other = warp_image(other, squash((other.shape[1], other.shape[0]), size), size)
    both = one.copy()
    both[:, size[0] // 2 :] = other[:, size[0] // 2 :]
    return both


def choose(reference: Reference, candidates: Sequence[Pixels], tolerance: Tolerance) -> tuple[list[Golden], list[str]]:
    """Candidates that notice the faults, few but enough; and the names of those faults that none of them notices.

    A fault is tried on some of the candidates, and on further ones while too few of these notice it: a trial costs an
    answer of the network.
    """
    from snellen.export.faults import FAULTS

    expected: dict[int, Answers] = {}

    def expect(some: Iterable[int]) -> None:
        new = [i for i in some if i not in expected]
        if new:
            expected.update(zip(new, reference.all_answers([candidates[i] for i in new]), strict=True))

    noticed: dict[str, set[int]] = {}
    for name, fault in FAULTS.items():
        for start in range(0, len(candidates), _TWICE):
            some = range(start, min(len(candidates), start + _TWICE))
            committed = [i for i in some if reference.is_changed_by(fault, candidates[i])]
            if not committed:
                continue
            expect(committed)
            said = reference.all_answers([candidates[i] for i in committed], fault)
            pairs = zip(committed, said, strict=True)
            seen = noticed.setdefault(name, set())
            seen |= {i for i, answers in pairs if differences(answers, expected[i], tolerance)}
            if len(seen) >= (_TWICE if start + _TWICE < _ENOUGH else 1):
                break
    chosen = _few(noticed, len(candidates))
    expect(chosen)
    goldens = [Golden(f"{n:02}.png", candidates[i], expected[i]) for n, i in enumerate(chosen, start=1)]
    return goldens, [name for name, seen in noticed.items() if not seen]


def _few(noticed: Mapping[str, set[int]], count: int) -> list[int]:
    """Greedily those that notice most of what is not yet noticed by two."""
    chosen: list[int] = []
    need = {name: min(_TWICE, len(seen)) for name, seen in noticed.items()}
    while len(chosen) < min(_MOST, count):
        gains = [sum(need[name] > 0 and i in seen for name, seen in noticed.items()) for i in range(count)]
        for i in chosen:
            gains[i] = -1
        best = int(np.argmax(gains))
        if gains[best] <= 0 and len(chosen) >= min(_FEWEST, count):
            break
        chosen.append(best)
        for name, seen in noticed.items():
            need[name] -= best in seen
    return sorted(chosen)


def differences(said: Answers, expected: Answers, tolerance: Tolerance) -> list[str]:
    """What is not as expected, a line each; empty: all is well."""
    if "boxes" in expected:
        return _objects(said, expected, tolerance)
    found = []
    for name, right in expected.items():
        if name not in said:
            found.append(f"'{name}' is missing")
            continue
        told = said[name]
        if told.shape != right.shape:
            found.append(f"'{name}' is {list(told.shape)}, expected {list(right.shape)}")
        elif right.dtype.kind == "f":
            found += _numbers(name, told.astype(np.float64), right.astype(np.float64), tolerance)
        elif right.size and (told != right).mean() > (tolerance.pixels if right.ndim > 2 else 0.0):
            found.append(f"'{name}' differs in {(told != right).sum()} of {right.size} places")
    return found


def _objects(said: Answers, expected: Answers, tolerance: Tolerance) -> list[str]:
    """Objects have no order where scores are nearly equal, and may be there or not where they are nearly 0: each one
    that is sure enough must have its counterpart, on either side."""
    missing = sorted(set(expected) - set(said))
    if missing:
        return [f"'{missing[0]}' is missing"]
    if not all(np.isfinite(values).all() for values in said.values()):
        return ["an answer is not finite"]
    found = []
    for ours, theirs, what in ((expected, said, "missing"), (said, expected, "not expected")):
        for i in np.flatnonzero(ours["scores"] >= _SURE):
            if not _has_counterpart(ours, int(i), theirs, tolerance):
                box = ", ".join(f"{side:.1f}" for side in ours["boxes"][i])
                found.append(f"an object is {what}: class {ours['labels'][i]}, {ours['scores'][i]:.3f}, at {box}")
    return found


def _has_counterpart(ours: Answers, i: int, theirs: Answers, tolerance: Tolerance) -> bool:
    alike = (theirs["labels"] == ours["labels"][i]) & (theirs["image_index"] == ours["image_index"][i])
    if not alike.any():
        return False
    for name in {"scores", "boxes", "mask_logits"} & set(ours):
        right = ours[name][i].astype(np.float64)
        apart = np.abs(theirs[name].astype(np.float64) - right).reshape(len(alike), -1).max(1, initial=0.0)
        alike &= apart <= tolerance.least + tolerance.share * np.abs(right).max(initial=0.0)
    return bool(alike.any())


def _numbers(name: str, told: NDArray[np.float64], right: NDArray[np.float64], tolerance: Tolerance) -> list[str]:
    if not right.size:
        return []
    if not np.isfinite(told).all():
        return [f"'{name}' is not finite"]
    scale = np.abs(right)
    if name == "values":  # may pass through 0, and say little by a large part of their size
        scale = 0.05 * np.maximum(scale, 0.01 * scale.max())
    apart = np.abs(told - right) - (tolerance.least + tolerance.share * scale)
    if apart.max() <= 0:
        return []
    place = np.unravel_index(int(apart.argmax()), right.shape)
    return [f"'{name}' is {told[place]:.6g}, expected {right[place]:.6g}"]


def check(run: Run, goldens: Sequence[Golden], tolerance: Tolerance) -> list[str]:
    """Every golden by itself through a runtime: what is not as expected, by name."""
    found = []
    for golden in goldens:
        found += [
            f"{golden.name}: {line}" for line in differences(run(golden.pixels[None]), golden.expected, tolerance)
        ]
    return found


def write(folder: Path, goldens: Sequence[Golden]) -> None:
    """Images as PNG, expected answers as numpy arrays in one file, and how closely to look."""
    (folder / FOLDER).mkdir()
    arrays: Any = {}
    for golden in goldens:
        written = io.BytesIO()
        Image.fromarray(golden.pixels).save(written, "PNG")
        write_bytes(folder / FOLDER / golden.name, written.getvalue())
        arrays |= {f"{golden.name}/{name}": values for name, values in golden.expected.items()}
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)
    write_bytes(folder / FOLDER / "expected.npz", packed.getvalue())
    write_json(folder / FOLDER / "images.json", [golden.name for golden in goldens])


def read(folder: Path) -> list[Golden]:
    """Raises RunError when they are missing or damaged."""
    place = folder / FOLDER
    try:
        names = json.loads((place / "images.json").read_text(encoding="utf-8"))
        with np.load(io.BytesIO((place / "expected.npz").read_bytes()), allow_pickle=False) as arrays:
            every = {name: arrays[name] for name in arrays.files}
        return [
            Golden(
                name,
                decode(place / name),
                {key.partition("/")[2]: values for key, values in every.items() if key.partition("/")[0] == name},
            )
            for name in names
        ]
    except FileNotFoundError as error:
        raise RunError(f"{folder} has no goldens to check by: {error.filename} is missing") from None
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise RunError(f"the goldens in {place} are damaged: {error}") from None
