"""Cross-validation: every image judged once by a model that never saw it, and the test images left to the end."""

from __future__ import annotations

import io
import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

import snellen
from conftest import charts_undrawn
from shapes import save_folders
from snellen.core.config import Config
from snellen.core.console import Console
from snellen.core.errors import ConfigError, DataError, RunError
from snellen.core.files import held
from snellen.core.record import Record, Split
from snellen.data.duplicates import Duplicate
from snellen.data.folds import check_folds, take_fold
from snellen.data.manifest import Manifest
from snellen.data.split import split

pytestmark = pytest.mark.usefixtures("undrawn")

FIXED: dict[str, Any] = {"device": "cpu", "precision": "fp32", "threads": 1, "workers": 1, "groups": "none"}
FOLDS: dict[str, Any] = {"folds": 2, "epochs": 1, **FIXED}


def silent() -> Console:
    return Console(io.StringIO())


def said(console: Console) -> str:
    assert isinstance(console.stream, io.StringIO)
    return console.stream.getvalue()


def records(
    labels: list[str], groups: list[str | None] | None = None, sides: list[Split] | None = None
) -> list[Record]:
    return [
        Record(
            id=f"{i:04}.png",
            path=Path(f"/{i:04}.png"),
            labels=(label,),
            group=groups[i] if groups else None,
            split=sides[i] if sides else None,
        )
        for i, label in enumerate(labels)
    ]


def fold_of(manifest: Manifest, num_folds: int) -> dict[str, int]:
    """The fold in which each image is for validation."""
    found: dict[str, int] = {}
    for fold in range(1, num_folds + 1):
        taken = take_fold(manifest, num_folds, fold)
        assert taken.ids("test") == manifest.ids("test") and taken.seal == manifest.seal
        assert not found.keys() & set(taken.ids("val"))
        found |= dict.fromkeys(taken.ids("val"), fold)
    return found


# ---- dividing


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 25)), min_size=60, max_size=120),
    st.integers(2, 5),
    st.integers(0, 3),
)
def test_each_image_is_validated_once_and_nothing_that_belongs_together_is_parted(
    images: list[tuple[str, int]], num_folds: int, seed: int
) -> None:
    found = records([label for label, _ in images], [f"g{group}" if group < 20 else None for _, group in images])
    pairs = [
        Duplicate(first=found[i].id, second=found[i + 1].id, kind="exact", similarity=1.0) for i in range(0, 20, 7)
    ]
    try:
        manifest = split(found, pairs=pairs, seed=seed)
        folds = fold_of(manifest, num_folds)
    except DataError:  # one unit may hold nearly everything
        assume(False)
    assert sorted(folds) == sorted(manifest.ids("train") + manifest.ids("val"))
    rows = [row for row in manifest.rows if row.split != "test"]
    for of in (lambda row: row.group, lambda row: row.cluster):
        for name in {of(row) for row in rows} - {None}:
            assert len({folds[row.id] for row in rows if of(row) == name}) == 1


def test_classes_are_in_proportion_in_every_fold() -> None:
    manifest = split(records(["cat"] * 100 + ["dog"] * 50 + ["owl"] * 25), pairs=[], seed=3)
    folds = fold_of(manifest, 5)
    label_of = {row.id: row.labels[0] for row in manifest.rows}
    for label in ("cat", "dog", "owl"):
        counts = Counter(fold for image_id, fold in folds.items() if label_of[image_id] == label)
        assert max(counts.values()) - min(counts[fold] for fold in range(1, 6)) <= 1


def test_numbers_are_in_proportion_in_every_fold() -> None:
    rng = np.random.default_rng(0)
    values = rng.exponential(10, 200)
    found = [replace(r, labels=(), values=(float(v),)) for r, v in zip(records(["x"] * 200), values, strict=True)]
    manifest = split(found, pairs=[], classes=("weight",))
    folds, value_of = fold_of(manifest, 4), {record.id: record.values for record in found}
    means = [
        np.mean([value_of[image_id] for image_id, fold in folds.items() if fold == number]) for number in range(1, 5)
    ]
    assert max(means) / min(means) < 1.15


