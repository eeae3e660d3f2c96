"""The verbs in Python: typed results, every layout of data from end to end, and nothing touched that is not ours."""

from __future__ import annotations

import hashlib
import inspect
import io
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import snellen
from command_line import tree
from conftest import FinishedRun
from shapes import SHAPES, picture, save_folders, save_table
from snellen.core.console import Console

pytestmark = pytest.mark.usefixtures("undrawn")

# One thread and one arithmetic, so that nothing is measured.
FIXED: dict[str, Any] = {"device": "cpu", "precision": "fp32", "threads": 1, "workers": 1}


def silent() -> Console:
    return Console(io.StringIO())


def said(console: Console) -> str:
    assert isinstance(console.stream, io.StringIO)
    return console.stream.getvalue()


def train(data: Path, place: Path, **settings: Any) -> snellen.Run:
    """One epoch into place/run, with the cache in place/cache."""
    given = {**FIXED, "epochs": 1, "cache": str(place / "cache"), **settings}
    return snellen.train(data, out=place / "run", console=silent(), **given)


def state_of(folder: Path) -> dict[str, tuple[int, str]]:
    """Modification time and hash of every file, by its path."""
    return {
        str(path): (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "")
        for path in (folder, *folder.rglob("*"))
    }


@pytest.fixture
def run(finished_run: FinishedRun) -> snellen.Run:
    return snellen.Run(finished_run.folder)


@pytest.fixture
def moved(finished_run: FinishedRun, tmp_path: Path) -> tuple[snellen.Run, Path]:
    """A copy of the run whose data is a copy as well, which a test may spoil."""
    data = tmp_path / "moved" / "shapes"
    shutil.copytree(finished_run.data, data)
    shutil.copytree(finished_run.folder, tmp_path / "run")
    settings = tmp_path / "run" / "config.toml"
    settings.write_text(settings.read_text().replace(str(finished_run.data), str(data)))
    return snellen.Run(tmp_path / "run"), data


# ---- a run


def test_verbs_stay_functions_although_there_are_rooms_of_their_names() -> None:
    from snellen.train import loop

    assert loop.__name__ == "snellen.train.loop"
    for name in ("train", "audit", "evaluate", "predict", "compare"):
        assert inspect.isfunction(getattr(snellen, name)), name


def test_run_tells_what_it_knows(run: snellen.Run, finished_run: FinishedRun) -> None:
    assert (run.path, run.status) == (finished_run.folder, "done")
    assert run.report.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert "sealed test images" in run.verdict and run.verdict.endswith(".")
    assert set(run.metrics) == {"val", "test"}
    accuracy = run.metrics["test"]["accuracy"]
    assert isinstance(accuracy, snellen.Estimate) and accuracy.low is not None and accuracy.n > 0
    assert all(isinstance(finding, snellen.Finding) for finding in run.findings)
    assert json.loads(json.dumps(run.to_json())) == json.loads(finished_run.stdout)
    assert str(finished_run.folder) in repr(run) and "done" in repr(run)


def test_run_shows_itself_in_a_notebook(run: snellen.Run) -> None:
    html = run._repr_html_()
    assert "<img" in html and "accuracy" in html.lower()
    assert "<script" not in html


def test_predictions_are_in_the_order_of_the_images(run: snellen.Run, finished_run: FinishedRun) -> None:
    named = [finished_run.data / "square" / "003.png", finished_run.data / "circle" / "001.png"]
    predictions = run.predict(named)
    assert [prediction.path for prediction in predictions] == [str(path) for path in named]
    for prediction in predictions:
        assert isinstance(prediction, snellen.Prediction)
        assert prediction.label in SHAPES and prediction.error is None
        assert prediction.confidence is not None and 1 / 3 <= prediction.confidence <= 1
    folder = run.predict(finished_run.data)
    assert [prediction.path for prediction in folder] == sorted(map(str, finished_run.data.rglob("*.png")))
    alone = {prediction.path: prediction.to_json() for prediction in folder}
    for prediction in predictions:  # what else is asked for changes nothing
        assert alone[prediction.path]["label"] == prediction.label
        np.testing.assert_allclose(alone[prediction.path]["confidence"], prediction.confidence, atol=1e-6)


def test_prediction_shows_itself_as_a_picture(run: snellen.Run, finished_run: FinishedRun, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"junk")
    good, bad = run.predict([finished_run.data / "circle" / "000.png", broken])
    shown = good._repr_png_()
    assert shown is not None and Image.open(io.BytesIO(shown)).format == "PNG"
    assert (bad.label, bad.confidence, bad._repr_png_()) == (None, None, None)
    assert bad.error is not None and "broken.png" in bad.error


@pytest.mark.parametrize("nothing", ["", [], [""]])
def test_predicting_nothing_is_an_error(run: snellen.Run, nothing: Any) -> None:
    with pytest.raises(snellen.SnellenError, match="image"):
        run.predict(nothing)


