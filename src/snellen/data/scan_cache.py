"""What was seen of images, kept between runs by the sha256 of their files and by the versions that looked at them.

Folds, trials and repeated runs look at the same images. The second time they are read and hashed, but decoded only
where their pixels are needed, and not compared with each other again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import PIL

from snellen.core.console import Console
from snellen.core.errors import StorageError
from snellen.core.files import write_bytes
from snellen.data.duplicates import Duplicate
from snellen.data.fingerprint import Fingerprint, stack
from snellen.data.scan import ImageFacts

_CONDITIONS = f"2 {version('snellen')} {PIL.__version__} {np.__version__}"  # of what is kept, and of what made it
_MOST_IMAGES = 100_000  # 5 kB each
_COLUMNS = [each.name for each in fields(ImageFacts) if each.name != "fingerprint"]


@dataclass(frozen=True, slots=True)
class Seen:
    """facts: by sha256; pairs: the duplicates among the images that ``compared`` names (see ``names_of``)."""

    facts: Mapping[str, ImageFacts]
    pairs: Sequence[Duplicate] = ()
    compared: str = ""


def place_of(cache: Path, data: str, min_side: int | None) -> Path:
    """Where the data's facts are kept. A picture decoded at another scale has other facts."""
    key = hashlib.sha256(
        f"{_CONDITIONS}\n{Path(data).resolve()}\n{min_side}".encode(errors="surrogatepass")
    ).hexdigest()
    return cache / "scans" / f"{key}.npz"


def names_of(facts: Mapping[str, ImageFacts]) -> str:
    """A digest of which images these are, by id and content."""
    told = "\n".join(f"{image_id}\t{facts[image_id].sha256}" for image_id in sorted(facts))
    return hashlib.sha256(told.encode(errors="surrogatepass")).hexdigest()


def load(path: Path) -> Seen:
    """Nothing, where nothing was kept or it is damaged."""
    try:
        with np.load(BytesIO(path.read_bytes()), allow_pickle=False) as kept:
            grey, colour, told = kept["grey"], kept["colour"], json.loads(kept["told"].tobytes())
        facts = {}
        for row, *pictures in zip(told["facts"], grey, colour, strict=True):
            values: dict[str, Any] = {
                name: tuple(each) if isinstance(each, list) else each for name, each in row.items()
            }
            facts[row["sha256"]] = ImageFacts(**values, fingerprint=Fingerprint(*pictures))
        return Seen(facts, [Duplicate(**pair) for pair in told["pairs"]], told["compared"])
    except Exception:  # a single wrong bit makes NumPy and zipfile raise almost anything
        return Seen({})


def save(path: Path, facts: Mapping[str, ImageFacts], pairs: Sequence[Duplicate], console: Console) -> None:
    """Keep the facts, by image id, and the duplicates among all of them. An unwritable cache is told, and no error."""
    if len(facts) > _MOST_IMAGES:
        return
    grey, colour = stack([each.fingerprint for each in facts.values()])
    told: dict[str, Any] = {
        "facts": [{name: getattr(each, name) for name in _COLUMNS} for each in facts.values()],
        "pairs": [asdict(pair) for pair in pairs],
        "compared": names_of(facts),
    }
    content = BytesIO()
    np.savez(content, grey=grey, colour=colour, told=np.frombuffer(json.dumps(told).encode(), np.uint8))
    try:
        write_bytes(path, content.getvalue())
    except StorageError as error:
        console.say(f"  what was seen of the images is not kept: {error}")
