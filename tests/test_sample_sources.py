"""Samples that are downloaded: small archives of the same form, served by this machine."""

from __future__ import annotations

import gzip
import hashlib
import io
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from snellen.core.console import Console
from snellen.core.errors import DataError
from snellen.data.formats import read
from snellen.data.image import decode
from snellen.data.samples import SAMPLES, sample, sources

Publish = Callable[[Path], None]

CLOTHES = ["T-shirt or top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
VEHICLES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *rest: object) -> None:
        """Nothing: the test's output is its own."""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A folder, and the address under which this machine serves it."""
    folder = tmp_path / "served"
    folder.mkdir()
    monkeypatch.setenv("no_proxy", "*")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        try:
            yield folder, f"http://127.0.0.1:{serving.server_port}/"
        finally:
            serving.shutdown()
            thread.join()


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def pack(path: Path, files: Mapping[str, bytes]) -> str:
    """Write a compressed tar archive -> its MD5."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return md5(path)


def photograph(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (12, 9), (value, 40, 90)).save(file, "JPEG")
    return file.getvalue()


def shown(folder: Path) -> list[tuple[str | None, tuple[str, ...]]]:
    """(side, labels) of every image, as the reader of class folders sees them."""
    listing = read(folder)
    assert listing.left_out == ()
    return sorted((record.split, record.labels) for record in listing.records)


def idx(values: np.ndarray) -> bytes:
    """The IDX format: two zeros, the type (8: unsigned bytes), the number of axes, their lengths, the values."""
    lengths = b"".join(length.to_bytes(4, "big") for length in values.shape)
    return bytes((0, 0, 8, values.ndim)) + lengths + values.astype(np.uint8).tobytes()


