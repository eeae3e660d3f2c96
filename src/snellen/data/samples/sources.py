"""Where the samples' images come from: each function writes class folders into an empty folder.

Archives are fetched by torchvision, which compares their MD5 with the one its authors noted. CIFAR-10 is the exception:
torchvision reads the version in Python pickles, so the same images are taken from the authors' binary version. A pickle
may run anything it likes when it is read, and an MD5, for which collisions are cheap, is no reason to trust one.
"""

from __future__ import annotations

import csv
import gzip
import os
import shutil
import socket
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from snellen.core.errors import DataError

CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
CIFAR10_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"  # as the authors' page says

_ANSWER = 10.0  # seconds in which a host must answer
_SILENCE = 60.0  # seconds without a byte after which a download is given up


def host(url: str) -> str:
    return urlsplit(url).netloc


def reach(url: str, name: str) -> None:
    """Ask whether the host answers: torchvision takes seconds to load, and tries a dead network in several ways.

    name  of the sample, for the error

    Raises DataError when it does not.
    """
    try:
        urlopen(Request(url, method="HEAD"), timeout=_ANSWER).close()
    except HTTPError as answer:
        answer.close()  # what is wrong the download will say
    except (OSError, HTTPException) as error:
        raise DataError(
            f"cannot download the sample '{name}': {host(url)} does not answer ({_cause(error)}); "
            "go online once, or take sample:digits, which needs no network"
        ) from error


def _cause(error: BaseException) -> str:
    inner = error.reason if isinstance(error, URLError) else error
    text = getattr(inner, "strerror", None) or str(inner) or type(inner).__name__
    return str(text).strip().splitlines()[-1].rstrip(".")


@contextmanager
def _downloads(folder: Path) -> Iterator[Path]:
    """An empty folder for archives, gone afterwards. Raises DataError for whatever ends a download."""
    place = folder / ".downloads"
    place.mkdir()
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_SILENCE)  # torchvision sets none, and would wait for ever
    try:
        yield place
    except (URLError, TimeoutError, ConnectionError, HTTPException, RuntimeError, tarfile.TarError, EOFError) as error:
        if isinstance(error, HTTPError):
            error.close()
        raise DataError(
            f"the download failed ({_cause(error)}); try again later, or take sample:digits, which needs no network"
        ) from error
    finally:
        socket.setdefaulttimeout(patience)
        shutil.rmtree(place, ignore_errors=True)


def digits(folder: Path) -> None:
    """8 x 8 grey PNG files, ``<digit>/<position in the data set>.png``; the values 0..16 become 0..255."""
    source = _in_package("sklearn", "datasets/data/digits.csv.gz")
    if source is None:
        raise DataError("the sample 'digits' comes with scikit-learn, which is not installed; pip install scikit-learn")
    with gzip.open(source, "rt", encoding="ascii") as file:
        table = np.loadtxt(file, delimiter=",")
    pixels = np.rint(table[:, :64] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
    _write(folder, pixels, table[:, 64].astype(int), [str(digit) for digit in range(10)])


def fashion_mnist(folder: Path) -> None:
    with _downloads(folder) as place:
        from torchvision.datasets import FashionMNIST

        for side in ("train", "test"):
            data = FashionMNIST(place, train=side == "train", download=True)
            names = [name.replace("/", " or ") for name in data.classes]  # T-shirt/top
            _write(folder / side, data.data.numpy(), data.targets.numpy(), names)


def cifar10(folder: Path) -> None:
    with _downloads(folder) as place:
        from torchvision.datasets.utils import download_and_extract_archive

        download_and_extract_archive(CIFAR10_URL, place, md5=CIFAR10_MD5)
        batches = place / "cifar-10-batches-bin"
        names = (batches / "batches.meta.txt").read_text(encoding="ascii").split()
        for side, pattern in (("train", "data_batch_*.bin"), ("test", "test_batch.bin")):
            # A record is the class and 32 x 32 values of red, then of green, then of blue.
            files = sorted(batches.glob(pattern))
            records = np.concatenate([np.fromfile(file, np.uint8) for file in files]).reshape(-1, 1 + 3 * 32 * 32)
            pixels = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            _write(folder / side, np.ascontiguousarray(pixels), records[:, 0], names)


def pets(folder: Path) -> None:
    """The photographs' files as they are, by breed: ``train/yorkshire terrier/yorkshire_terrier_1.jpg``."""
    with _downloads(folder) as place:
        from torchvision.datasets import OxfordIIITPet

        OxfordIIITPet(place, download=True)
        base = place / "oxford-iiit-pet"
        for side, listing in (("train", "trainval.txt"), ("test", "test.txt")):
            for line in (base / "annotations" / listing).read_text(encoding="ascii").splitlines():
                stem = line.split()[0]
                breed = stem.rpartition("_")[0].replace("_", " ")
                _move(base / "images" / f"{stem}.jpg", folder / side / breed)


def flowers(folder: Path) -> None:
    """The photographs' files as they are, by the flower's name."""
    with _downloads(folder) as place:
        from scipy.io import loadmat
        from torchvision.datasets import Flowers102

        Flowers102(place, download=True)
        base = place / "flowers-102"
        labels = loadmat(base / "imagelabels.mat", squeeze_me=True)["labels"]  # 1..102 of image 1, 2, ...
        sides: Any = loadmat(base / "setid.mat", squeeze_me=True)
        for side, key in (("train", "trnid"), ("val", "valid"), ("test", "tstid")):
            for image in np.atleast_1d(sides[key]).tolist():
                name = Flowers102.classes[int(labels[image - 1]) - 1].rstrip("?")  # "pink-yellow dahlia?"
                _move(base / "jpg" / f"image_{image:05d}.jpg", folder / side / name)


def elpv(folder: Path) -> None:
    """Two classes: an image is defective when the experts' probability of a defect is a half or more."""
    table = _in_package("elpv_dataset", "data/labels.csv")
    if table is None:
        raise DataError(
            "the sample 'elpv' comes with the package elpv-dataset, which is not installed; pip install elpv-dataset "
            "(its images are CC BY-NC-SA 4.0: not for commercial use)"
        )
    with open(table, encoding="ascii", newline="") as file:
        rows = list(csv.reader(file, delimiter=" ", skipinitialspace=True))
    for path, probability, *_ in rows:
        image = table.parent / path
        if not image.is_file():
            raise DataError(f"the package elpv-dataset is damaged, {image} is missing; install it again")
        target = folder / ("defective" if float(probability) >= 0.5 else "functional")
        target.mkdir(exist_ok=True)
        shutil.copyfile(image, target / image.name)


def _in_package(package: str, path: str) -> Path | None:
    """A file of an installed package. Finding the package does not import it: that costs seconds."""
    spec = find_spec(package)
    places = [Path(place) / path for place in (spec and spec.submodule_search_locations) or ()]
    return next((place for place in places if place.is_file()), None)


def _write(folder: Path, images: NDArray[np.uint8], labels: NDArray[Any], names: Sequence[str]) -> None:
    """Images [n, h, w] or [n, h, w, 3] as ``<class>/<position>.png``."""
    for name in names:
        (folder / name).mkdir(parents=True)
    digits_of_position = max(4, len(str(len(images) - 1)))
    for i, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        Image.fromarray(image).save(folder / names[label] / f"{i:0{digits_of_position}d}.png")


def _move(file: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    os.replace(file, folder / file.name)
