"""When and by which camera images were taken, by their EXIF data, and which of them are frames of one burst."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

from PIL import Image

from snellen.core.errors import ImageError
from snellen.core.record import Record
from snellen.data.image import opened

BURST_SECONDS = 3.0  # between two frames, at most
_MOST_AT_ONCE = 30  # images of one camera in one second: where there are more, the clock stood still
_MOST_IMAGES = 20_000  # headers that are read
_MAKE, _MODEL, _EXIF = 271, 272, 0x8769
_TAKEN, _FRACTION, _SERIAL = 36867, 37521, 42033
_FORMATS = ("JPEG", "MPO", "TIFF", "WEBP", "PNG", "AVIF")


def find_bursts(records: Mapping[str, Record], formats: Mapping[str, str]) -> dict[str, list[str]]:
    """Ids of images of one camera, each taken within three seconds of the next, by a name for each burst.

    Images without a camera or a time are in none, nor are those of a second in which the camera took over thirty.
    """
    ids = [image_id for image_id in sorted(records) if formats.get(image_id) in _FORMATS][:_MOST_IMAGES]
    taken: dict[str, list[tuple[float, str]]] = {}
    for image_id in ids:
        known = _taken(records[image_id])
        if known is not None:
            taken.setdefault(known[0], []).append((known[1], image_id))
    bursts: dict[str, list[str]] = {}
    for camera, times in sorted(taken.items()):
        counts = Counter(int(time) for time, _ in times)
        kept = sorted(each for each in times if counts[int(each[0])] <= _MOST_AT_ONCE)
        for run in _runs(kept):
            bursts[f"{camera} {datetime.fromtimestamp(run[0][0], UTC):%Y-%m-%d %H:%M:%S}"] = [each for _, each in run]
    return bursts


def _runs(times: Sequence[tuple[float, str]]) -> Iterator[list[tuple[float, str]]]:
    """Stretches of two images or more without a longer pause."""
    run: list[tuple[float, str]] = []
    for each in times:
        if run and each[0] - run[-1][0] > BURST_SECONDS:
            if len(run) > 1:
                yield run
            run = []
        run.append(each)
    if len(run) > 1:
        yield run


def _taken(record: Record) -> tuple[str, float] | None:
    """The camera, and the second in which it took the image, in its own time."""
    try:
        with opened(record.path) as image:
            exif = Image.Image.getexif(image)
            within = exif.get_ifd(_EXIF)
            camera = " ".join(str(each or "").strip(" \0") for each in (exif.get(_MAKE), exif.get(_MODEL)))
            serial, said = str(within.get(_SERIAL, "")).strip(" \0"), str(within.get(_TAKEN, "")).strip(" \0")
            fraction = str(within.get(_FRACTION, "")).strip(" \0")
    except ImageError:
        return None
    try:
        second = datetime.strptime(said, "%Y:%m:%d %H:%M:%S").replace(tzinfo=UTC).timestamp()
    except (ValueError, OverflowError, OSError):
        return None
    if not camera.strip():
        return None
    return f"{camera} {serial}".strip(), second + (float(f"0.{fraction}") if fraction.isdecimal() else 0.0)