def test_fashion_mnist_is_read_from_its_idx_files(
    server: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import FashionMNIST

    folder, address = server
    pixels = np.random.default_rng(0).integers(0, 256, (30, 28, 28), np.uint8)
    labels = np.arange(30) % 10
    resources = []
    for side, chosen in (("train", slice(0, 20)), ("t10k", slice(20, 30))):
        for kind, values in (("images-idx3", pixels[chosen]), ("labels-idx1", labels[chosen])):
            path = folder / f"{side}-{kind}-ubyte.gz"
            path.write_bytes(gzip.compress(idx(values)))
            resources.append((path.name, md5(path)))
    monkeypatch.setattr(FashionMNIST, "mirrors", [address])
    monkeypatch.setattr(FashionMNIST, "resources", resources)
    monkeypatch.setitem(SAMPLES, "fashion-mnist", replace(SAMPLES["fashion-mnist"], url=address))
    made = sample("sample:fashion-mnist", tmp_path / "cache")
    assert shown(made) == sorted([("train", (name,)) for name in CLOTHES * 2] + [("test", (name,)) for name in CLOTHES])
    assert np.array_equal(decode(made / "train" / "Trouser" / "0011.png")[:, :, 1], pixels[11])
    assert np.array_equal(decode(made / "test" / "Ankle boot" / "0009.png")[:, :, 1], pixels[29])


@pytest.fixture
def cifar(server: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> tuple[Path, np.ndarray]:
    """The served archive, and its pixels [30, 32, 32, 3]: five batches of 4 images to train, one of 10 to test."""
    folder, address = server
    pixels = np.random.default_rng(1).integers(0, 256, (30, 32, 32, 3), np.uint8)
    records = [bytes([i % 10]) + image.transpose(2, 0, 1).tobytes() for i, image in enumerate(pixels)]
    files = {f"data_batch_{i + 1}.bin": b"".join(records[4 * i : 4 * i + 4]) for i in range(5)}
    files |= {"test_batch.bin": b"".join(records[20:]), "batches.meta.txt": ("\n".join(VEHICLES) + "\n\n").encode()}
    archive = folder / "cifar-10-binary.tar.gz"
    digest = pack(archive, {f"cifar-10-batches-bin/{name}": content for name, content in files.items()})
    monkeypatch.setattr(sources, "CIFAR10_URL", address + archive.name)
    monkeypatch.setattr(sources, "CIFAR10_MD5", digest)
    monkeypatch.setitem(SAMPLES, "cifar10", replace(SAMPLES["cifar10"], url=address + archive.name))
    return archive, pixels


def test_cifar_is_read_from_its_binary_version(cifar: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    said = io.StringIO()
    made = sample("sample:cifar10", tmp_path / "cache", Console(said))
    expected = [("train", (name,)) for name in VEHICLES * 2] + [("test", (name,)) for name in VEHICLES]
    assert shown(made) == sorted(expected)
    assert np.array_equal(decode(made / "train" / "frog" / "0016.png"), cifar[1][16])
    assert np.array_equal(decode(made / "test" / "truck" / "0009.png"), cifar[1][29])
    assert [line.split(" ")[0] for line in said.getvalue().splitlines()] == ["sample:cifar10:", "Downloading"]


def test_a_sample_is_downloaded_once_and_again_only_when_it_is_damaged(
    cifar: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    made = sample("cifar10", tmp_path)
    archive = cifar[0].rename(cifar[0].with_name("away"))
    assert sample("cifar10", tmp_path) == made
    (made / "test" / "ship" / "0008.png").unlink()
    with pytest.raises(DataError, match="the download failed"):
        sample("cifar10", tmp_path)
    archive.rename(cifar[0])
    assert len(shown(sample("cifar10", tmp_path))) == 30


def cut(archive: Path) -> None:
    archive.write_bytes(archive.read_bytes()[:-9])


@pytest.mark.parametrize("harm", [cut, Path.unlink], ids=["cut short", "not on the server"])
def test_a_failed_download_is_one_line_and_leaves_nothing(
    cifar: tuple[Path, np.ndarray], harm: Callable[[Path], None], tmp_path: Path
) -> None:
    harm(cifar[0])
    with pytest.raises(DataError, match=r"the download failed \(.+\); try again later") as caught:
        sample("cifar10", tmp_path / "cache")
    assert "\n" not in str(caught.value)
    assert [path.name for path in (tmp_path / "cache").rglob("*")] == ["samples"]


def test_pets_keep_their_files_in_folders_of_breeds(
    server: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import OxfordIIITPet

    folder, address = server
    stems = [f"{breed}_{i}" for breed in ("Abyssinian", "yorkshire_terrier") for i in range(1, 5)]
    photographs = {f"images/{stem}.jpg": photograph(10 * i) for i, stem in enumerate(stems)}
    rows = [f"{stem} {1 + i // 4} 1 1" for i, stem in enumerate(stems)]
    lists = {"trainval": [row for i, row in enumerate(rows) if i % 2], "test": rows[::4]}
    texts = {f"annotations/{name}.txt": "\n".join(chosen).encode() for name, chosen in lists.items()}
    archives = {"images.tar.gz": photographs, "annotations.tar.gz": texts}
    resources = [(address + name, pack(folder / name, files)) for name, files in archives.items()]
    monkeypatch.setattr(OxfordIIITPet, "_RESOURCES", resources)
    monkeypatch.setitem(SAMPLES, "pets", replace(SAMPLES["pets"], url=address))
    made = sample("pets", tmp_path / "cache")
    one_of_each = [("test", ("Abyssinian",)), ("test", ("yorkshire terrier",))]
    assert shown(made) == one_of_each + [("train", ("Abyssinian",))] * 2 + [("train", ("yorkshire terrier",))] * 2
    kept = made / "train" / "yorkshire terrier" / "yorkshire_terrier_4.jpg"
    assert kept.read_bytes() == photographs["images/yorkshire_terrier_4.jpg"]


def test_flowers_come_with_all_three_sides(
    server: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scipy.io import savemat
    from torchvision.datasets import Flowers102

    folder, address = server
    photographs = {f"jpg/image_{i:05d}.jpg": photograph(20 * i) for i in range(1, 7)}
    savemat(folder / "imagelabels.mat", {"labels": np.array([[1, 5, 1, 5, 1, 5]], np.uint8)})
    savemat(folder / "setid.mat", {"trnid": [[1, 2]], "valid": [[3, 4]], "tstid": [[5, 6]]})
    files = {"image": ("102flowers.tgz", pack(folder / "102flowers.tgz", photographs))}
    files |= {key: (name, md5(folder / name)) for key, name in (("label", "imagelabels.mat"), ("setid", "setid.mat"))}
    monkeypatch.setattr(Flowers102, "_download_url_prefix", address)
    monkeypatch.setattr(Flowers102, "_file_dict", files)
    monkeypatch.setitem(SAMPLES, "flowers", replace(SAMPLES["flowers"], url=address))
    made = sample("flowers", tmp_path / "cache")
    classes = ("english marigold",), ("pink primrose",)
    assert shown(made) == [(side, labels) for side in ("test", "train", "val") for labels in classes]
    assert (made / "test/english marigold/image_00006.jpg").read_bytes() == photographs["jpg/image_00006.jpg"]


@pytest.fixture
def solar_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package elpv_dataset of four images, one of each probability of a defect."""
    images = tmp_path / "site" / "elpv_dataset" / "data" / "images"
    images.mkdir(parents=True)
    (images.parent.parent / "__init__.py").write_text("raise AssertionError('imported')\n")
    rows = []
    for i, probability in enumerate(("0.0", "0.3333333333333333", "0.6666666666666666", "1.0"), start=1):
        Image.new("L", (20, 20), 50 * i).save(images / f"cell000{i}.png")
        rows.append(f"images/cell000{i}.png  {probability:20} {'mono' if i % 2 else 'poly'}\n")
    (images.parent / "labels.csv").write_text("".join(rows))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return images


def test_solar_cells_are_defective_from_a_probability_of_a_half(solar_cells: Path, tmp_path: Path) -> None:
    made = sample("elpv", tmp_path / "cache")
    found = {path.relative_to(made).as_posix() for path in made.rglob("*.png")}
    expected = {
        "functional/cell0001.png",
        "functional/cell0002.png",
        "defective/cell0003.png",
        "defective/cell0004.png",
    }
    assert found == expected
    assert (made / "defective/cell0004.png").read_bytes() == (solar_cells / "cell0004.png").read_bytes()


def test_solar_cells_without_their_package_say_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install elpv-dataset .*not for commercial use"):
        sample("elpv", tmp_path)


def test_solar_cells_of_a_damaged_package_are_not_taken(solar_cells: Path, tmp_path: Path) -> None:
    (solar_cells / "cell0002.png").unlink()
    with pytest.raises(DataError, match="is damaged"):
        sample("elpv", tmp_path / "cache")
    assert not list((tmp_path / "cache" / "samples").iterdir())


def test_no_pickle_is_read_for_cifar(cifar: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    """A pickle may run anything when it is read; the loader of the pickled version must not even be used."""
    from torchvision.datasets import CIFAR10
    from torchvision.datasets import cifar as loader

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CIFAR10, "__init__", lambda *rest, **more: pytest.fail("the pickled version was asked for"))
        patch.setattr(loader, "pickle", None)
        assert sample("cifar10", tmp_path).is_dir()
    assert "pickle" not in vars(sys.modules[sources.__name__])
