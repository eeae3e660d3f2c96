"""Cross-validation over folds and seeds: other folds and other weights in each repeat, the same sealed test images."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import snellen
from command_line import called
from shapes import save_folders
from snellen.core.config import Config
from snellen.core.console import Console
from snellen.core.errors import ConfigError, RunError
from snellen.core.estimate import Estimate
from snellen.core.run import RunFolder
from snellen.data.folds import check_folds
from snellen.data.survey import read_listing, survey
from snellen.metrics.paired import corrected_t_interval

FIXED: dict[str, Any] = {"device": "cpu", "precision": "fp32", "threads": 1, "workers": 1, "groups": "none"}
STUDY: dict[str, Any] = {"folds": 2, "repeats": 2, "seed": 5, "epochs": 1, **FIXED}
RUNS = ("fold-1", "fold-2", "repeat-2/fold-1", "repeat-2/fold-2")


def silent() -> Console:
    return Console(io.StringIO())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With images in photos/ and a repeated cross-validation of them in study/, which no test changes."""
    place = tmp_path_factory.mktemp("repeats")
    save_folders(place / "photos", per_class=10, side=8)
    snellen.train(place / "photos", out=place / "study", cache=str(place / "cache"), console=silent(), **STUDY)
    return place


def sides_of(run: Path) -> dict[str, str]:
    rows = json.loads((run / "data.json").read_text())["manifest"]["rows"]
    return {row["id"]: row["split"] for row in rows}


def on_side(run: Path, side: str) -> set[str]:
    return {image_id for image_id, found in sides_of(run).items() if found == side}


# ---- dividing


def divided(place: Path, **settings: Any) -> dict[str, str]:
    config = Config.of(data=str(place / "photos"), **settings, **FIXED)
    name, listing = read_listing(config, place / "cache")
    found = survey(name, listing, config, console=silent(), workers=1)
    return {row.id: row.split for row in found.manifest.rows}


def test_split_seed_alone_decides_the_sides(place: Path) -> None:
    asked = [{"seed": 3}, {"seed": 8, "split_seed": 3}, {"seed": 8}]
    plain, shared, other = (divided(place, **settings) for settings in asked)
    assert plain == shared and plain != other


def test_folds_are_dealt_by_the_seed_and_the_test_side_by_the_split_seed(place: Path) -> None:
    one, other = (divided(place, seed=seed, split_seed=3, folds=3, fold=1) for seed in (3, 4))
    plain = divided(place, seed=3)
    tested = [{i for i, side in sides.items() if side == "test"} for sides in (plain, one, other)]
    assert tested[0] == tested[1] == tested[2] and one != other


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"repeats": 3}, "repeats = 3 needs folds.*--folds 5 --repeats 3"),
        ({"repeats": 3, "folds": 4, "fold": 2}, "repeats all folds: leave out fold = 2"),
        ({"repeats": 3, "folds": 4, "seed": 2**31 - 2}, "too large for 3 repeats"),
    ],
)
def test_repeats_of_anything_but_all_folds_are_an_error(asked: dict[str, int], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        check_folds(Config.of(data="photos", **asked))
    assert "\n" not in str(caught.value)
    check_folds(Config.of(data="photos", folds=4, repeats=3, seed=2**31 - 3))


def test_repeats_without_folds_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="repeats = 2 needs folds"):
        snellen.train("nowhere", out=tmp_path / "study", repeats=2)
    with pytest.raises(ConfigError, match="leave --folds and --repeats out"):
        snellen.tune("nowhere", out=tmp_path / "search", repeats=2)
    assert list(tmp_path.iterdir()) == []


# ---- from end to end


def test_each_repeat_has_other_folds_and_weights_and_the_same_test_images(place: Path) -> None:
    runs = [place / "study" / name for name in RUNS]
    assert len({frozenset(on_side(run, "test")) for run in runs}) == 1
    assert len({frozenset(on_side(run, "val")) for run in runs}) == 4
    for first, second in (runs[:2], runs[2:]):
        assert not on_side(first, "val") & on_side(second, "val")
        assert on_side(first, "val") | on_side(second, "val") == on_side(place / "study", "train")
    assert [RunFolder(run).plan.seed for run in runs] == [5, 5, 6, 6]
    plain = divided(place, seed=5)
    assert on_side(runs[0], "test") == {image_id for image_id, side in plain.items() if side == "test"}


def test_first_repeat_is_the_cross_validation_without_repeats(place: Path, tmp_path: Path) -> None:
    alone = snellen.train(
        place / "photos",
        out=tmp_path / "alone",
        cache=str(place / "cache"),
        console=silent(),
        **{**STUDY, "repeats": 1, "fold": 2},
    )
    assert sides_of(alone.path) == sides_of(place / "study" / "fold-2")
    assert alone.metrics["val"] == snellen.Run(place / "study" / "fold-2").metrics["val"]


def test_fold_of_a_repeat_is_run_again_from_its_own_settings(place: Path, tmp_path: Path) -> None:
    fold = place / "study" / "repeat-2" / "fold-1"
    again = snellen.train(config=fold / "config.toml", out=tmp_path / "again", console=silent())
    assert sides_of(again.path) == sides_of(fold) and again.metrics == snellen.Run(fold).metrics


