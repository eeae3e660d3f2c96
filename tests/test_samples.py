from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest

from snellen.core.console import Console
from snellen.core.errors import DataError, StorageError
from snellen.data import samples
from snellen.data.formats import read
from snellen.data.image import decode
from snellen.data.samples import SAMPLES, describe, sample, sources


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
    """Two classes of one file each."""
    for name in "ab":
        (folder / name).mkdir()
        (folder / name / "1.png").write_bytes(name.encode())


@pytest.mark.parametrize("by_size", [False, True], ids=["by bytes", "by size"])
@pytest.mark.parametrize(
    "harm",
    [
        lambda folder: (folder / "a/1.png").unlink(),
        lambda folder: (folder / "a/1.png").write_bytes(b""),
        lambda folder: (folder / "a/2.png").write_bytes(b"more"),
        lambda folder: (folder / "a/1.png").rename(folder / "b/2.png"),
        lambda folder: next(folder.parent.glob("small.*")).unlink(),
        lambda folder: next(folder.parent.glob("small.*")).write_bytes(b"\xff\xfe"),
        lambda folder: (folder / "a").rename(folder.parent / "gone"),
    ],
    ids=["file gone", "file emptied", "file added", "file moved", "manifest gone", "manifest damaged", "class gone"],
)
def test_a_damaged_sample_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: Callable[[Path], object], by_size: bool
) -> None:
    small = samples.Sample(description="two", licence="none", make=_small, by_size=by_size)
    monkeypatch.setitem(SAMPLES, "small", small)
    folder = sample("small", tmp_path)
    harm(folder)
    assert sample("small", tmp_path) == folder
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png")) == ["a/1.png", "b/1.png"]
    assert (folder / "a/1.png").read_bytes() == b"a"
    assert not list(folder.parent.glob(".*"))


def test_bytes_that_changed_in_place_are_noticed_in_a_small_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SAMPLES, "small", samples.Sample(description="two", licence="none", make=_small))
    folder = sample("small", tmp_path)
    (folder / "a/1.png").write_bytes(b"x")
    assert (sample("small", tmp_path) / "a/1.png").read_bytes() == b"a"


def test_what_a_killed_process_left_is_swept_and_what_a_living_one_writes_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SAMPLES, "small", samples.Sample(description="two", licence="none", make=_small))
    left, living = (tmp_path / "samples" / f".small.{number}.partial" for number in (1, 2))
    for folder in (left, living):
        folder.mkdir(parents=True)
    day_before_yesterday = time.time() - 2 * 86_400
    os.utime(left, (day_before_yesterday, day_before_yesterday))
    sample("small", tmp_path)
    assert (left.exists(), living.exists()) == (False, True)


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
    assert "https://" in SAMPLES[name].licence


def test_who_uses_a_sample_is_told_its_licence_each_time(cache: Path, digits: Path) -> None:
    said = io.StringIO()
    sample("digits", cache, Console(said))
    assert said.getvalue() == f"sample:digits: {SAMPLES['digits'].licence}\n"


@pytest.mark.parametrize("name", [name for name in SAMPLES if SAMPLES[name].url])
def test_without_a_network_one_line_says_so_before_anything_heavy_is_loaded(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*rest: object, **more: object) -> None:
        raise URLError(OSError(-2, "Name or service not known"))

    monkeypatch.setattr(sources, "urlopen", refused)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)  # importing it would be an error of another kind
    with pytest.raises(DataError, match=r"does not answer \(Name or service not known\); .*sample:digits") as caught:
        sample(name, tmp_path)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.rglob("*")) == []


def test_making_digits_does_not_import_scikit_learn(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from snellen.data.samples.sources import digits; "
        f"digits(Path({str(tmp_path)!r})); print('sklearn' in sys.modules)"
    )
    assert (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "False\n"
    )
