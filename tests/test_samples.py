from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from snellen.core.errors import DataError, StorageError
from snellen.data import samples
from snellen.data.formats import read
from snellen.data.image import decode
from snellen.data.samples import SAMPLES, describe, sample


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def digits(cache: Path) -> Path:
    return sample("digits", cache)


def test_digits_are_those_of_scikit_learn(digits: Path) -> None:
    from sklearn.datasets import load_digits

    truth = load_digits()
    listing = read(digits)
    assert listing.left_out == ()
    by_position = {int(Path(record.id).stem): record for record in listing.records}
    assert sorted(by_position) == list(range(len(truth.images)))
    for i in range(0, 1797, 7):
        record = by_position[i]
        assert record.labels == (str(truth.target[i]),)
        grey = decode(record.path)[:, :, 0]
        assert np.array_equal(grey, np.rint(truth.images[i] * 255 / 16))


def test_a_complete_sample_is_used_again(digits: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "_make", lambda *rest: pytest.fail("made again"))
    assert sample("sample:digits", cache) == digits


def _small(folder: Path) -> None:
    for name in "ab":
        (folder / name).mkdir()
        (folder / name / "1.png").write_bytes(name.encode())


@pytest.mark.parametrize(
    "harm",
    [
        lambda folder: (folder / "a/1.png").unlink(),
        lambda folder: (folder / "a/1.png").write_bytes(b""),
        lambda folder: (folder / "a/2.png").write_bytes(b"more"),
        lambda folder: folder.with_name("small.sha256").unlink(),
        lambda folder: folder.with_name("small.sha256").write_bytes(b"\xff\xfe"),
        lambda folder: (folder / "a").rename(folder.parent / "gone"),
    ],
    ids=["file gone", "file emptied", "file added", "manifest gone", "manifest damaged", "class gone"],
)
def test_a_damaged_sample_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: Callable[[Path], object]
) -> None:
    monkeypatch.setitem(SAMPLES, "small", samples.Sample(description="two", licence="none", make=_small))
    folder = sample("small", tmp_path)
    harm(folder)
    assert sample("small", tmp_path) == folder
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png")) == ["a/1.png", "b/1.png"]
    assert (folder / "a/1.png").read_bytes() == b"a"
    assert not list(folder.parent.glob(".*"))


def test_a_sample_that_failed_half_way_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(folder: Path) -> None:
        (folder / "a").mkdir()
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(SAMPLES, "small", samples.Sample(description="two", licence="none", make=half))
    with pytest.raises(StorageError, match="No space left"):
        sample("small", tmp_path)
    assert list((tmp_path / "samples").iterdir()) == []


def test_unknown_sample_suggests_the_nearest(tmp_path: Path) -> None:
    for ask in (lambda name: sample(name, tmp_path), describe):
        with pytest.raises(DataError, match="unknown sample 'digit'; did you mean 'digits'"):
            ask("sample:digit")
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_cache_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "samples").write_text("in the way")
    with pytest.raises(StorageError, match="cannot write the sample 'digits'"):
        sample("digits", tmp_path)


@pytest.mark.parametrize("name", SAMPLES)
def test_every_sample_states_its_licence(name: str) -> None:
    assert SAMPLES[name].description in describe(name)
    assert "Licence: " + SAMPLES[name].licence in describe(name)


def test_making_digits_does_not_import_scikit_learn(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from snellen.data.samples import _digits; "
        f"_digits(Path({str(tmp_path)!r})); print('sklearn' in sys.modules)"
    )
    assert (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "False\n"
    )
