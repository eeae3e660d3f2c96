"""An ensemble is a run: made of runs, judged on images that none of them learnt from, and used like any other."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import snellen
from shapes import save_folders
from snellen.api.ensemble_results import _Told, _verdict
from snellen.api.ensembling import ensemble
from snellen.api.exporting import _own_images
from snellen.api.training import train_run
from snellen.core.checkpoint import Checkpoint
from snellen.core.config import Config
from snellen.core.console import Console
from snellen.core.errors import ConfigError, DataError, RunError
from snellen.core.estimate import Estimate
from snellen.core.run import RunFolder
from snellen.ensemble import fitting, judging, load_run
from snellen.ensemble.members import open_members, shared_sides
from snellen.export import write
from snellen.metrics.paired import Difference
from snellen.report.ensemble import build_ensemble_report
from snellen.tasks.loading import LoadedModel

FIXED: dict[str, Any] = {"device": "cpu", "precision": "fp32", "threads": 1, "workers": 1, "groups": "none"}


def silent() -> Console:
    return Console(io.StringIO())


def train(place: Path, name: str, **settings: Any) -> None:
    given = {"split_seed": 0, "epochs": 1, "cache": str(place / "cache"), **FIXED, **settings}
    train_run(Config.of(data=str(place / "photos"), **given), place / name, silent(), report=False)


def with_sides(run: Path, copy: Path, sides: dict[str, str]) -> Path:
    """A copy of a run that says its images were on other ``sides``: train, val or test by what they were on."""
    shutil.copytree(run, copy)
    content = json.loads((copy / "data.json").read_text())
    for row in content["manifest"]["rows"]:
        row["split"] = sides.get(row["split"], row["split"])
    (copy / "data.json").write_text(json.dumps(content))
    return copy


def twin_of(run: Path, copy: Path) -> Path:
    """A copy of a run with slightly other weights."""
    shutil.copytree(run, copy)
    path = copy / "checkpoints" / "best.safetensors"
    known = Checkpoint.load(path)
    generator = torch.Generator().manual_seed(0)
    weights = dict(known.weights)
    head = weights["head.weight"]
    weights["head.weight"] = head + 0.02 * torch.randn(head.shape, generator=generator)
    weights["head.bias"] = weights["head.bias"].clone()
    replace(known, weights=weights).save(path)
    return copy


@pytest.fixture(scope="module", autouse=True)
def hasty() -> Iterator[None]:
    """What an image costs is measured in five turns: nothing here asks how long it took."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judging, "_SECONDS", 0.0)
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs a and b that share their sides, b at another input size."""
    place = tmp_path_factory.mktemp("ensembles")
    save_folders(place / "photos", per_class=24, side=8)
    train(place, "a")
    train(place, "b", seed=1, input_size=12, epochs=2)
    return place


@pytest.fixture(scope="module")
def joined(place: Path) -> snellen.Run:
    return ensemble(place / "a", place / "b", out=place / "joined", device="cpu", console=silent())


def results(run: snellen.Run) -> dict[str, Any]:
    found: dict[str, Any] = run.folder.read_json("results.json")
    return found


def test_ensemble_is_a_run_that_needs_its_members_no_more(
    joined: snellen.Run, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = shutil.copytree(joined.path, tmp_path / "moved")
    for name in ("a", "b"):
        (place / name).rename(place / f"{name}-away")
    try:
        image = place / "photos" / "circle" / "000.png"
        (said,) = snellen.predict(moved, image, device="cpu")
        numbers = snellen.evaluate(moved, device="cpu", console=silent()).numbers
    finally:
        for name in ("a", "b"):
            (place / f"{name}-away").rename(place / name)
    alone = [snellen.predict(place / name, image, device="cpu")[0].to_json()["probabilities"] for name in ("a", "b")]
    for name, probability in said.to_json()["probabilities"].items():
        assert probability == pytest.approx(np.mean([each[name] for each in alone]), abs=1e-5)
    for side in ("val", "test"):
        assert numbers[side]["log_loss"].value == pytest.approx(joined.metrics[side]["log_loss"].value, abs=1e-6)


def test_members_are_told_as_their_own_runs_told_them(joined: snellen.Run, place: Path) -> None:
    found = results(joined)["ensemble"]
    for row in found["members"]:
        own = snellen.Run(place / row["name"]).metrics
        for side in ("val", "test"):
            assert row[side]["value"] == pytest.approx(own[side]["accuracy"].value)
    assert found["gain"]["test"]["value"] == pytest.approx(
        joined.metrics["test"]["accuracy"].value - found["members"][found["best"]]["test"]["value"]
    )
    square = found["diversity"]["square"]
    assert square["correlated"] == pytest.approx(square["reached"], rel=1e-3)
    assert set(found["seconds"]) == {"best", "ensemble", "ratio"}


def test_ensemble_is_compared_doctored_and_reported_like_any_run(joined: snellen.Run, place: Path) -> None:
    comparison = snellen.compare(place / "a", joined)
    assert comparison.pairings[0].n == len(joined.folder.read_json("predictions/test.json"))
    assert snellen.doctor(joined.path, console=silent()).report.is_file()
    page = build_ensemble_report(joined.path).read_text(encoding="utf-8")
    assert "The mean of 2 models" in page and "Correlation of errors" in page
    assert joined.folder.read_json("data.json")["test_uses"] == 3  # by a, by b, and by both together


@pytest.mark.parametrize("sides", [{"val": "train"}, {"test": "train"}, {"test": "val"}, {"train": "val"}])
def test_images_that_a_member_learnt_from_do_not_judge_the_others(
    place: Path, tmp_path: Path, sides: dict[str, str]
) -> None:
    members = open_members([place / "a", with_sides(place / "b", tmp_path / "b", sides)])
    found = shared_sides(members)
    learnt = {row.sha256 for member in members for row in member.manifest.rows if row.split == "train"}
    chosen = {row.sha256 for member in members for row in member.manifest.rows if row.split == "val"}
    assert not {row.sha256 for row in (*found.val, *found.test)} & learnt and found.notes
    assert not {row.sha256 for row in found.test} & chosen
    assert {row.sha256 for row in found.manifest.rows if row.split == "train"} >= learnt
    kept = {"val": len(found.val), "test": len(found.test)}
    assert [side for side, n in kept.items() if n] == [side for side in ("val", "test") if side not in sides]


def test_members_that_share_no_image_to_judge_them_by_are_refused(place: Path, tmp_path: Path) -> None:
    other = with_sides(place / "b", tmp_path / "b", {"val": "train", "test": "train"})
    with pytest.raises(DataError, match="no image that could judge a and b"):
        ensemble(place / "a", other, out=tmp_path / "none", console=silent())


def test_copies_of_learnt_images_judge_no_member(place: Path, tmp_path: Path) -> None:
    content = json.loads((place / "b" / "data.json").read_text())
    rows = content["manifest"]["rows"]
    kept = next(row for row in rows if row["split"] == "val")
    next(row for row in rows if row["split"] == "train")["cluster"] = kept["cluster"] = "same picture"
    planted = shutil.copytree(place / "b", tmp_path / "b")
    (planted / "data.json").write_text(json.dumps(content))
    before, after = (shared_sides(open_members([place / "a", path])).val for path in (place / "b", planted))
    assert {row.id for row in before} - {row.id for row in after} == {kept["id"]}


def test_folds_are_judged_on_test_images_alone_and_fit_nothing(place: Path, tmp_path: Path) -> None:
    study = tmp_path / "study"
    shutil.copytree(place / "a", study / "fold-1")
    with_sides(place / "b", study / "fold-2", {"val": "train", "train": "val"})
    given = {"split_seed": 0, "folds": 2, "cache": str(place / "cache"), **FIXED}
    (study / "config.toml").write_text(Config.of(data=str(place / "photos"), **given).to_toml())
    (study / "STATUS").write_text("done\n")
    folds = ensemble(study, way="vote", out=tmp_path / "folds", device="cpu", console=silent())
    assert set(folds.metrics) == {"test"} and "2 models" in folds.verdict
    assert set(_own_images(folds.folder, silent())) == {"test"}
    with pytest.raises(DataError, match="way = mean"):
        ensemble(study, way="weighted", out=tmp_path / "weighted", device="cpu", console=silent())
    assert not (tmp_path / "weighted").exists()


def test_ensemble_is_exported_as_one_graph_with_the_answers_of_all(
    joined: snellen.Run, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "_GOLDEN_CANDIDATES", 6)
    artifact = snellen.export(joined, "torch", out=tmp_path / "artifact", console=silent())
    photos = sorted((place / "photos" / "square").iterdir())[:3]
    ours, theirs = (snellen.predict(each, photos, device="cpu") for each in (joined, artifact))
    for one, other in zip(ours, theirs, strict=True):
        assert other.to_json()["probabilities"] == pytest.approx(one.to_json()["probabilities"], abs=1e-5)
    assert artifact.checked["split"] == "val" and artifact.checked["different"] == 0
    assert snellen.verify(artifact.path, console=silent()) == []
    card = (artifact.path / "README.md").read_text()
    assert "The weighted mean of 2 networks" in card and "12 x 12 pixels" in card and "2 networks that were" in card
    with pytest.raises(ConfigError, match="'cuda' is not for an exported model, which Snellen runs on the CPU"):
        snellen.predict(artifact, photos, device="cuda")


def test_an_ensemble_that_loses_to_its_best_member_says_so_with_what_to_do() -> None:
    numbers = {"accuracy": Estimate(value=0.9, n=50)}
    standing: Any = SimpleNamespace(
        panel=SimpleNamespace(members=SimpleNamespace(task=SimpleNamespace(headline="accuracy"))),
        ours=SimpleNamespace(numbers=numbers, samples=()),
        members=[SimpleNamespace(numbers=numbers, samples=())],
        predicted=[None] * 50,
    )
    words = {}
    for low, high in ((-0.05, 0.01), (-0.05, -0.01), (-0.01, 0.05)):
        found = Difference(value=(low + high) / 2, low=low, high=high, method="paired bootstrap")
        for can_fit in (True, False):
            told = _Told("the mean of 2 models", "strong", "test", 2.0, ["strong", "weak"], can_fit)
            words[low, high, can_fit] = _verdict(told, standing, 0, found)
    alone = _Told("the weighted mean of 1 of 2 models", "strong", "test", 1.0, ["strong"], False)
    assert "leaves strong alone: there is nothing to gain" in _verdict(alone, standing, 0, None)
    for (_, high, can_fit), said in words.items():
        loses = high < 0.05
        assert ("below its best member on these images: use strong alone" in said) == loses
        assert ("--way weighted" in said) == (loses and can_fit)


def test_fitted_weights_are_judged_on_images_they_were_not_fitted_on(place: Path, tmp_path: Path) -> None:
    run = ensemble(
        place / "a", place / "b", way="weighted", test=False, out=tmp_path / "w", device="cpu", console=silent()
    )
    recipe = run.folder.read_json("ensemble.json")["members"]
    weights = [each["weight"] for each in recipe]
    assert sum(weights) == pytest.approx(1) and min(weights) >= 0
    assert set(run.metrics) == {"val"} and "flatters" in " ".join(results(run)["ensemble"]["words"])
    saved = load_file(run.folder.predictions / "val.safetensors")
    assert results(run)["splits"]["val"]["accuracy"]["value"] == pytest.approx(
        np.mean(saved["predicted"] == saved["truth"])
    )
    flattered = snellen.evaluate(run, device="cpu", console=silent()).numbers["val"]["accuracy"].value
    assert flattered == pytest.approx(results(run)["ensemble"]["flattered"])


def test_the_question_stays_the_first_members_though_it_counts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two tables with their columns in other orders; what is left is the second member, and is asked in the first's."""
    photos = save_folders(tmp_path / "photos", per_class=20, side=8)
    names = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))
    for run, columns in (("a", {"low": 0, "high": 100}), ("b", {"high": 100, "low": 0})):
        rows = [",".join([name, *(str(far + i % 7) for far in columns.values())]) for i, name in enumerate(names)]
        table = tmp_path / f"{run}.csv"
        table.write_text("\n".join([",".join(["image", *columns]), *rows]) + "\n")
        given = {"data": str(table), "images": str(photos), "task": "regression", "split_seed": 0, "epochs": 1}
        config = Config.of(cache=str(tmp_path / "cache"), **given, **FIXED)
        train_run(config, tmp_path / run, silent(), report=False)
    monkeypatch.setattr(fitting, "least_loss", lambda numbers: (0.0, 1.0))
    left = ensemble(tmp_path / "a", tmp_path / "b", way="weighted", out=tmp_path / "ab", device="cpu", console=silent())
    assert load_run(left.folder, device="cpu").task.classes == ("low", "high")
    again = snellen.evaluate(left, device="cpu", console=silent()).numbers
    assert again["test"]["r2"].value == pytest.approx(results(left)["splits"]["test"]["r2"]["value"], abs=1e-6)


