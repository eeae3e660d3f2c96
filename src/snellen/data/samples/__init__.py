"""Labelled data sets that are named instead of given as a path: something to try before your own images.

A sample is written once, as class folders below ``cache/samples``, whole or not at all, and checked on every later use.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from snellen.core.errors import DataError, StorageError, did_you_mean
from snellen.data.samples import sources

if TYPE_CHECKING:
    from snellen.core.console import Console

PREFIX = "sample:"
"""How a user names a sample where a path is expected: ``sample:digits``."""

_STALE = 86_400  # seconds after which a half-made sample was left by a killed process


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What can be named.

    description  one sentence
    licence      with the source
    make         writes class folders into an empty folder
    url          what is downloaded, or None when the images come with an installed package
    megabytes    of the download
    by_size      on later uses the files are counted and their sizes compared, instead of their bytes
    """

    description: str
    licence: str
    make: Callable[[Path], None]
    url: str | None = None
    megabytes: int = 0
    by_size: bool = False


# by_size: for 70,000 images the digests take 3.8 s (2 cores, files in memory) and the sizes 0.6 s, at every start. What
# a size does not show is still noticed: each image is decoded before training, and PNG files carry checksums.
SAMPLES = {
    "digits": Sample(
        description="1,797 handwritten digits of 13 people, 8 x 8 grey pixels, 10 classes of about 180 images each",
        licence=(
            "CC BY 4.0; E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning "
            "Repository, 1998, https://doi.org/10.24432/C50P49; the copy that scikit-learn (BSD-3-Clause) carries"
        ),
        make=sources.digits,
    ),
    "fashion-mnist": Sample(
        description="70,000 articles of clothing, 28 x 28 grey pixels, 10 classes; 60,000 to train, 10,000 to test",
        licence=(
            "MIT, copyright 2017 Zalando SE; H. Xiao, K. Rasul and R. Vollgraf, Fashion-MNIST, 2017, "
            "https://github.com/zalandoresearch/fashion-mnist"
        ),
        make=sources.fashion_mnist,
        url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/train-images-idx3-ubyte.gz",
        megabytes=31,
        by_size=True,
    ),
    "cifar10": Sample(
        description="60,000 photographs, 32 x 32 pixels, 10 classes; 50,000 to train, 10,000 to test",
        licence=(
            "NONE STATED: the authors ask to be cited and grant nothing else, and the photographs are from the web, so "
            "use it for research and teaching; A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, "
            "2009, https://www.cs.toronto.edu/~kriz/cifar.html"
        ),
        make=sources.cifar10,
        url=sources.CIFAR10_URL,
        megabytes=162,
        by_size=True,
    ),
    "pets": Sample(
        description="7,349 photographs of cats and dogs of 37 breeds; 3,680 to train, 3,669 to test",
        licence=(
            "CC BY-SA 4.0, the photographs' copyright stays with their owners; O. M. Parkhi, A. Vedaldi, A. Zisserman "
            "and C. V. Jawahar, Cats and Dogs, 2012, https://www.robots.ox.ac.uk/~vgg/data/pets/"
        ),
        make=sources.pets,
        url="https://www.robots.ox.ac.uk/~vgg/data/pets/data/images.tar.gz",
        megabytes=811,
        by_size=True,
    ),
    "flowers": Sample(
        description="8,189 photographs of 102 kinds of flowers; 1,020 to train, 1,020 to validate, 6,149 to test",
        licence=(
            "NONE STATED: the photographs are from the web, so use it for research and teaching; M.-E. Nilsback and "
            "A. Zisserman, Automated Flower Classification over a Large Number of Classes, 2008, "
            "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"
        ),
        make=sources.flowers,
        url="https://www.robots.ox.ac.uk/~vgg/data/flowers/102/102flowers.tgz",
        megabytes=345,
        by_size=True,
    ),
    "elpv": Sample(
        description=(
            "2,624 solar cells under electroluminescence, 300 x 300 grey pixels: 821 that experts called defective "
            "(probability 2/3 or 1) and 1,803 functional (0 or 1/3); cells of one of the 44 modules are not marked as "
            "such, so they are on all sides"
        ),
        licence=(
            "CC BY-NC-SA 4.0, NOT FOR COMMERCIAL USE; S. Deitsch et al., Automatic classification of defective "
            "photovoltaic module cells in electroluminescence images, Solar Energy 185, 2019, "
            "https://github.com/zae-bayern/elpv-dataset; the copy in the package elpv-dataset"
        ),
        make=sources.elpv,
    ),
}


def sample(name: str, cache: Path, console: Console | None = None) -> Path:
    """The folder of a sample's class folders, below ``cache/samples``; made on first use and whenever it is damaged.

    name     with or without the prefix ``sample:``
    console  is told the licence, and where a download comes from

    Raises DataError for an unknown name or when the images cannot be had, and StorageError when the cache cannot be
    written.
    """
    chosen = _chosen(name)
    name = name.removeprefix(PREFIX)
    folder = Path(os.path.abspath(cache)) / "samples" / name
    if console is not None:
        console.say(f"{PREFIX}{name}: {chosen.licence}")
    try:
        if not _is_complete(chosen, folder):
            if chosen.url is not None:
                sources.reach(chosen.url, name)
                if console is not None:
                    console.say(f"Downloading {chosen.megabytes} MB from {sources.host(chosen.url)}, once")
            _make(chosen, folder)
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


def _manifest(chosen: Sample, folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.{'sizes' if chosen.by_size else 'sha256'}")


def _contents(chosen: Sample, folder: Path) -> bytes:
    """One line for each file: ``sha256  path``, as the command sha256sum writes and checks them, or ``bytes  path``."""
    lines = []
    for path, _, names in os.walk(folder):
        below = os.path.relpath(path, folder).replace(os.sep, "/")
        for name in names:
            file = os.path.join(path, name)
            if chosen.by_size:
                known = str(os.stat(file).st_size)
            else:
                known = hashlib.sha256(Path(file).read_bytes()).hexdigest()
            lines.append((f"{below}/{name}" if below != "." else name, known))
    return "".join(f"{known}  {path}\n" for path, known in sorted(lines)).encode()


def _is_complete(chosen: Sample, folder: Path) -> bool:
    manifest = _manifest(chosen, folder)
    return folder.is_dir() and manifest.is_file() and manifest.read_bytes() == _contents(chosen, folder)


def _make(chosen: Sample, folder: Path) -> None:
    """Write the sample beside its place and move it there, the manifest last: a killed start is not taken for whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    manifest = _manifest(chosen, folder)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    written = partial.with_suffix(manifest.suffix)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir()
        chosen.make(partial)
        contents = _contents(chosen, partial)
        manifest.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        try:
            os.replace(partial, folder)
        except OSError:
            # Another process may have put the same files there in between.
            if _contents(chosen, folder) != contents:
                raise
        written.write_bytes(contents)
        os.replace(written, manifest)
    finally:
        written.unlink(missing_ok=True)
        shutil.rmtree(partial, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Remove what processes that were killed have left of this sample: it may be a gigabyte."""
    for partial in folder.parent.glob(f".{folder.name}.*.partial"):
        if time.time() - partial.stat().st_mtime > _STALE:
            shutil.rmtree(partial, ignore_errors=True)
