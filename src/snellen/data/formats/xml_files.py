"""XML as annotation tools write it: elements and text. A document type or an entity is refused before it can act."""

from __future__ import annotations

import math
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from snellen.core.errors import DataError


def read_xml(file: Path, *, most_bytes: int) -> Element:
    """The root element of a file. Raises DataError when it cannot be read or is no plain XML, or larger."""
    try:
        if file.stat().st_size > most_bytes:
            raise DataError(f"{file} is larger than {most_bytes >> 20} MB, and is not read")
        data = file.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}") from error

    def refuse(*_: object) -> None:
        raise DataError(f"{file} has a DOCTYPE, which could make it read other files; remove it")

    builder = TreeBuilder()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, ValueError, LookupError) as error:  # a wrong or unknown encoding is one of the latter
        raise DataError(f"{file} is not valid XML: {error}") from error
    return builder.close()


def text(element: Element, child: str) -> str:
    """The text of an element's child, without blanks around it; '' where there is none."""
    return (element.findtext(child) or "").strip()


def number(written: str | None) -> float:
    """NaN for what is no number, so that the annotation is lost with a reason and its image is not."""
    try:
        return float(written or "")
    except ValueError:
        return math.nan
