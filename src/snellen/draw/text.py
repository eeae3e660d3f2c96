"""Text that others wrote (class names, file names), made fit to be drawn."""

from __future__ import annotations

import re
import unicodedata

# Controls, and the invisible marks that turn the direction of what follows: a name must not disturb its neighbours.
_HIDDEN = frozenset("\u061c\u200b\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")
_SPACE = re.compile(r"[ \t\r\n\f\v]+")  # not the no-break space: it keeps "97 %" together
REPLACEMENT = "\ufffd"


def legible(text: object, limit: int = 120) -> str:
    """``text`` on one line of at most ``limit`` characters, its middle left out when it is longer.

    Control characters, direction marks and lone surrogates (file names that are not UTF-8) become U+FFFD; spaces and
    line breaks become single spaces. The result can be encoded as UTF-8, and is allowed in XML.
    """
    raw = str(text)
    if len(raw) > 8 * limit:  # a name of megabytes is not walked through
        raw = raw[: 4 * limit] + "…" + raw[-4 * limit :]
    clean = "".join(REPLACEMENT if _is_hidden(character) else character for character in _SPACE.sub(" ", raw).strip())
    if len(clean) <= limit:
        return clean
    head = (limit - 1) * 2 // 3
    return f"{clean[:head]}…{clean[len(clean) - (limit - 1 - head) :]}"


def _is_hidden(character: str) -> bool:
    return (
        character in _HIDDEN
        or unicodedata.category(character) in ("Cc", "Cs")
        or character in "\ufffe\uffff"  # not characters, and not allowed in XML
    )
