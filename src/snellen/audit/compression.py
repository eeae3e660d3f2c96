"""Can a class be told from how its JPEGs were made: quality, colour resolution, camera, program?

As in ``shortcuts``, with rules learned on one half of the images and tried on the other; the headers of a thousand
files are read for it. The size of a file is not looked at: it says what a picture shows, smooth sky or leaves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

import numpy as np
from PIL import JpegImagePlugin

from snellen.audit.shortcuts import answers, chance, halves, members, one_of_each_unit
from snellen.audit.subject import MAX_IMAGES, AuditSubject, listed
from snellen.core.errors import ImageError
from snellen.core.finding import Finding
from snellen.core.record import Record
from snellen.core.seeds import keyed_seed
from snellen.core.thresholds import alpha
from snellen.data.image import opened

_MOST_IMAGES, _MOST_CLASSES = 1_000, 50
_LEAST = 0.6  # Youden's J, as of other shortcuts
_STANDARD_SUM = 3688  # of the 64 steps of the JPEG standard's table for luma, which is quality 50
_CAMERA = {"make": 271, "model": 272, "software": 305}  # EXIF tags

_WORDS = {
    "quality": "quality with which the JPEGs were compressed",
    "sampling": "colour resolution of the JPEGs (chroma subsampling)",
    "camera": "camera that the EXIF data names",
    "software": "program that the EXIF data names",
}
_IN_PIXELS = ("quality", "sampling")  # what a network can see; a camera's name it cannot


def shortcut_compression(subject: AuditSubject) -> Iterator[Finding]:
    """How its files were made gives a class away."""
    if subject.is_marked or subject.manifest.numeric:
        return
    ids = [image_id for image_id in one_of_each_unit(subject) if subject.facts[image_id].format in ("JPEG", "MPO")]
    chosen = sorted(ids, key=lambda image_id: (keyed_seed("header", image_id), image_id))[:_MOST_IMAGES]
    seen = {image_id: made for image_id in sorted(chosen) if (made := _made(subject.records[image_id])) is not None}
    if not seen:
        return
    ids = list(seen)
    half, inside_of = halves(ids), members(subject, ids)
    largest = sorted(inside_of, key=lambda name: (-np.count_nonzero(inside_of[name]), name))[:_MOST_CLASSES]
    level = alpha("shortcut-compression", len(_WORDS) * len(largest))
    found = []
    for prop in _WORDS:
        codes = np.unique([seen[image_id][prop] for image_id in ids], return_inverse=True)[1].astype(np.int64)
        for name in largest:
            inside = inside_of[name]
            said = answers(codes, inside, half) if codes.any() else None
            if said is None:
                continue
            score = float(said[inside].mean() - said[~inside].mean())
            if score >= _LEAST and (p := chance(said > 0.5, inside, half)) < level:
                found.append((score, prop, name, p))
    if not found:
        return
    score, prop, name, p = max(found, key=lambda each: each[0])  # of equals the first property, the largest class
    told = [each for each in found if each[1] == prop]
    examples = [image_id for image_id in ids if name in subject.rows[image_id].labels]
    others = [image_id for image_id in ids if name not in subject.rows[image_id].labels]
    yield Finding(
        code="shortcut-compression",
        severity="warning",
        message=f"The {_WORDS[prop]} alone tells {listed(each[2] for each in told)} from the rest: for {name} it is "
        f"right for {(1 + score) / 2:.0%} of the images (balanced, 50 % is chance).",
        advice="A model can learn this instead of what the picture shows, and fails on files from elsewhere: compress "
        "all images alike, from their originals.",
        evidence={
            "property": prop,
            "youden_j": {each[2]: round(each[0], 3) for each in told[:20]},
            "p": p,
            "median_quality": {
                name: _median_quality(seen, examples),
                "others": _median_quality(seen, others),
            },
        },
        images=tuple(examples[:MAX_IMAGES]),
        certainty="confirmed" if prop in _IN_PIXELS else "observed",
    )


def _made(record: Record) -> Mapping[str, str] | None:
    """What a JPEG's header says of each property; None for what is no JPEG, or has gone."""
    try:
        with opened(record.path) as image:
            if not isinstance(image, JpegImagePlugin.JpegImageFile):
                return None
            tables = {key: list(table) for key, table in sorted(image.quantization.items())}
            exif = image.getexif()
            camera = {name: str(exif.get(tag, "")).strip() for name, tag in _CAMERA.items()}
            return {
                "quality": f"{_quality(tables[0]):03d} {hashlib.sha256(repr(tables).encode()).hexdigest()}",
                "sampling": str(JpegImagePlugin.get_sampling(image)),
                "camera": f"{camera['make']} {camera['model']}",
                "software": camera["software"],
            }
    except (ImageError, KeyError):
        return None


def _quality(table: list[int]) -> int:
    """libjpeg's quality, 1 to 100, that gives a table of about this coarseness."""
    scale = 100 * sum(table) / _STANDARD_SUM
    return round(min(100, max(1, (200 - scale) / 2 if scale <= 100 else 5000 / scale)))


def _median_quality(seen: Mapping[str, Mapping[str, str]], ids: list[str]) -> int:
    return int(np.median([int(seen[image_id]["quality"].split()[0]) for image_id in ids])) if ids else 0