def test_interval_is_over_the_scores_of_all_folds_of_all_repeats(place: Path) -> None:
    results = json.loads((place / "study" / "results.json").read_text())
    rows, mean = results["folds"], results["mean"]["log_loss"]
    assert [row["run"] for row in rows] == list(RUNS)
    values = [row["val"]["log_loss"]["value"] for row in rows]
    judged_share = float(np.mean([row["num_val"] / row["num_train"] for row in rows]))
    assert mean["value"] == pytest.approx(np.mean(values))
    assert (mean["low"], mean["high"]) == pytest.approx(corrected_t_interval(values, judged_share))
    assert mean["method"] == "corrected resampled t over 2 repeats of 2 folds"
    assert "Over 2 repeats of 2 folds" in results["verdict"] and len(results["members"]) == 4


def test_pooled_numbers_are_the_mean_of_the_repeats(place: Path) -> None:
    study = snellen.Run(place / "study")
    answers = [load_file(study.folder.predictions / f"out-of-fold{end}.safetensors") for end in ("", "-2")]
    ids = [json.loads((study.folder.predictions / f"out-of-fold{end}.json").read_text()) for end in ("", "-2")]
    assert ids[0] == ids[1] == sorted(on_side(study.path, "train"))
    assert (answers[0]["truth"] == answers[1]["truth"]).all() and (answers[0]["scores"] != answers[1]["scores"]).any()
    pooled = study.metrics["out-of-fold"]["accuracy"]
    assert pooled.value == pytest.approx(np.mean([each["predicted"] == each["truth"] for each in answers]))
    assert pooled.n == len(ids[0]) and pooled.low is not None and pooled.low <= pooled.value
    page = study.report.read_text(encoding="utf-8")
    assert "repeat-2/fold-1" in page and "2 repeats of 2 folds" in page


def test_number_that_all_repeats_share_is_not_called_certain() -> None:
    from snellen.train.fold_results import _mean_estimate

    sure = Estimate(value=1.0, n=20, low=0.84, high=1.0, method="wilson")
    assert _mean_estimate([sure, sure], [np.ones(50), np.ones(50)], "mean of the repeats") == sure
    costly = _mean_estimate([sure, sure], [np.ones(50)], "mean of the repeats")
    assert costly.value == 1.0 and costly.low is None


def test_chart_of_many_folds_still_shows_what_they_say_together(place: Path) -> None:
    from snellen.draw.charts import MAX_CLASSES
    from snellen.report.folds import fold_chart

    found = json.loads((place / "study" / "results.json").read_text())
    few, many = (fold_chart({**found, "folds": found["folds"] * times}, "accuracy") for times in (1, 20))
    assert few is not None and many is not None
    assert [row[0] for row in few.rows[:4]] == [f"Repeat {r}, fold {f}" for r in (1, 2) for f in (1, 2)]
    assert few.rows[4:] == many.rows[-3:] and len(few.rows) == 7 and len(many.rows) == MAX_CLASSES


def test_all_models_of_all_repeats_answer_together(place: Path) -> None:
    image = place / "photos" / "circle" / "000.png"
    answers = [snellen.predict(place / "study" / name, image, device="cpu")[0].to_json() for name in ("", *RUNS)]
    together, *alone = ([each["probabilities"][name] for name in ("circle", "square")] for each in answers)
    np.testing.assert_allclose(together, np.mean(alone, axis=0), atol=1e-6)


def test_study_stopped_in_the_second_repeat_goes_on(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from snellen.api import folds

    def interrupted(config: Config, out: Path, console: Console) -> snellen.Run:
        name = out.relative_to(tmp_path / "study").as_posix()
        if name == "repeat-2/fold-2":
            raise KeyboardInterrupt
        shutil.copytree(place / "study" / name, out)
        return snellen.Run(out)

    monkeypatch.setattr(folds, "train_run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        snellen.train(place / "photos", out=tmp_path / "study", cache=str(place / "cache"), console=silent(), **STUDY)
    stopped = snellen.Run(tmp_path / "study")
    assert stopped.status == "stopped"
    with pytest.raises(RunError, match="models of 3 of its 4 folds"):
        stopped.predict(place / "photos")
    monkeypatch.undo()
    resumed = snellen.train(resume=tmp_path / "study", console=silent())
    whole = snellen.Run(place / "study")
    assert resumed.status == "done" and resumed.metrics == whole.metrics and resumed.verdict == whole.verdict


def test_time_is_shared_among_the_folds_of_all_repeats(place: Path) -> None:
    from snellen.api.folds import _config_of

    run, config = RunFolder(place / "study"), Config.of(data="photos", folds=2, repeats=3, time_limit=120)
    limits = [
        _config_of(run, config, fold, Console(io.StringIO()), repeat).time_limit
        for repeat, fold in [(1, 1), (2, 2), (3, 2)]
    ]
    assert limits == pytest.approx([20, 40, 120], abs=1)


def test_runs_of_one_split_seed_are_compared_on_the_same_test_images(place: Path) -> None:
    arms: dict[str, list[str]] = {"a": [], "b": []}
    for name, model in (("a", "logistic"), ("b", "mlp:8")):
        for seed in (0, 1):
            out = place / f"{name}{seed}"
            shared: dict[str, Any] = {"epochs": 1, "seed": seed, "split_seed": 3, "cache": str(place / "cache")}
            snellen.train(place / "photos", out=out, model=model, console=silent(), **shared, **FIXED)
            arms[name].append(str(out))
    code, out, err = called(["compare", *arms["a"], "--with", *arms["b"], "--json"])
    assert code == 0, err
    (pairing,) = json.loads(out)["pairings"]
    assert pairing["difference"]["method"] == "t over seeds and images" and pairing["side"] == "test"
    assert pairing["n"] == len(on_side(place / "a0", "test"))
