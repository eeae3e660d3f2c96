"""A prediction that was killed goes on, and its files are in the end those of one that never was, byte for byte."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from predict_cases import BATCH, NAMES, Eyes, save_photos, tree
from snellen.core.errors import ConfigError, RunError
from snellen.core.files import held
from snellen.predict import writing
from snellen.predict.predictor import Predictor
from snellen.predict.sources import Images
from snellen.predict.writers.table import WRITERS, fitting
from snellen.predict.writing import STATE, PredictedFiles, write_predictions

NUM = 11
KILLS = [1, 4, 6, 11]  # images after which it comes; batches end at 4, 8 and 11


PICTURES = "pictures-jpg"


class Killed(BaseException):
    """Nobody catches it, as nobody does a kill."""


@pytest.fixture(autouse=True)
def kept_after_each_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "_KEPT_EVERY", 0.0)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return save_photos(tmp_path / "photos", NUM)


def formats_of(task: str) -> list[str]:
    """All that fit; pictures, which take long, of one task."""
    return [
        name for name in fitting(WRITERS, task) if "pictures" not in name or (task, name) == ("detection", PICTURES)
    ]


def predicted(
    task: str,
    photos: Path,
    out: Path,
    *,
    eyes: Eyes | None = None,
    formats: Sequence[str] | None = None,
    asked: dict[str, Any] | None = None,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> PredictedFiles:
    return write_predictions(
        Predictor(eyes or Eyes(task)),
        Images([photos]),
        out,
        formats or formats_of(task),
        asked=asked or {},
        resume=True,
        advance=advance,
    )


def killed_after(num: int) -> Callable[[int, int], None]:
    def advance(done: int, total: int) -> None:
        assert total == NUM
        if done == num:
            raise Killed

    return advance


@pytest.mark.parametrize("task", NAMES)
def test_a_killed_prediction_ends_as_one_that_was_not(task: str, photos: Path, tmp_path: Path) -> None:
    whole = predicted(task, photos, tmp_path / "whole")
    for kill in KILLS:
        out = tmp_path / f"killed-{kill}"
        with pytest.raises(Killed):
            predicted(task, photos, out, advance=killed_after(kill))
        assert tree(out) != tree(tmp_path / "whole")
        eyes = Eyes(task)
        resumed = predicted(task, photos, out, eyes=eyes)
        assert tree(out) == tree(tmp_path / "whole")
        assert (resumed.num_images, resumed.num_errors) == (whole.num_images, whole.num_errors)
        if kill > BATCH:
            assert sum(eyes.seen) <= NUM - BATCH - 1, "the first batch was answered before"


def test_kills_one_after_another_and_between_the_writers_lose_nothing(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last of the writers is killed at each image, when the others have written it; then as the end is written."""
    predicted("instances", photos, tmp_path / "whole")
    sound = WRITERS["masks"].__dict__["add"]
    left = iter(range(NUM))

    def add(self: Any, answer: Any) -> None:
        if answer.target is None or next(left, None) is None:
            return sound(self, answer)  # type: ignore[no-any-return]
        raise Killed

    kills = 0
    with monkeypatch.context() as patch:
        patch.setattr(WRITERS["masks"], "add", add)
        while True:
            try:
                predicted("instances", photos, tmp_path / "out")
                break
            except Killed:
                kills += 1
    assert kills == NUM and tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_two_predictions_do_not_write_one_folder_at_once(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with held(tmp_path / "out"), pytest.raises(RunError, match="is being written by another process: wait"):
        predicted("classification", photos, tmp_path / "out")
    assert not any((tmp_path / "out").iterdir())
    assert predicted("classification", photos, tmp_path / "out").num_images == NUM


@pytest.mark.parametrize("step", ["finish", "tidy"])
def test_a_kill_at_the_end_is_made_good(
    step: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predicted("detection", photos, tmp_path / "whole")

    def killed(*given: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(WRITERS["coco"], step, killed)
        predicted("detection", photos, tmp_path / "out")
    assert tree(tmp_path / "out") != tree(tmp_path / "whole")
    eyes = Eyes("detection")
    predicted("detection", photos, tmp_path / "out", eyes=eyes)
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")
    assert sum(eyes.seen) == 0


def test_half_a_line_and_half_a_file_are_cut_off(photos: Path, tmp_path: Path) -> None:
    predicted("segmentation", photos, tmp_path / "whole")
    with pytest.raises(Killed):
        predicted("segmentation", photos, tmp_path / "out", advance=killed_after(6))
    for name in ("predictions.csv", "predictions.jsonl", "errors.jsonl"):
        with open(tmp_path / "out" / name, "ab") as file:
            file.write(b'{"path": "half a li')
    (tmp_path / "out" / "masks" / ".snellen-tmp-x").write_bytes(b"half")
    predicted("segmentation", photos, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_what_is_finished_is_not_done_again(photos: Path, tmp_path: Path) -> None:
    first = predicted("detection", photos, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    eyes = Eyes("detection")
    assert predicted("detection", photos, tmp_path / "out", eyes=eyes) == first
    assert eyes.seen == [] and {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before


def test_another_command_is_refused_and_says_what_differs(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        predicted("detection", photos, tmp_path / "out", asked={"tile": None}, advance=killed_after(5))
    before = tree(tmp_path / "out")
    with pytest.raises(ConfigError, match=r"out was begun with tile = null, and now it is 640: give the same again"):
        predicted("detection", photos, tmp_path / "out", asked={"tile": 640})
    with pytest.raises(ConfigError, match=r'begun with formats = \["pictures-jpg", .* now it is \["csv"\]'):
        predicted("detection", photos, tmp_path / "out", formats=["csv"], asked={"tile": None})
    with pytest.raises(ConfigError, match="begun with images = "):
        predicted("detection", photos / "a", tmp_path / "out", asked={"tile": None})
    shutil.copy(photos / "a" / "000.png", photos / "a" / "000b.png")
    with pytest.raises(ConfigError, match=r"the first 4 images are no longer those that .*out was begun with"):
        predicted("detection", photos, tmp_path / "out", asked={"tile": None})
    assert tree(tmp_path / "out") == before


def test_what_is_in_the_way_is_named(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("mine")
    with pytest.raises(RunError, match="taken exists and no prediction was begun there: choose another --out"):
        predicted("detection", photos, tmp_path / "taken")
    with pytest.raises(Killed):
        predicted("detection", photos, tmp_path / "out", advance=killed_after(5))
    (tmp_path / "out" / "predictions.csv").unlink()
    with pytest.raises(RunError, match=r"predictions\.csv is shorter than when it was left"):
        predicted("detection", photos, tmp_path / "out")


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"version": 99}', b'{"version": 1, "odd": 2}'])
def test_a_damaged_state_is_named(content: bytes, photos: Path, tmp_path: Path) -> None:
    predicted("detection", photos, tmp_path / "out")
    (tmp_path / "out" / STATE).write_bytes(content)
    with pytest.raises(RunError, match=r"progress\.json is damaged .*: begin again"):
        predicted("detection", photos, tmp_path / "out")


def test_a_kill_before_the_first_image_begins_anew(photos: Path, tmp_path: Path) -> None:
    predicted("regression", photos, tmp_path / "whole")

    class Deaf(Eyes):
        def decide(self, seen: Sequence[Any]) -> list[Any]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predicted("regression", photos, tmp_path / "out", eyes=Deaf("regression"))
    assert json.loads((tmp_path / "out" / STATE).read_text())["done"] == 0
    predicted("regression", photos, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")