def test_results_are_written_where_asked(run: snellen.Run, finished_run: FinishedRun, tmp_path: Path) -> None:
    predictions = snellen.predict(run, finished_run.data, out=tmp_path / "answers", console=silent())
    written = json.loads((tmp_path / "answers" / "predictions.json").read_text(encoding="utf-8"))
    assert written == [prediction.to_json() for prediction in predictions]
    evaluation = snellen.evaluate(run, finished_run.data, out=tmp_path / "numbers", console=silent())
    assert json.loads((tmp_path / "numbers" / "evaluation.json").read_text()) == evaluation.to_json()


# ---- evaluation


def test_own_test_images_give_the_numbers_of_the_run(moved: tuple[snellen.Run, Path]) -> None:
    run, _ = moved
    evaluation = snellen.evaluate(run, console=silent())
    for split, numbers in run.metrics.items():
        for name, estimate in numbers.items():
            assert evaluation.numbers[split][name].value == pytest.approx(estimate.value, abs=1e-6), (split, name)
    console = silent()
    snellen.evaluate(run, console=console)
    assert "used 3 times" in said(console)


def test_evaluation_on_other_data_is_by_its_name(run: snellen.Run, tmp_path: Path) -> None:
    other = save_folders(tmp_path / "others", per_class=4, side=8, seed=1)
    before = state_of(run.path)
    numbers = snellen.evaluate(run, other, console=silent()).numbers
    assert set(numbers) == {"others"} and numbers["others"]["accuracy"].n == 12
    assert state_of(run.path) == before


def test_evaluation_on_images_that_the_model_learnt_from_says_so(
    run: snellen.Run, finished_run: FinishedRun, tmp_path: Path
) -> None:
    rows = run.folder.read_json("data.json")["manifest"]["rows"]
    num_known = sum(row["split"] != "test" for row in rows)
    console = silent()
    snellen.evaluate(run, finished_run.data, console=console)
    assert f"warning: {num_known} of the 30 images of shapes are among" in said(console)
    console = silent()
    snellen.evaluate(run, save_folders(tmp_path / "new", per_class=4, side=8, seed=9), console=console)
    assert "warning" not in said(console)


def test_evaluation_on_classes_that_the_model_lacks_names_them(run: snellen.Run, tmp_path: Path) -> None:
    other = save_folders(tmp_path / "others", per_class=2, side=8)
    (other / "circle").rename(other / "oval")
    with pytest.raises(snellen.SnellenError, match="'oval' is not one of the classes"):
        snellen.evaluate(run, other, console=silent())


def test_without_its_data_a_run_predicts_and_evaluation_says_what_is_missing(moved: tuple[snellen.Run, Path]) -> None:
    run, data = moved
    image = data.parent / "kept.png"
    shutil.copy(data / "circle" / "000.png", image)
    test_image = next(
        row["id"] for row in run.folder.read_json("data.json")["manifest"]["rows"] if row["split"] == "test"
    )
    (data / test_image).unlink()
    with pytest.raises(snellen.SnellenError, match=f"1 of the 9 val and test images .*{test_image}: put"):
        snellen.evaluate(run, console=silent())
    shutil.rmtree(data)
    with pytest.raises(snellen.SnellenError, match="shapes does not exist"):
        snellen.evaluate(run, console=silent())
    assert run.predict(image)[0].label in SHAPES


# ---- what is left alone


def test_data_is_never_changed_and_what_is_odd_in_it_is_told(tmp_path: Path) -> None:
    data = save_folders(tmp_path / "photos", per_class=8, side=8)
    (data / "circle" / "broken.png").write_bytes(b"junk")
    (data / "star").mkdir()
    Image.fromarray(np.full((8, 8, 3), 200, np.uint8)).save(data / "star" / "0.png")
    before = state_of(data)
    run = train(data, tmp_path)
    audit = snellen.audit(data, out=tmp_path / "audit", console=silent())
    run.predict(data)
    snellen.evaluate(run, data, console=silent())
    assert state_of(data) == before
    assert {path.split("/")[0] for path in tree(tmp_path)} - {"cache"} == {"photos", "run", "audit"}
    assert run.folder.plan.classes == ("circle", "square", "star", "triangle")
    for folder in (run.path, audit.folder):
        told = json.loads((folder / "data.json").read_text(encoding="utf-8"))
        assert [left["path"] for left in told["left_out"]] == ["circle/broken.png"]
        assert any("single image" in note and "star" in note for note in told["notes"])


def test_default_run_folder_is_a_fresh_one_in_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = save_folders(tmp_path / "my photos!", per_class=8, side=8)
    monkeypatch.chdir(tmp_path)
    one = snellen.audit(data, cache=str(tmp_path / "cache"), console=silent())
    two = snellen.audit(data, cache=str(tmp_path / "cache"), console=silent())
    assert one.folder != two.folder and one.folder.parent == two.folder.parent == Path("runs")
    assert "my-photos" in one.folder.name and one.report.is_file()


# ---- settings


def test_time_limit_ends_in_good_order(tmp_path: Path) -> None:
    data = save_folders(tmp_path / "photos", per_class=8, side=8)
    run = train(data, tmp_path, epochs=100_000, time_limit="1s")
    assert run.status == "done" and run.report.is_file()
    assert run.to_json()["ended"] == "time limit"
    assert run.predict(data / "circle")[0].label in SHAPES