def test_another_seed_makes_other_folds_and_the_same_seed_the_same() -> None:
    found = records(["cat", "dog"] * 40)
    one, same, other = (fold_of(split(found, pairs=[], seed=seed), 4) for seed in (1, 1, 2))
    assert one == same and one != other


def test_test_side_that_the_user_gave_stays_and_the_rest_is_pooled() -> None:
    sides: list[Split] = ["train"] * 40 + ["val"] * 10 + ["test"] * 10
    manifest = split(records(["cat", "dog"] * 30, sides=sides), pairs=[])
    folds = fold_of(manifest, 5)
    assert set(folds) == {f"{i:04}.png" for i in range(50)}
    assert "10 test images are given by you" in take_fold(manifest, 5, 1).reasons[0]


def test_too_few_groups_for_so_many_folds_is_an_error() -> None:
    manifest = split(records(["cat", "dog"] * 20, [f"g{i // 8}" for i in range(40)]), pairs=[])
    with pytest.raises(DataError, match=r"cannot be divided into 8 folds .*use fewer folds"):
        take_fold(manifest, 8, 1)


def test_class_that_is_missing_from_some_folds_is_told() -> None:
    manifest = split(records(["cat"] * 30 + ["dog"] * 30 + ["owl"] * 4), pairs=[], fractions=(0.8, 0.2, 0))
    assert "1 class has fewer images than there are folds (owl)" in " ".join(take_fold(manifest, 5, 1).reasons)
    assert "owl" not in " ".join(take_fold(manifest, 3, 1).reasons)