def test_soup_is_one_network(place: Path, tmp_path: Path) -> None:
    twin = twin_of(place / "a", tmp_path / "twin")
    soup = ensemble(place / "a", twin, way="soup", out=tmp_path / "soup", device="cpu", console=silent())
    assert isinstance(load_run(soup.folder, device="cpu"), LoadedModel)
    chosen = [each["run"] for each in soup.folder.read_json("ensemble.json")["members"] if each["weight"] > 0]
    of_members = [Checkpoint.load(Path(run) / "checkpoints" / "best.safetensors").weights for run in chosen]
    mixed = Checkpoint.load(soup.folder.best_checkpoint).weights
    heads = np.mean([each["head.weight"].numpy() for each in of_members], axis=0)
    np.testing.assert_allclose(mixed["head.weight"].numpy(), heads, atol=1e-6)
    with pytest.raises(ConfigError, match="one architecture"):
        ensemble(place / "a", place / "b", way="soup", out=tmp_path / "no", device="cpu", console=silent())
    assert not (tmp_path / "no").exists()


def test_what_cannot_be_joined_is_refused_before_anything_is_written(
    joined: snellen.Run, place: Path, tmp_path: Path
) -> None:
    out = tmp_path / "none"
    cases: list[tuple[type[Exception], str, list[Path], str]] = [
        (ConfigError, "two runs or more", [place / "a"], "mean"),
        (RunError, "given twice", [place / "a", place / "a"], "mean"),
        (RunError, "same model", [place / "a", shutil.copytree(place / "a", tmp_path / "copy")], "mean"),
        (RunError, "ensemble itself", [joined.path, place / "a"], "mean"),
        (RunError, "does not exist", [place / "a", tmp_path / "nowhere"], "mean"),
        (ConfigError, "did you mean 'vote'", [place / "a", place / "b"], "votes"),
    ]
    for error, words, paths, way in cases:
        with pytest.raises(error, match=words):
            ensemble(*paths, way=way, out=out, console=silent())
        assert not out.exists()


def test_killed_or_meddled_with_ensemble_is_refused(joined: snellen.Run, tmp_path: Path) -> None:
    killed = RunFolder(shutil.copytree(joined.path, tmp_path / "killed"))
    killed.set_status("running")
    with pytest.raises(RunError, match="never finished"):
        snellen.predict(killed.path, tmp_path)
    with pytest.raises(RunError, match="never finished"):
        open_members([killed.path, joined.path])
    swapped = shutil.copytree(joined.path, tmp_path / "swapped") / "members"
    shutil.copyfile(swapped / "2.safetensors", swapped / "1.safetensors")
    with pytest.raises(RunError, match="not the model of a"):
        load_run(RunFolder(swapped.parent), device="cpu")
    shutil.rmtree(swapped)
    with pytest.raises(RunError, match="no checkpoint"):
        load_run(RunFolder(swapped.parent), device="cpu")
