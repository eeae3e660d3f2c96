"""The verb and the command line: what is asked for is written, told and counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import snellen
from command_line import called, tree
from predict_cases import Eyes, save_photos
from snellen.api import predicting
from snellen.api.opening import Opened
from snellen.core.errors import ConfigError


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images below the working folder, and a run that answers for them without having learnt."""
    monkeypatch.chdir(tmp_path)
    opened = Opened(Path("runs/mine"), Eyes("detection"), (), None)
    monkeypatch.setattr(predicting, "check_is_model", lambda path: None)
    monkeypatch.setattr(predicting, "open_model", lambda path, **asked: opened)
    return save_photos(Path("photos"))


def test_without_formats_there_are_predictions_as_ever(photos: Path) -> None:
    predictions = snellen.predict("run", photos)
    assert [prediction.path for prediction in predictions] == sorted(map(str, photos.rglob("*.png")))
    assert sum(prediction.error is not None for prediction in predictions) == 2
    code, out, _ = called(["predict", "run", "photos"])
    assert (code, len(out.splitlines())) == (0, len(predictions))


def test_formats_are_written_to_a_fresh_folder_of_runs(photos: Path) -> None:
    files = snellen.predict("runs/mine", [photos], formats="csv,coco")
    assert isinstance(files, snellen.PredictedFiles)
    assert files.folder.parent == Path("runs") and "predictions-mine" in files.folder.name
    assert tree(files.folder) == {"predictions.csv", "coco.json", "errors.jsonl", "progress.json"}
    assert (files.num_images, files.num_errors) == (11, 2)


def test_the_command_tells_what_it_wrote_and_what_it_could_not_read(photos: Path) -> None:
    Path("list.txt").write_text("photos/a/000.png\nphotos/a/002.png\n", encoding="utf-8")
    code, out, err = called(["predict", "run", "list.txt", "--as", "csv,yolo", "--as", "jsonl", "--out", "out"])
    assert (code, err) == (0, "")
    broken, total, *files = out.splitlines()
    assert broken.startswith("photos/a/002.png  not read: ") and total == "2 images, 1 of them not read:"
    assert [line.split() for line in files] == [
        ["csv", "out/predictions.csv"],
        ["yolo", "out/labels"],
        ["jsonl", "out/predictions.jsonl"],
    ]
    code, out, _ = called(["predict", "run", "photos", "--as", "csv", "--out", "other", "--json"])
    assert json.loads(out) == {
        "folder": "other",
        "formats": {"csv": "other/predictions.csv"},
        "images": 11,
        "errors": 2,
    }


def test_images_that_can_all_not_be_read_are_an_error_beside_the_files(photos: Path) -> None:
    code, out, err = called(["predict", "run", "photos/a/002.png", "--as", "csv", "--out", "out"])
    assert code == 2 and "1 image, 1 of them not read" in out
    assert err.startswith("error: the only image cannot be read")
    assert Path("out/predictions.csv").read_text().count("\n") == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--as xls", "predictions as 'xls' are not known"),
        ("--as masks", "predictions of the task 'detection' cannot be written as masks"),
        ("--resume", "resume goes on with files in a folder"),
        ("--as csv --resume", "resume goes on with files in a folder"),
        ("--every 2", "every = 2 counts frames, and there is no video"),
        ("--as csv --out photos", "photos exists"),
    ],
)
def test_what_is_wrong_is_said_before_any_image_is_read(options: str, words: str, photos: Path) -> None:
    before = tree(Path())
    code, out, err = called(["predict", "run", "photos", *options.split()])
    assert (code, out) == (2, "") and words in err
    assert tree(Path()) == before


def test_an_interrupt_says_how_to_go_on(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["predict", "run", "photos", "--as", "csv,jsonl", "--out", "out"]
    decide = Eyes.decide

    def interrupted(self: Eyes, seen: Any) -> Any:
        if self.seen:
            raise KeyboardInterrupt
        return decide(self, seen)

    with monkeypatch.context() as patch:
        patch.setattr(Eyes, "decide", interrupted)
        code, out, err = called(command)
    assert (code, err) == (130, "error: interrupted\n")
    assert "the same command with --out out --resume goes on" in out
    code, out, err = called([*command, "--resume"])
    assert (code, err) == (0, "") and "11 images" in out
    called([*command[:-1], "whole"])
    for name in ("predictions.csv", "predictions.jsonl"):
        assert Path("out", name).read_bytes() == Path("whole", name).read_bytes()
    assert len(Path("out/predictions.jsonl").read_text(encoding="utf-8").splitlines()) == 11


def test_resuming_needs_formats_in_python_too(photos: Path) -> None:
    with pytest.raises(ConfigError, match="name that folder"):
        snellen.predict("run", photos, resume=True, out="out")
