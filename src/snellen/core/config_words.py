"""What may be written instead of a setting's wrong value, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo


def wish(error: ValidationError, name: str, field: FieldInfo) -> str:
    """For the field ``name``: in a validator's own words, else by the field's type."""
    for fault in error.errors():
        if fault["loc"][0] == name and fault["type"] == "value_error":
            return str(fault["ctx"]["error"])
    *first, last = sorted(_wishes(field.annotation, field.metadata), key=lambda wish: "," in wish)
    return f"use {', '.join(first)}{' or ' if first else ''}{last}"


def _wishes(annotation: Any, constraints: Sequence[Any]) -> Iterator[str]:
    """What a field of this type takes, in words."""
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        for choice in get_args(annotation):
            yield from _wishes(choice, constraints)
    elif origin is Annotated:
        inner, *marks = get_args(annotation)
        yield from _wishes(inner, [each for mark in marks for each in getattr(mark, "metadata", ())])
    elif origin is Literal:
        yield from (f"'{choice}'" for choice in get_args(annotation))
    elif annotation is not NoneType:
        nouns = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
        words = {"gt": "above", "ge": "at least", "le": "at most", "lt": "below"}
        bounds = (f", {words[n]} {getattr(mark, n)}" for mark in constraints for n in words if hasattr(mark, n))
        yield nouns.get(annotation, "three numbers") + "".join(bounds)
