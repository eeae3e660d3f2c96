"""Small data sets on disk, and what to compare of the listings read from them."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from snellen.core.record import Listing


def put(root: Path, *names: str) -> Path:
    """Write a file at each name; images are one white pixel."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() in (".jpg", ".png"):
            Image.new("L", (1, 1), 255).save(path, "PNG")
        else:
            path.write_text("text")
    return root


def left_out(listing: Listing) -> dict[str, str]:
    return {item.path: item.reason for item in listing.left_out}


def ids(listing: Listing) -> list[str]:
    return [record.id for record in listing.records]


def facts(listing: Listing) -> tuple[object, ...]:
    """A listing without the place it was read from."""
    records = [(r.id, r.labels, r.group, r.split) for r in listing.records]
    return records, listing.classes, listing.multi_label