def test_run_can_be_watched_and_ended_from_outside(tmp_path: Path) -> None:
    from snellen.api.training import train_run

    class Watcher(list[dict[str, Any]]):
        def __call__(self, event: Mapping[str, Any]) -> None:
            self.append(dict(event))

        def close(self) -> None:
            self.append({"event": "closed"})

    watcher = Watcher()
    data = save_folders(tmp_path / "photos", per_class=8, side=8)
    config = snellen.Config.of(data=str(data), cache=str(tmp_path / "cache"), epochs=9, groups="none", **FIXED)

    def bored() -> str | None:
        return "bored" if sum(event["event"] == "epoch" for event in watcher) == 2 else None

    run = train_run(config, tmp_path / "run", silent(), watch=[watcher], should_stop=bored, report=False)
    assert [event["epoch"] for event in watcher if event["event"] == "epoch"] == [1, 2]
    assert all("val/accuracy" in event and "seconds" in event for event in watcher if event["event"] == "epoch")
    assert watcher[-1] == {"event": "closed"}
    assert run.status == "done" and run.to_json()["ended"] == "bored" and not run.report.exists()


def test_no_epochs_give_the_probe(tmp_path: Path) -> None:
    data = save_folders(tmp_path / "photos", per_class=8, side=16)
    run = train(data, tmp_path, epochs=0, model="tf_efficientnet_lite0", input_size=32)
    told = run.to_json()
    assert told["shipped"] == "linear probe"
    probe = told["baselines"]["linear probe"]
    for split, numbers in told["splits"].items():  # the network's own answers, and those of the fitted weights
        assert numbers["log_loss"]["value"] == pytest.approx(probe[split]["log_loss"]["value"], rel=1e-3)
    assert "as asked" in run.verdict


def test_settings_of_python_and_of_a_file_are_checked_alike(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("epochs = -1\n")
    with pytest.raises(snellen.SnellenError, match="did you mean 'epochs'"):
        snellen.train("photos", epoch=3)
    with pytest.raises(snellen.SnellenError, match=r"settings\.toml: epochs = -1"):
        snellen.train("photos", config=file)
    with pytest.raises(snellen.SnellenError, match="photos does not exist"):
        snellen.train("photos", config=file, epochs=1)
    with pytest.raises(snellen.SnellenError, match="data = ''"):
        snellen.train("")


# ---- every layout, from end to end


def save_split(root: Path, *splits: str) -> Path:
    for number, split in enumerate(splits):
        save_folders(root / split, per_class=5, side=8, seed=number)
    return root


@pytest.mark.parametrize(
    ("splits", "sides", "words"),
    [
        (("train", "val", "test"), {"val", "test"}, "sealed test images"),
        (("train", "val"), {"val"}, "validation images, which also chose the model,"),
    ],
)
def test_split_that_the_user_brings_is_kept(
    splits: tuple[str, ...], sides: set[str], words: str, tmp_path: Path
) -> None:
    run = train(save_split(tmp_path / "photos", *splits), tmp_path)
    rows = run.folder.read_json("data.json")["manifest"]["rows"]
    assert all(row["id"].startswith(f"{row['split']}/") for row in rows)
    assert set(run.metrics) == sides and words in run.verdict


def test_table_with_several_labels_works_from_end_to_end(tmp_path: Path) -> None:
    table = save_table(tmp_path / "photos", num=40, side=8)
    run = train(table, tmp_path)
    assert run.folder.plan.task == "multilabel"
    assert set(run.metrics) == {"val", "test"}
    rng = np.random.default_rng(1)
    Image.fromarray(picture(rng, SHAPES[:2], 8)).save(tmp_path / "new.png")
    (prediction,) = run.predict(tmp_path / "new.png")
    assert prediction.label is not None and set(filter(None, prediction.label.split("|"))) <= set(SHAPES)
    assert set(prediction.to_json()["probabilities"]) == set(SHAPES)
    assert prediction._repr_png_() is not None
    assert set(snellen.evaluate(run, console=silent()).numbers) == {"val", "test"}


def test_parquet_with_groups_works_from_end_to_end_and_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow
    import pyarrow.parquet

    data = save_folders(tmp_path / "photos", per_class=10, side=8)
    names = sorted(path.relative_to(data).as_posix() for path in data.rglob("*.png"))
    labels = [name.split("/")[0] for name in names]
    groups = [f"person {int(name[-7:-4]) // 2}" for name in names]
    columns = {"image": names, "label": labels, "group": groups}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "labels.parquet")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    run = train(Path("labels.parquet"), Path(), images="photos")
    side_of: dict[str, set[str]] = {}
    for row in run.folder.read_json("data.json")["manifest"]["rows"]:
        side_of.setdefault(row["group"], set()).add(row["split"])
    assert len(side_of) == 5 and all(len(sides) == 1 for sides in side_of.values())
    monkeypatch.chdir(tmp_path / "elsewhere")  # what the run keeps of relative paths is absolute
    assert set(snellen.evaluate(tmp_path / "run", console=silent()).numbers) == {"val", "test"}
    assert tree(tmp_path / "elsewhere") == set()
