"""A search: what may be searched, that it ends, resumes and can be re-run, and that it never opens the test side."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from shapes import save_folders
from snellen.api.tuning import tune
from snellen.core.config import Config
from snellen.core.console import Console
from snellen.core.errors import ConfigError, RunError
from snellen.core.files import held
from snellen.core.run import RunFolder
from snellen.train.search_space import Between, OneOf, parse_space

pytestmark = pytest.mark.usefixtures("undrawn")

CONFIG = Config.of(data="photos")
QUICK: dict[str, Any] = {
    "model": "logistic",
    "epochs": 2,
    "batch_size": 16,
    "precision": "fp32",
    "device": "cpu",
    "threads": 1,
    "workers": 1,
    "groups": "none",
    "augment": "none",
}


def test_ranges_and_choices_are_read() -> None:
    space = parse_space(["lr=1e-4..1e-1", "epochs=5..20", "dropout=0..0.5", "optimizer=sgd|adamw"], CONFIG)
    assert space == {
        "lr": Between(1e-4, 0.1, whole=False),
        "epochs": Between(5, 20, whole=True),
        "dropout": Between(0, 0.5, whole=False),
        "optimizer": OneOf(("sgd", "adamw")),
    }
    lr, epochs, dropout = (space[name] for name in ("lr", "epochs", "dropout"))
    assert isinstance(lr, Between) and lr.logarithmic
    assert isinstance(epochs, Between) and not epochs.logarithmic
    assert isinstance(dropout, Between) and not dropout.logarithmic


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("learning_rate=1..2", "names no setting"),
        ("lrr=1e-4..1e-2", "lr"),
        ("data=a|b", "cannot be searched"),
        ("seed=1..5", "cannot be searched"),
        ("lr=0.1", "leaves no choice"),
        ("lr=", "leaves no choice"),
        ("lr=1e-2..1e-4", "must rise"),
        ("lr=--..e", "no numbers"),
        ("lr=1e-4..50", "at most 10"),
        ("optimizer=sgd|adamm", "adamm"),
        ("epochs=0.5..3", "epochs"),
    ],
)
def test_a_bad_search_is_told_in_one_line(written: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        parse_space([written], CONFIG)
    assert "\n" not in str(caught.value)


def _tune(data: Path, folder: Path, **settings: Any) -> Any:
    return tune(data, out=folder / "search", cache=str(folder / "cache"), console=Console(io.StringIO()), **settings)


def test_a_search_finds_writes_and_resumes(tmp_path: Path) -> None:
    data = save_folders(tmp_path / "data", per_class=14)
    found = _tune(data, tmp_path, trials=2, search=["lr=1e-5..1e-1"], **QUICK)
    assert found.status == "done"
    assert [trial["state"] for trial in found.trials] == ["complete", "complete"]
    assert found.value == max(trial["value"] for trial in found.trials)
    # No trial has opened the sealed test images, and only the best keeps its weights.
    runs = sorted((tmp_path / "search" / "trials").glob("0*"))
    assert all("test" not in json.loads((run / "results.json").read_text())["splits"] for run in runs)
    assert sum((run / "checkpoints" / "best.safetensors").is_file() for run in runs) == 1
    # The best settings run again as they are.
    best = Config.from_file(found.config, {})
    assert best.lr == found.best["lr"] and best.test and best.epochs == 2 and best.transfer == "full"
    assert "Every trial" in found.report.read_text(encoding="utf-8")
    with held(tmp_path / "search"), pytest.raises(RunError, match="by another process"):
        tune(resume=tmp_path / "search", trials=3, console=Console(io.StringIO()))
    more = tune(resume=tmp_path / "search", trials=3, console=Console(io.StringIO()))
    assert [trial["settings"] for trial in more.trials[:2]] == [trial["settings"] for trial in found.trials]
    assert len(more.trials) == 3 and more.trials[2]["settings"] != more.trials[0]["settings"]


def test_a_killed_trial_is_tried_again_with_its_settings(tmp_path: Path) -> None:
    data = save_folders(tmp_path / "data", per_class=14)
    _tune(data, tmp_path, trials=1, search=["lr=1e-5..1e-1"], **QUICK)
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    study = optuna.load_study(
        study_name="tune", storage=JournalStorage(JournalFileBackend(str(tmp_path / "search" / "study.log")))
    )
    killed = study.ask()
    chosen = killed.suggest_float("lr", 1e-5, 1e-1, log=True)
    (tmp_path / "search" / "trials" / "0001").mkdir()
    RunFolder(tmp_path / "search").set_status("running")
    found = tune(resume=tmp_path / "search", trials=2, console=Console(io.StringIO()))
    assert [trial["state"] for trial in found.trials] == ["complete", "failed", "complete"]
    assert found.trials[2]["settings"]["lr"] == chosen


def test_a_trial_that_looks_hopeless_is_ended_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import optuna

    monkeypatch.setattr(optuna.pruners, "MedianPruner", lambda **_: optuna.pruners.ThresholdPruner(lower=2.0))
    data = save_folders(tmp_path / "data", per_class=14)
    found = _tune(data, tmp_path, trials=1, search=["lr=1e-5..1e-1"], **QUICK | {"epochs": 3})
    (trial,) = found.trials
    assert trial["state"] == "pruned" and len(trial["course"]) == 1 and found.best == {}
    (run,) = (tmp_path / "search" / "trials").glob("0*")
    assert json.loads((run / "results.json").read_text())["ended"] == "pruned"
    assert not found.config.exists()


def test_a_search_in_which_everything_fails_ends(tmp_path: Path) -> None:
    data = save_folders(tmp_path / "data", per_class=14)
    with pytest.raises(ConfigError, match="3 trials in a row have failed"):
        _tune(data, tmp_path, trials=9, search=["loss=l1|l2"], **QUICK)


def test_what_a_search_cannot_do_is_told_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        tune("nowhere", trials=0)
    with pytest.raises(ConfigError, match="cross-validation"):
        _tune(tmp_path / "nowhere", tmp_path, folds=3)
    with pytest.raises(ConfigError, match="leaves no choice"):
        _tune(tmp_path / "nowhere", tmp_path, search=["lr=1"])
    assert not (tmp_path / "search").exists()
