"""A run sees the changes that it was asked for: when it reads, when it goes on, when it is evaluated; in every verb."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import snellen
from command_line import FAST, called
from conftest import charts_undrawn
from shapes import save_folders
from snellen.audit import run_audit
from snellen.audit.subject import AuditSubject
from snellen.core.config import Config
from snellen.core.console import Console
from snellen.core.finding import Finding
from snellen.core.run import RunFolder
from snellen.data.survey import Survey, read_listing, survey

pytestmark = pytest.mark.usefixtures("undrawn")

CHANGES: list[dict[str, Any]] = [
    {"image": "circle/000.png", "action": "leave out", "because": "empty-images"},
    {"image": "circle/001.png", "action": "relabel", "value": "square"},
    {"image": "circle/002.png", "action": "group", "value": "page 7"},
    {"image": "square/002.png", "action": "group", "value": "page 7"},
]


def overlay(place: Path, changes: list[dict[str, Any]]) -> Path:
    path = place / "mine.json"
    path.write_text(json.dumps({"changes": changes}))
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_folders(tmp_path_factory.mktemp("overlay") / "shapes", per_class=10, side=8)


def surveyed(data: Path, cache: Path, **settings: Any) -> Survey:
    config = Config.of(data=str(data), **settings)
    name, listing = read_listing(config, cache)
    return survey(name, listing, config, console=Console(quiet=True), workers=1)


# ---- what the survey makes of it


def test_the_manifest_is_of_the_changed_data_and_so_is_its_digest(data: Path, tmp_path: Path) -> None:
    before = surveyed(data, tmp_path)
    after = surveyed(data, tmp_path, overlay=str(overlay(tmp_path, CHANGES)))
    rows = {row.id: row for row in after.manifest.rows}
    assert len(rows) == len(before.manifest.rows) - 1 and "circle/000.png" not in rows
    assert rows["circle/001.png"].labels == ("square",)
    assert rows["circle/002.png"].group == rows["square/002.png"].group == "page 7"
    assert rows["circle/002.png"].split == rows["square/002.png"].split
    assert "4 images are changed by mine.json: 1 left out, 1 relabelled, 2 put into a group" in after.notes
    assert [left.path for left in after.left_out] == ["circle/000.png"]
    digests = {before.manifest.digest, after.manifest.digest}
    for change in CHANGES:
        digests.add(surveyed(data, tmp_path, overlay=str(overlay(tmp_path, [change]))).manifest.digest)
    assert len(digests) == 2 + len(CHANGES)


def test_a_group_given_to_one_image_leaves_the_groups_of_file_names_to_the_others(tmp_path: Path) -> None:
    data = save_folders(tmp_path / "shapes", per_class=10, side=8)
    rule = r"/00(\d)"
    change = {"image": "circle/003.png", "action": "group", "value": "alone"}
    path = overlay(tmp_path, [change])
    known = surveyed(data, tmp_path, overlay=str(path), groups=rule)
    groups = {row.id: row.group for row in known.manifest.rows}
    assert groups["circle/003.png"] == "alone" and groups["square/003.png"] == "3" and groups["circle/004.png"] == "4"
    assert surveyed(data, tmp_path, overlay=str(path), groups="none").records["square/003.png"].group is None


# ---- runs


SMALL = f"{FAST} --model logistic --no-pretrained"


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run whose file of changes has gone since, in a folder that was moved since."""
    place = tmp_path_factory.mktemp("trained")
    path = overlay(place, CHANGES)
    where = f"--overlay {path} --out {place / 'first'} --cache {place / 'cache'}"
    with charts_undrawn():
        code, out, err = called(["train", str(data), *where.split(), *SMALL.split()])
    assert code == 0, err
    assert "4 images are changed by mine.json: 1 left out, 1 relabelled, 2 put into a group" in out
    path.unlink()
    shutil.move(place / "first", place / "run")
    yield place / "run"


def test_a_run_keeps_the_changes_and_what_was_asked(trained: Path) -> None:
    assert json.loads((trained / "overlay.json").read_text())["changes"] == CHANGES
    assert f'overlay = "{trained.parent / "mine.json"}"' in (trained / "config.toml").read_text()
    assert RunFolder(trained).config.overlay == str(trained / "overlay.json")
    content = json.loads((trained / "data.json").read_text())
    assert {"path": "circle/000.png", "reason": "left out by the overlay (empty-images)"} in content["left_out"]
    assert any("4 images are changed by mine.json" in note for note in content["notes"])
    report = (trained / "report.html").read_text()
    assert "4 images are changed by mine.json" in report and "left out by the overlay (empty-images)" in report
    assert "The findings propose" not in report  # these changes are made


def test_a_run_is_evaluated_on_the_changed_data_though_the_file_has_gone(trained: Path) -> None:
    rows = json.loads((trained / "data.json").read_text())["manifest"]["rows"]
    before = json.loads((trained / "results.json").read_text())["splits"]["val"]["accuracy"]["value"]
    code, out, err = called(["evaluate", str(trained), "--device", "cpu", "--json"])
    assert code == 0, err
    numbers = json.loads(out)["splits"]
    assert {side: numbers[side]["accuracy"]["n"] for side in numbers} == {
        side: sum(row["split"] == side for row in rows) for side in ("val", "test")
    }
    assert numbers["val"]["accuracy"]["value"] == before


