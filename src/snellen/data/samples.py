"""Small labelled data sets that come with the installed packages: something to try before your own images."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from snellen.core.errors import DataError, StorageError, did_you_mean

PREFIX = "sample:"
"""How a user names a sample where a path is expected: ``sample:digits``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """description: one sentence; licence: with the source; make: writes class folders into an empty folder."""

    description: str
    licence: str
    make: Callable[[Path], None]


def _digits(folder: Path) -> None:
    """8 x 8 grey PNG files, ``<digit>/<position in the data set>.png``; the values 0..16 become 0..255."""
    # Finding the package does not import it: that costs seconds.
    spec = find_spec("sklearn")
    places = [Path(place) / "datasets/data/digits.csv.gz" for place in (spec and spec.submodule_search_locations) or ()]
    source = next((place for place in places if place.is_file()), None)
    if source is None:
        raise DataError("the sample 'digits' comes with scikit-learn, which is not installed; pip install scikit-learn")
    with gzip.open(source, "rt", encoding="ascii") as file:
        table = np.loadtxt(file, delimiter=",")
    for digit in range(10):
        (folder / str(digit)).mkdir()
    pixels = np.rint(table[:, :64] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
    for i, (image, digit) in enumerate(zip(pixels, table[:, 64].astype(int), strict=True)):
        Image.fromarray(image).save(folder / str(digit) / f"{i:04d}.png")


SAMPLES = {
    "digits": Sample(
        description="1,797 handwritten digits of 13 people, 8 x 8 grey pixels, 10 classes of about 180 images each",
        licence=(
            "CC BY 4.0; E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning "
            "Repository, 1998, https://doi.org/10.24432/C50P49; the copy that scikit-learn (BSD-3-Clause) carries"
        ),
        make=_digits,
    ),
}


def sample(name: str, cache: Path) -> Path:
    """The folder of a sample's class folders, below ``cache/samples``; made on first use and whenever it is damaged.

    name  with or without the prefix ``sample:``

    Raises DataError for an unknown name and StorageError when the cache cannot be written.
    """
    chosen = _chosen(name)
    name = name.removeprefix(PREFIX)
    folder = Path(os.path.abspath(cache)) / "samples" / name
    manifest = folder.with_name(f"{name}.sha256")
    try:
        if not _is_complete(folder, manifest):
            _make(chosen, folder, manifest)
    except OSError as error:
        raise StorageError(f"cannot write the sample '{name}' to {folder}: {error.strerror or error}") from error
    return folder


def describe(name: str) -> str:
    """What a sample shows and under which licence, in two lines. Raises DataError for an unknown name."""
    chosen = _chosen(name)
    return f"{chosen.description}\nLicence: {chosen.licence}"


def _chosen(name: str) -> Sample:
    name = name.removeprefix(PREFIX)
    if name not in SAMPLES:
        raise DataError(f"unknown sample '{name}'{did_you_mean(name, SAMPLES)}")
    return SAMPLES[name]


def _digests(folder: Path) -> bytes:
    """One line ``sha256  path`` for each file, as the command sha256sum writes and checks them."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder).as_posix()}" for path in files
    ]
    return ("\n".join(lines) + "\n").encode()


def _is_complete(folder: Path, manifest: Path) -> bool:
    return folder.is_dir() and manifest.is_file() and manifest.read_bytes() == _digests(folder)


def _make(chosen: Sample, folder: Path, manifest: Path) -> None:
    """Write the sample beside its place and move it there, the manifest last: a killed start is not taken for whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    written = partial.with_suffix(".sha256")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir()
        chosen.make(partial)
        digests = _digests(partial)
        manifest.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        try:
            os.replace(partial, folder)
        except OSError:
            # Another process may have put the same files there in between.
            if _digests(folder) != digests:
                raise
        written.write_bytes(digests)
        os.replace(written, manifest)
    finally:
        written.unlink(missing_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
