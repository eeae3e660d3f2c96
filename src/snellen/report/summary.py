"""The audit's summary as facts and charts: sizes, brightness, kinds of file, duplicates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from snellen.draw.chart import Chart
from snellen.draw.charts import histogram
from snellen.report.wording import counted

# Entry of the summary -> title, what the x axis says, what to look for.
_DISTRIBUTIONS = {
    "width": ("Width", "width in pixels", "Of the images as they are on disk."),
    "height": ("Height", "height in pixels", "Of the images as they are on disk."),
    "aspect": ("Shape", "width divided by height", "1 is square; far from it an image is squashed a lot."),
    "brightness": ("Brightness", "mean, 0 black to 1 white", "Look at both ends for unusable images."),
}
_OF_OBJECTS = {
    "per_image": ("Objects per image", "objects", "images", "Far to the right are images that are worth a look."),
    "size": (
        "Size of the objects",
        "share of the image's side",
        "objects",
        "Square root of a box's share of the image: at 0.05 it has 32 pixels of an input of 640.",
    ),
    "aspect": ("Shape of the objects", "width divided by height", "objects", "1 is square; 8 stands for all above."),
}
_MIDDLE = 3  # of the seven quantiles: the median


@dataclass(frozen=True, slots=True)
class Fact:
    """``Width``: ``500 px``, ``200 to 800 px``."""

    name: str
    value: str
    note: str = ""


def facts(summary: Mapping[str, Any]) -> list[Fact]:
    found = [
        _range("Median width", summary.get("width") or {}),
        _range("Median height", summary.get("height") or {}),
        _kinds("Colour mode", summary.get("modes") or {}),
        _kinds("File format", summary.get("formats") or {}),
        _rotated(summary.get("orientations") or {}),
        *_duplicates(summary),
        *_marks(summary),
        Fact("Groups", f"{summary['groups']:,}") if summary.get("groups") else None,
    ]
    return [fact for fact in found if fact is not None]


def charts(summary: Mapping[str, Any]) -> list[Chart]:
    """A histogram of each distribution; none where all images are alike."""
    found = []
    for entry, (title, x_label, caption) in _DISTRIBUTIONS.items():
        distribution = summary.get(entry) or {}
        quantiles = distribution.get("quantiles") or []
        if quantiles and quantiles[0] < quantiles[-1]:
            found.append(histogram(title, caption, distribution["counts"], distribution["edges"], x_label=x_label))
    return [*_object_charts(summary.get("objects") or {}), *found]


def _object_charts(objects: Mapping[str, Any]) -> list[Chart]:
    found = []
    for entry, (title, x_label, y_label, caption) in _OF_OBJECTS.items():
        each = objects.get(entry) or {}
        if each.get("quantiles"):
            more = f" The median is {each['quantiles'][_MIDDLE]:.3g}."
            counts, edges = each["counts"], each["edges"]
            found.append(histogram(title, caption + more, counts, edges, x_label=x_label, y_label=y_label))
    return found


def _marks(summary: Mapping[str, Any]) -> list[Fact]:
    objects, pixels = summary.get("objects") or {}, summary.get("pixels") or {}
    found = []
    if objects:
        spread = (objects.get("per_image") or {}).get("quantiles") or []
        note = f"{spread[0]:,.0f} to {spread[-1]:,.0f} in an image" if spread else ""
        found.append(Fact("Objects", f"{objects['total']:,}", note))
        if objects.get("lost"):
            found.append(Fact("Annotations not used", f"{objects['lost']:,}"))
    if pixels.get("void"):
        found.append(Fact("Void pixels", f"{100 * pixels['void']:.1f} %", "neither learnt nor judged"))
    return found


def _range(name: str, distribution: Mapping[str, Any]) -> Fact | None:
    quantiles = distribution.get("quantiles")
    if not quantiles:
        return None
    span = "all alike" if quantiles[0] == quantiles[-1] else f"{quantiles[0]:,.0f} to {quantiles[-1]:,.0f} px"
    return Fact(name, f"{quantiles[_MIDDLE]:,.0f} px", span)


def _kinds(name: str, counts: Mapping[str, int]) -> Fact | None:
    """The most common kind, and how many there are of each."""
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    if not ordered:
        return None
    rest = f"; {len(ordered) - 4} more" if len(ordered) > 4 else ""
    note = ", ".join(f"{kind} {count:,}" for kind, count in ordered[:4]) + rest
    return Fact(name, ordered[0][0], "all images" if len(ordered) == 1 else note)


def _rotated(orientations: Mapping[str, int]) -> Fact | None:
    turned = sum(count for orientation, count in orientations.items() if orientation != "1")
    return Fact("Turned upright", f"{turned:,}", "as their EXIF data says") if turned else None


def _duplicates(summary: Mapping[str, Any]) -> list[Fact]:
    if "redundant_images" not in summary:
        return []
    redundant, across = summary["redundant_images"], summary.get("pairs_across_splits", 0)
    note = f"in {counted(summary.get('duplicate_sets', 0), 'set')} of copies" if redundant else ""
    return [Fact("Duplicates", f"{redundant:,}", note), Fact("Copies across splits", f"{across:,}")]