def test_a_run_goes_on_with_the_changed_data_though_the_file_has_gone(trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "stopped"
    shutil.copytree(trained, run)
    (run / "STATUS").write_text("stopped\n")
    code, _, err = called(["train", "--resume", str(run)])
    assert code == 0, err
    (run / "STATUS").write_text("stopped\n")
    changes = json.loads((run / "overlay.json").read_text())
    changes["changes"][1]["value"] = "triangle"
    (run / "overlay.json").write_text(json.dumps(changes))
    code, _, err = called(["train", "--resume", str(run)])
    assert code == 2 and "the data has changed" in err


def test_folds_and_trials_see_the_changes(data: Path, tmp_path: Path) -> None:
    path = overlay(tmp_path, CHANGES)
    for verb, options, runs in (("train", "--folds 2 --no-test", 2), ("tune", "--trials 1", 1)):
        out = tmp_path / verb
        where = f"{data} --overlay {path} --out {out} --cache {tmp_path / 'cache'}"
        code, _, err = called([verb, *where.split(), *options.split(), *SMALL.split()])
        assert code == 0, err
        assert json.loads((out / "overlay.json").read_text())["changes"] == CHANGES
        found = [run for run in out.rglob("data.json") if run.parent != out]
        assert len(found) >= runs
        for file in found:
            assert json.loads((file.parent / "overlay.json").read_text())["changes"] == CHANGES
            ids = {row["id"]: row for row in json.loads(file.read_text())["manifest"]["rows"]}
            assert "circle/000.png" not in ids and ids["circle/001.png"]["labels"] == ["square"]


@pytest.mark.parametrize("verb", ["train", "tune", "train --folds 2", "audit"])
def test_a_wrong_file_is_told_before_anything_is_written(verb: str, data: Path, tmp_path: Path) -> None:
    path = overlay(tmp_path, [{"image": "circle/000.png", "action": "drop"}])
    command, *options = verb.split()
    code, out, err = called([command, str(data), "--overlay", str(path), "--out", str(tmp_path / "out"), *options])
    assert code == 2 and not out and "change 1: unknown action 'drop'" in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists()


# ---- audits


def suspects(subject: AuditSubject) -> Iterator[Finding]:
    """Stands for a check that has something to propose, as long as the image is what it was."""
    if "circle" in subject.rows["circle/005.png"].labels:
        change = {"image": "circle/005.png", "action": "relabel", "value": "square"}
        yield Finding(
            code="suspect-labels",
            severity="warning",
            message="It may be a square.",
            advice="Look at it.",
            images=("circle/005.png",),
            certainty="observed",
            treatment={"overlay": [change]},
        )


@pytest.fixture
def suspicious(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_audit, "CHECKS", (suspects,))


@pytest.mark.usefixtures("suspicious")
def test_an_audit_proposes_what_an_audit_accepts(data: Path, tmp_path: Path) -> None:
    code, out, err = called(
        ["audit", str(data), "--quick", "--out", str(tmp_path / "one"), "--cache", str(tmp_path / "cache")]
    )
    proposal = tmp_path / "one" / "overlay.json"
    assert code == 0, err
    assert f"Changes proposed: {proposal}; try them with --overlay" in out
    change = {"image": "circle/005.png", "action": "relabel", "value": "square", "because": "suspect-labels"}
    assert json.loads(proposal.read_text()) == {"version": 1, "data": "shapes", "changes": [change]}
    report = (tmp_path / "one" / "report.html").read_text()
    assert "The findings propose 1 change to the data" in report and "relabel: square" in report
    again = snellen.audit(data, quick=True, overlay=str(proposal), out=tmp_path / "two", cache=str(tmp_path / "cache"))
    assert not again.findings and again.overlay is None and not (tmp_path / "two" / "overlay.json").exists()


@pytest.mark.usefixtures("suspicious")
def test_a_proposal_on_top_of_changes_holds_both(data: Path, tmp_path: Path) -> None:
    path = overlay(tmp_path, CHANGES)
    found = snellen.audit(data, quick=True, overlay=str(path), out=tmp_path / "audit", cache=str(tmp_path / "cache"))
    assert found.overlay is not None and found.to_json()["overlay"] == str(found.overlay)
    changes = json.loads(found.overlay.read_text())["changes"]
    assert changes[:-1] == CHANGES and changes[-1]["because"] == "suspect-labels"


def test_an_audit_that_finds_nothing_to_change_proposes_nothing(data: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in data.rglob("*.png")}
    path = overlay(tmp_path, CHANGES)
    code, out, _ = called(
        ["audit", str(data), "--quick", "--out", str(tmp_path / "audit"), "--cache", str(tmp_path / "cache")]
    )
    assert code == 0 and "Changes proposed" not in out and not (tmp_path / "audit" / "overlay.json").exists()
    assert (
        snellen.audit(data, quick=True, overlay=str(path), out=tmp_path / "two", cache=str(tmp_path / "cache")).overlay
        is None
    )
    assert {path: path.read_bytes() for path in data.rglob("*.png")} == before
