"""The run's pictures inside the page: small, each file read once, and never more than a fixed number of bytes."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from pathlib import Path

from markupsafe import Markup

from snellen.draw.pictures import thumbnail

# Together 3.7 MB, or 4.6 MB with scenes, of the 5 MB that a page may weigh: browsers stutter above, and mail servers
# refuse it.
SHEET_BYTES, MISTAKES_BYTES, EXAMPLES_BYTES, SCENES_BYTES = 900_000, 900_000, 1_200_000, 1_800_000
FINDINGS_BYTES = 700_000


@dataclass
class Album:
    """Hands out pictures as data URIs until ``budget`` characters are spent. ``refused`` counts those without room.

    The folder may come from anyone: a picture is always decoded and written anew, never copied, and only files
    directly inside ``folder`` are looked at.
    """

    folder: Path
    budget: int
    refused: int = 0
    _seen: set[bytes] = field(default_factory=set)
    _known: dict[tuple[str, int], bytes | None] = field(default_factory=dict)  # findings share pictures

    def picture(self, name: str, max_side: int) -> Markup | None:
        """The picture as a URI; None when it is missing, damaged, or has no room."""
        content = self._content(name, max_side)
        return None if content is None else self._uri(content)

    def fresh(self, name: str, max_side: int) -> Markup | None:
        """As ``picture``; None as well when one with the same content was already handed out."""
        content = self._content(name, max_side)
        if content is None or content in self._seen:
            return None
        return self._uri(content)

    def _content(self, name: str, max_side: int) -> bytes | None:
        if (name, max_side) not in self._known:
            self._known[name, max_side] = self._written_anew(name, max_side)
        return self._known[name, max_side]

    def _written_anew(self, name: str, max_side: int) -> bytes | None:
        import warnings

        from PIL import Image

        path = self.folder / Path(name).name
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # a decompression bomb is a warning first
                with Image.open(path) as image:
                    image.draft("RGB", (max_side, max_side))
                    return thumbnail(image, max_side)
        except (OSError, ValueError, SyntaxError, Warning, Image.DecompressionBombError):
            return None

    def _uri(self, content: bytes) -> Markup | None:
        uri = "data:image/webp;base64," + base64.b64encode(content).decode("ascii")
        if len(uri) > self.budget:
            self.refused += 1
            return None
        self.budget -= len(uri)
        self._seen.add(content)
        return Markup(uri)  # base64 has nothing to escape