@pytest.mark.parametrize(
    ("asked", "words"),
    [({"fold": 2}, "fold = 2 needs folds"), ({"folds": 3, "fold": 4}, "not one of 3 folds: use 1 to 3")],
)
def test_fold_that_is_not_there_is_an_error(asked: dict[str, int], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_folds(Config.of(data="photos", **asked))
    check_folds(Config.of(data="photos", folds=3, fold=3))
    check_folds(Config.of(data="photos", folds=3))


# ---- from end to end


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With images in photos/ and a cross-validation of them in study/, which no test changes."""
    place = tmp_path_factory.mktemp("folds")
    save_folders(place / "photos", per_class=10, side=8)
    with charts_undrawn():
        snellen.train(place / "photos", out=place / "study", cache=str(place / "cache"), console=silent(), **FOLDS)
    return place


@pytest.fixture
def study(place: Path, tmp_path: Path) -> snellen.Run:
    """A copy, which a test may spoil."""
    shutil.copytree(place / "study", tmp_path / "study")
    return snellen.Run(tmp_path / "study")


def rows_of(run: snellen.Run) -> dict[str, str]:
    return {row["id"]: row["split"] for row in run.folder.read_json("data.json")["manifest"]["rows"]}


def test_study_judges_each_image_once_and_opens_the_test_images_once(place: Path) -> None:
    study = snellen.Run(place / "study")
    assert study.status == "done" and set(study.metrics) == {"out-of-fold", "test"}
    folds = [snellen.Run(study.path / f"fold-{number}") for number in (1, 2)]
    for fold in folds:
        assert fold.status == "done" and set(fold.metrics) == {"val"} and fold.report.is_file()
        assert fold.folder.read_json("data.json")["test_uses"] == 0
        assert not (fold.folder.predictions / "test.safetensors").exists()
    judged = [image_id for fold in folds for image_id, side in rows_of(fold).items() if side == "val"]
    assert sorted(judged) == sorted(image_id for image_id, side in rows_of(study).items() if side == "train")
    assert study.metrics["out-of-fold"]["accuracy"].n == len(judged)
    assert study.folder.read_json("data.json")["test_uses"] == 1
    assert study.report.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_study_says_the_mean_of_its_folds_and_what_their_models_say_together(place: Path) -> None:
    results = json.loads((place / "study" / "results.json").read_text())
    values = [row["val"]["log_loss"]["value"] for row in results["folds"]]
    assert results["mean"]["log_loss"]["value"] == pytest.approx(np.mean(values))
    assert results["mean"]["log_loss"]["method"] == "corrected resampled t over 2 folds"
    members = [estimate["value"] for estimate in results["members"]]
    gain = results["splits"]["test"]["accuracy"]["value"] - np.mean(members)
    assert results["gain"]["value"] == pytest.approx(gain) and results["gain"]["low"] <= gain <= results["gain"]["high"]
    assert "Over 2 folds" in results["verdict"] and "ensemble" in results["verdict"]
    answers = load_file(place / "study" / "predictions" / "test.safetensors")
    accuracy = np.mean(answers["scores"].argmax(1) == answers["truth"])
    assert results["splits"]["test"]["accuracy"]["value"] == pytest.approx(accuracy)


def test_study_predicts_the_mean_of_its_models(place: Path) -> None:
    image = place / "photos" / "circle" / "000.png"
    said = [
        snellen.predict(place / "study" / name, image, device="cpu")[0].to_json() for name in ("", "fold-1", "fold-2")
    ]
    together, *alone = ([answer["probabilities"][name] for name in sorted(answer["probabilities"])] for answer in said)
    np.testing.assert_allclose(together, np.mean(alone, axis=0), atol=1e-6)


def test_study_is_evaluated_as_it_was_and_the_second_use_of_the_test_images_is_told(study: snellen.Run) -> None:
    console = silent()
    numbers = snellen.evaluate(study, device="cpu", console=console).numbers
    assert set(numbers) == {"test"}  # the ensemble has learnt from all the others
    assert numbers["test"]["log_loss"].value == pytest.approx(study.metrics["test"]["log_loss"].value, abs=1e-6)
    assert "used 2 times" in said(console)


def test_fold_by_itself_is_that_of_the_study(place: Path, tmp_path: Path) -> None:
    alone = snellen.train(
        place / "photos", out=tmp_path / "alone", cache=str(place / "cache"), console=silent(), fold=2, **FOLDS
    )
    assert rows_of(alone) == rows_of(snellen.Run(place / "study" / "fold-2"))
    assert set(alone.metrics) == {"val", "test"}  # by itself it is an ordinary run


def test_sealed_test_images_are_opened_by_evaluation_only(study: snellen.Run) -> None:
    fold = snellen.Run(study.path / "fold-1")
    assert fold.folder.read_json("data.json")["test_uses"] == 0 and "test" in rows_of(fold).values()
    assert "validation images" in fold.verdict
    console = silent()
    assert set(snellen.evaluate(fold, device="cpu", console=console).numbers) == {"val", "test"}
    assert "opened for the first time" in said(console)


def test_study_that_leaves_the_test_images_sealed_says_so(study: snellen.Run) -> None:
    settings = study.path / "config.toml"
    settings.write_text(settings.read_text().replace("test = true", "test = false"))
    (study.path / "data.json").unlink()
    study.folder.set_status("stopped")
    again = snellen.train(resume=study.path, console=silent())
    assert set(again.metrics) == {"out-of-fold"} and "No test image was opened." in again.verdict
    assert again.folder.read_json("data.json")["test_uses"] == 0
    assert "No test image was opened." in again.report.read_text(encoding="utf-8")
    assert again._repr_html_()


def test_without_test_images_the_folds_are_all_there_is(tmp_path: Path, place: Path) -> None:
    from snellen.core.run import RunFolder
    from snellen.train.fold_results import write_fold_results

    shutil.copytree(place / "study", tmp_path / "study")
    run = RunFolder(tmp_path / "study")
    for number in (1, 2):
        content = run.read_json(f"fold-{number}/data.json")
        content["manifest"]["rows"] = [row for row in content["manifest"]["rows"] if row["split"] != "test"]
        run.write_json(f"fold-{number}/data.json", content)
    write_fold_results(run, run.config, place / "cache", silent())
    assert "There are no test images." in run.read_json("results.json")["verdict"]
    with pytest.raises(DataError, match="no images that it has not learnt from"):
        snellen.evaluate(run.path, device="cpu", console=silent())


def test_folds_that_all_say_the_same_are_not_called_certain() -> None:
    from snellen.metrics.interval import wilson
    from snellen.train.fold_results import _over_folds

    assert _over_folds("accuracy", [1.0, 1.0, 1.0], 0.5, 60, "3 folds")[0] == wilson(60, 60)
    assert _over_folds("log_loss", [0.1, 0.1, 0.1], 0.5, 60, "3 folds") == (
        (None, None),
        "none (the same in every fold)",
    )
    (low, high), _ = _over_folds("accuracy", [1.0, 0.9, 1.0], 0.5, 60, "3 folds")
    assert low is not None and low < 0.9 and high == 1.0


# ---- stopping and going on


def test_interrupted_study_goes_on_with_the_bits_of_one_that_was_not(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from snellen.api import folds

    def interrupted_in_the_second(config: Config, out: Path, console: Console) -> snellen.Run:
        if config.fold == 2:
            raise KeyboardInterrupt
        shutil.copytree(place / "study" / "fold-1", out)
        return snellen.Run(out)

    monkeypatch.setattr(folds, "train_run", interrupted_in_the_second)
    where = {"out": tmp_path / "study", "cache": str(place / "cache"), "console": silent()}
    with pytest.raises(KeyboardInterrupt):
        snellen.train(place / "photos", **where, **FOLDS)
    stopped = snellen.Run(tmp_path / "study")
    assert stopped.status == "stopped" and stopped.to_json()["status"] == "stopped"
    with pytest.raises(RunError, match="models of 1 of its 2 folds: go on with snellen train --resume"):
        stopped.predict(place / "photos")
    first = (stopped.path / "fold-1" / "checkpoints" / "best.safetensors").stat().st_mtime_ns
    monkeypatch.undo()
    (tmp_path / "study" / "fold-2").mkdir()  # what a kill right at the start leaves
    resumed = snellen.train(resume=tmp_path / "study", console=silent())
    assert resumed.status == "done"
    assert (resumed.path / "fold-1" / "checkpoints" / "best.safetensors").stat().st_mtime_ns == first
    whole = snellen.Run(place / "study")
    assert resumed.metrics == whole.metrics and resumed.verdict == whole.verdict


def test_stopped_fold_stops_the_study(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from snellen.api import folds

    def stopped(config: Config, out: Path, console: Console) -> snellen.Run:
        shutil.copytree(place / "study" / "fold-1", out)
        (out / "STATUS").write_text("stopped\n")
        return snellen.Run(out)

    monkeypatch.setattr(folds, "train_run", stopped)
    console = silent()
    run = snellen.train(place / "photos", out=tmp_path / "s", cache=str(place / "cache"), console=console, **FOLDS)
    assert run.status == "stopped" and not (run.path / "fold-2").exists()
    assert f"--resume {run.path}" in said(console)


def test_finished_study_is_not_resumed(study: snellen.Run) -> None:
    with pytest.raises(RunError, match="is done"):
        snellen.train(resume=study.path, console=silent())


def test_study_that_another_process_goes_on_with_is_left_alone(study: snellen.Run) -> None:
    before = sorted(study.path.rglob("*"))
    with held(study.path), pytest.raises(RunError, match="by another process"):
        snellen.train(resume=study.path, console=silent())
    assert sorted(study.path.rglob("*")) == before


def test_folds_of_different_data_are_not_joined(place: Path, study: snellen.Run) -> None:
    content = study.folder.read_json("fold-2/data.json")
    content["manifest"]["rows"][0]["sha256"] = "0" * 64
    study.folder.write_json("fold-2/data.json", content)
    study.folder.set_status("stopped")
    with pytest.raises(RunError, match=r"the data has changed between .*fold-1 and .*fold-2"):
        snellen.train(resume=study.path, console=silent())
    assert study.status == "failed"


def test_study_that_cannot_begin_leaves_nothing(place: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="use fewer folds"):
        snellen.train(place / "photos", out=tmp_path / "study", console=silent(), folds=90, cache=str(place / "cache"))
    with pytest.raises(DataError, match="does not exist"):
        snellen.train(place / "nothing", out=tmp_path / "study", console=silent(), folds=3)
    assert list(tmp_path.iterdir()) == []


def test_time_that_is_left_is_shared_among_the_folds_that_are_left(place: Path) -> None:
    from snellen.api.folds import _config_of

    run = snellen.Run(place / "study").folder
    config = Config.of(data="photos", folds=4, time_limit=100)
    limits = [_config_of(run, config, number, Console(io.StringIO())).time_limit for number in (1, 3, 4)]
    assert limits == pytest.approx([25, 50, 100], abs=1)
    assert _config_of(run, config, 4, Console(io.StringIO(), started=-1e9)).time_limit == 1
