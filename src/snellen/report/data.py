"""The part about the data: how much of what, what was left out, and how it looks."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from markupsafe import Markup

from snellen.core.estimate import amount
from snellen.draw.chart import Chart
from snellen.draw.charts import bars
from snellen.draw.dots import dots
from snellen.draw.scatter import shares
from snellen.report.album import EXAMPLES_BYTES, SHEET_BYTES, Album
from snellen.report.source import Source
from snellen.report.wording import SPLIT_NAMES, counted

MAX_LEFT_OUT = 100  # files named
MAX_REASONS = 12
MAX_EXAMPLE_CLASSES = 40
MAX_EXAMPLES, MAX_SCENES = 6, 3  # of a class; scenes are larger pictures
_SIDE, _SCENE_SIDE = 160, 400  # pixels
_EXAMPLE = re.compile(r"example-(\d+)-(\d+)\.(?:jpg|jpeg|png|webp)")


@dataclass(frozen=True, slots=True)
class LeftOutReason:
    """Files left out for one reason, with the first of them by name."""

    reason: str
    num: int
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Examples:
    """A few training pictures of a class, as URIs."""

    name: str
    pictures: tuple[Markup, ...]


def target_charts(source: Source) -> list[Chart]:
    """How often each class is there, or how the numbers to be predicted are spread, in each split."""
    values = source.summary.get("values") or {}
    if not values:
        drawn = (object_chart(source), pixel_chart(source), class_chart(source))
        return [chart for chart in drawn if chart is not None]
    charts = []
    for name, spread in values.items():
        medians = ", ".join(f"{SPLIT_NAMES.get(side, side)} {amount(each)}" for side, each in spread["medians"].items())
        caption = f"From {amount(spread['least'])} to {amount(spread['most'])}. Median: {medians}."
        counts = {SPLIT_NAMES.get(side, side): numbers for side, numbers in spread["counts"].items()}
        charts.append(shares(f"How {name} is spread", caption, counts, spread["edges"], x_label=name))
    return charts


def object_chart(source: Source) -> Chart | None:
    """Objects of each class in each split; None where objects are not marked."""
    objects = source.summary.get("objects") or {}
    if not objects:
        return None
    rows = objects["classes"]
    sides = [side for side in source.split_sizes if any(side in row for row in rows)]
    counts = {SPLIT_NAMES.get(side, side): {row["name"]: row.get(side, 0) for row in rows} for side in sides}
    totals = [row["total"] for row in rows] or [0]
    caption = (
        f"{counted(objects['total'], 'object')}. The most common class has {max(totals):,}, the rarest {min(totals):,}."
    )
    return bars("Objects per class", caption, counts, x_label="objects")


def pixel_chart(source: Source) -> Chart | None:
    """What share of the pixels each class has in each split; None where there are no masks."""
    pixels = source.summary.get("pixels") or {}
    if not pixels:
        return None
    rows = sorted(pixels["classes"], key=lambda row: -max((row.get(side, 0) for side in source.split_sizes), default=0))
    sides = [side for side in source.split_sizes if any(row.get(side) for row in rows)]
    values = {SPLIT_NAMES.get(side, side): {row["name"]: row.get(side, 0.0) for row in rows} for side in sides}
    caption = f"Of {counted(pixels['looked_at'], 'mask')}"
    caption += "." if pixels["looked_at"] == pixels["total"] else f" that were looked at, of {pixels['total']:,}."
    if pixels["void"]:
        caption += f" Void pixels, which are {100 * pixels['void']:.1f} %, are left out."
    return dots("Pixels by class", caption, values, x_label="share of the pixels", about="class") if sides else None


def class_chart(source: Source) -> Chart | None:
    """Images of each class in each split; None when the folder lists no images."""
    counts: dict[str, Counter[str]] = {split: Counter() for split in source.split_sizes}
    for row in source.rows:
        counts[row.get("split") or "all"].update(row.get("labels") or ["(nothing)" if source.dense else "(no label)"])
    if not counts:
        return None
    for split in counts.values():
        split.update(dict.fromkeys(source.classes, 0))
    caption = f"{counted(len(source.rows), 'image')} of {counted(len(source.classes), 'class', 'classes')}."
    if len(source.classes) > 1:
        sizes = Counter(label for row in source.rows for label in row.get("labels") or ())
        sizes.update(dict.fromkeys(source.classes, 0))
        caption += f" The largest has {max(sizes.values()):,}, the smallest {min(sizes.values()):,}."
    parts = {SPLIT_NAMES.get(split, split): dict(count) for split, count in counts.items()}
    return bars("Images per class", caption, parts, x_label="images")


def left_out(source: Source) -> list[LeftOutReason]:
    """The most frequent reason first, after twelve the rest together; the first 100 files are named."""
    by_reason: dict[str, list[str]] = {}
    for each in source.data.get("left_out") or ():
        by_reason.setdefault(str(each.get("reason", "")), []).append(str(each.get("path", "")))
    ordered = sorted(by_reason.items(), key=lambda item: -len(item[1]))
    if len(ordered) > MAX_REASONS:
        rest = [path for _, paths in ordered[MAX_REASONS - 1 :] for path in paths]
        ordered = [*ordered[: MAX_REASONS - 1], ("other reasons, told in data.json", rest)]
    room, found = MAX_LEFT_OUT, []
    for reason, paths in ordered:
        found.append(LeftOutReason(reason, len(paths), tuple(paths[:room])))
        room -= len(found[-1].paths)
    return found


def examples(source: Source) -> list[Examples]:
    """For each class its pictures ``example-<class index>-<i>``, no picture twice."""
    files: dict[int, list[str]] = {}
    for path in sorted((source.folder / "pictures").glob("example-*")):
        if match := _EXAMPLE.fullmatch(path.name):
            files.setdefault(int(match[1]), []).append(path.name)
    album = Album(source.folder / "pictures", EXAMPLES_BYTES)
    found = []
    for index, names in sorted(files.items())[:MAX_EXAMPLE_CLASSES]:
        most, side = (MAX_SCENES, _SCENE_SIDE) if source.dense else (MAX_EXAMPLES, _SIDE)
        pictures = [album.fresh(name, side) for name in names[:most]]
        shown = tuple(picture for picture in pictures if picture is not None)
        if shown and index < len(source.classes):
            order = ", from the least to the most" if source.summary.get("values") else ""
            found.append(Examples(source.classes[index] + order, shown))
    return found


def contact_sheet(source: Source) -> Markup | None:
    album = Album(source.folder / "pictures", SHEET_BYTES)
    files = sorted((source.folder / "pictures").glob("contact_sheet.*"))
    return album.picture(files[0].name, 1400) if files else None


def split_note(source: Source) -> str:
    """Who divided the data, in one sentence."""
    match source.manifest.get("origin"):
        case "user":
            return "The data came divided, and was kept so."
        case "snellen":
            return "Snellen divided the data."
        case _:
            return ""
