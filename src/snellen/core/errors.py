"""What can go wrong, as one tree.

SnellenError                 a user can mend it: one line that says what, where and what to do; exit code 2
├── ConfigError              an unknown setting, or a value that is not allowed
├── DataError                the images, the labels or the split are not fit for what was asked
│   └── ImageError           one file cannot be decoded
├── RunError                 a run folder is missing, taken, damaged, or of a newer version
├── WeightsError             weights are missing or do not fit the model
├── StorageError             no space, or no permission to write
├── ExportError              an exported model does not do what the run does; exit code 1
└── DivergenceError          training produced a NaN or an infinity; says in which module, batch and images; exit code 1
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class SnellenError(Exception):
    """Base of every error that is addressed to the user. Its text is one line."""

    exit_code = 2


class ConfigError(SnellenError):
    pass


class DataError(SnellenError):
    pass


class ImageError(DataError):
    pass


class RunError(SnellenError):
    pass


class WeightsError(SnellenError):
    pass


class StorageError(SnellenError):
    pass


class ExportError(SnellenError):
    exit_code = 1


class DivergenceError(SnellenError):
    exit_code = 1


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint that names the nearest known word, or lists a few of them: ``; did you mean 'resnet18'?``."""
    known = sorted(known)
    near = get_close_matches(word, known, n=1, cutoff=0.5)
    if near:
        return f"; did you mean '{near[0]}'?"
    shown = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
    return f"; known: {shown}" if known else ""
