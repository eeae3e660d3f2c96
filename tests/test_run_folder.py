"""What a run leaves on disk: it comes back as it was, or one sentence says what is wrong with it."""

from __future__ import annotations

import errno
import json
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from snellen.api.places import check_place
from snellen.core.checkpoint import Checkpoint, load_tensors, save_tensors
from snellen.core.config import Config
from snellen.core.errors import ConfigError, RunError, StorageError
from snellen.core.estimate import Estimate
from snellen.core.files import TEMPORARY_PREFIX, write_text
from snellen.core.finding import Finding
from snellen.core.run import RunFolder
from snellen.tasks.loading import load_model
from tiny_runs import a_plan, different


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run")


def a_checkpoint(**changes: Any) -> Checkpoint:
    generator = torch.Generator().manual_seed(0)
    weights = {
        "head.weight": torch.randn(3, 4, generator=generator),
        "head.bias": torch.zeros(3),
        "bn.num_batches_tracked": torch.tensor(7),
        "half": torch.randn(2, 3, generator=generator).bfloat16(),
    }
    metrics = {"accuracy": Estimate(value=0.5, n=10, low=0.2, high=0.8, method="wilson")}
    made = Checkpoint(weights=weights, plan=a_plan(), origin="fine-tuned", epoch=3, step=40, metrics=metrics)
    return replace(made, **changes)


def as_read(checkpoint: Checkpoint) -> dict[str, Any]:
    """Everything but the weights, as JSON gives it back."""
    plan = json.dumps(checkpoint.plan.to_json(), sort_keys=True)
    return {"plan": plan, "metrics": dict(checkpoint.metrics), "at": (checkpoint.epoch, checkpoint.step)}


# --- checkpoints


def test_a_checkpoint_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    saved, path = a_checkpoint(), tmp_path / "checkpoints" / "best.safetensors"
    saved.save(path)
    loaded = Checkpoint.load(path)
    assert different(saved.weights, loaded.weights) == []
    assert as_read(loaded) == as_read(saved)
    assert loaded.plan.classes == saved.plan.classes and loaded.plan.preprocessing == saved.plan.preprocessing
    assert loaded.origin == "fine-tuned"


def test_weights_that_share_memory_or_lie_channels_last_come_back_too(tmp_path: Path) -> None:
    shared = torch.arange(24.0).view(2, 3, 2, 2).contiguous(memory_format=torch.channels_last)
    weights = {"one": shared, "other": shared, "turned": torch.arange(6.0).view(2, 3).T}
    save_tensors(tmp_path / "x.safetensors", weights, {"version": 1})
    assert different(weights, load_tensors(tmp_path / "x.safetensors")[0]) == []


def test_any_flipped_byte_is_found_or_harmless(tmp_path: Path) -> None:
    whole, path = a_checkpoint(), tmp_path / "best.safetensors"
    whole.save(path)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    harmless = 0
    # Every byte of the first kilobyte, where lengths, names and types are; of the rest some.
    rest = rng.choice(np.arange(1024, len(content)), 300, replace=False)
    for position in [*range(1024), *map(int, rest)]:
        damaged = bytearray(content)
        damaged[position] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            loaded = Checkpoint.load(path)
        except RunError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            continue
        harmless += 1
        assert different(whole.weights, loaded.weights) == [] and as_read(loaded) == as_read(whole), position
    assert harmless < 20  # blanks that pad the header


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 100, 0.5, -1])
def test_a_truncated_checkpoint_is_a_run_error(keep: float, tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    a_checkpoint().save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    with pytest.raises(RunError, match=r"the checkpoint .*best\.safetensors is damaged"):
        Checkpoint.load(path)


def test_a_checkpoint_of_a_newer_version_asks_for_an_update(tmp_path: Path) -> None:
    save_tensors(tmp_path / "x.safetensors", {"a": torch.zeros(1)}, {"version": 99})
    with pytest.raises(RunError, match=r"format version 99, newer than the 1 .* update Snellen"):
        load_tensors(tmp_path / "x.safetensors")


def test_a_file_of_another_program_is_a_run_error(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(RunError, match="damaged"):
        load_tensors(tmp_path / "x.safetensors")
    with pytest.raises(RunError, match="no checkpoint at"):
        load_tensors(tmp_path / "gone.safetensors")


def test_weights_of_another_plan_are_a_run_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snellen.tasks.loading.available_cores", lambda: 1)
    with pytest.raises(RunError, match="does not fit its own plan"):
        load_model(a_checkpoint(), device="cpu")


# --- a disk that is full, or not ours


@contextmanager
def no_file_longer_than(size: int) -> Iterator[None]:
    """The system itself refuses to write more, bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def no_leftovers(folder: Path) -> bool:
    return not list(folder.rglob(TEMPORARY_PREFIX + "*"))


def test_when_space_runs_out_while_writing_the_earlier_checkpoint_stays(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    a_checkpoint(epoch=1).save(path)
    with no_file_longer_than(path.stat().st_size // 2), pytest.raises(StorageError, match="no space left to write"):
        a_checkpoint(epoch=2).save(path)
    assert Checkpoint.load(path).epoch == 1
    assert no_leftovers(tmp_path)


@pytest.mark.parametrize(
    ("call", "number", "told"),
    [
        ("fsync", errno.ENOSPC, "no space left to write .*: free some space"),
        ("replace", errno.ENOSPC, "no space left"),
        ("replace", errno.EDQUOT, "no space left"),
        ("replace", errno.EACCES, "no permission to write"),
        ("fsync", errno.EROFS, "no permission to write"),
    ],
)
def test_when_the_system_refuses_the_earlier_checkpoint_stays(
    call: str, number: int, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "best.safetensors"
    a_checkpoint(epoch=1).save(path)

    def refuse(*arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch, pytest.raises(StorageError, match=told):
        patch.setattr(os, call, refuse)
        a_checkpoint(epoch=2).save(path)
    assert Checkpoint.load(path).epoch == 1
    assert no_leftovers(tmp_path)


def test_an_event_that_finds_no_space_is_a_storage_error(run: RunFolder) -> None:
    run.append_event({"event": "step", "step": 1})
    with no_file_longer_than(30), pytest.raises(StorageError, match=r"no space left to write .*metrics\.jsonl"):
        run.append_event({"event": "step", "step": 2})
    assert [event["step"] for event in run.events()] == [1]


def test_a_run_folder_inside_a_file_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="a file is where a folder is needed"):
        RunFolder.create(tmp_path / "file" / "run")


def test_no_permission_to_make_the_folder_is_a_storage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **more: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(StorageError, match=r"no permission to write .*run: choose a place"):
        RunFolder.create(tmp_path / "run")


# --- the folder


def test_a_run_folder_takes_a_free_place_and_says_that_it_runs(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("new", "deep/er", "empty"):
        assert RunFolder.open(RunFolder.create(tmp_path / name).path).status == "running"


@pytest.mark.parametrize("taken", ["run", "folder with a file", "file"])
def test_what_is_there_is_never_overwritten(taken: str, tmp_path: Path) -> None:
    path = tmp_path / taken
    if taken == "run":
        RunFolder.create(path)
    elif taken == "file":
        path.write_text("mine")
    else:
        path.mkdir()
        (path / "mine").write_text("mine")
    before = sorted(path.rglob("*")) if path.is_dir() else path.read_text()
    with pytest.raises(RunError, match="exists and is never overwritten: choose another --out"):
        RunFolder.create(path)
    assert (sorted(path.rglob("*")) if path.is_dir() else path.read_text()) == before


def test_going_on_is_advised_only_where_the_verb_can(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(RunError, match=r"choose another --out$"):
        check_place(tmp_path)
    with pytest.raises(RunError, match=r"choose another --out, or --resume it$"):
        check_place(tmp_path, resumable=True)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda path: (path / "STATUS").unlink(), "is not a run folder .* give the folder that 'snellen train' wrote"),
        (lambda path: path.rename(path.with_name("moved")), "does not exist: give the folder"),
        (lambda path: write_text(path / "environment.json", '{"run_version": 2}'), "format version 2, newer .* update"),
        (lambda path: write_text(path / "environment.json", "[]"), r"environment\.json is damaged"),
        (lambda path: write_text(path / "environment.json", '{"run_version": "1"}'), r"environment\.json is damaged"),
        (lambda path: write_text(path / "environment.json", '{"run_ver'), r"environment\.json is damaged"),
    ],
    ids=["no status", "gone", "newer", "a list", "a text", "cut"],
)
def test_what_is_no_run_of_this_version_is_said(spoil: Callable[[Path], object], told: str, run: RunFolder) -> None:
    spoil(run.path)
    with pytest.raises(RunError, match=told):
        RunFolder.open(run.path)


@pytest.mark.parametrize("content", [b"", b"runing\n", b"\xff\xfe", b"done done"])
def test_a_damaged_status_is_said(content: bytes, run: RunFolder) -> None:
    (run.path / "STATUS").write_bytes(content)
    with pytest.raises(RunError, match=r"STATUS is damaged: it says .*, not one of running, stopped, done, failed"):
        _ = run.status


@pytest.mark.parametrize("status", ["running", "stopped", "done", "failed"])
def test_status_comes_back(status: Any, run: RunFolder) -> None:
    run.set_status(status)
    assert RunFolder.open(run.path).status == status


def test_settings_plan_and_findings_come_back(run: RunFolder) -> None:
    config = Config.of(data="photos", split="60/20/20", time_limit="5m", epochs=3)
    write_text(run.path / "config.toml", config.to_toml())
    run.write_json("plan.json", a_plan().to_json())
    finding = Finding(code="few-images", severity="warning", message="m", advice="a", images=("x",), evidence={"n": 3})
    run.write_findings([finding])
    again = RunFolder.open(run.path)
    assert again.config == config
    assert json.dumps(again.plan.to_json()) == json.dumps(a_plan().to_json())
    assert again.findings == [finding]


@pytest.mark.parametrize("content", ["[]", "{}", '{"version": 1, "choices": {}, "reasons": {}}', '{"version": 1'])
def test_a_damaged_plan_is_a_run_error(content: str, run: RunFolder) -> None:
    write_text(run.path / "plan.json", content)
    with pytest.raises(RunError, match="damaged"):
        _ = run.plan


def test_a_plan_of_a_newer_version_asks_for_an_update(run: RunFolder) -> None:
    run.write_json("plan.json", {**a_plan().to_json(), "version": 99})
    with pytest.raises(RunError, match=r"newer .* update Snellen"):
        _ = run.plan


def test_a_run_that_stopped_before_it_wrote_a_file_says_so(run: RunFolder) -> None:
    with pytest.raises(RunError, match=r"has no plan\.json: it was stopped before it was written"):
        _ = run.plan
    with pytest.raises(ConfigError, match="no configuration file at"):
        _ = run.config
    assert run.findings == [] and list(run.events()) == []


# --- events


def test_a_last_event_that_was_cut_is_passed_over_and_written_again(run: RunFolder) -> None:
    for step in range(1, 6):
        run.append_event({"event": "step", "step": step})
    path = run.path / "metrics.jsonl"
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert [event["step"] for event in run.events()] == list(range(1, whole[:length].count(b"\n") + 1))
    path.write_bytes(whole[:-4])
    run.rewind_events(3)
    for step in (4, 5):
        run.append_event({"event": "step", "step": step})
    assert path.read_bytes() == whole


def test_a_damaged_event_in_the_middle_is_named(run: RunFolder) -> None:
    (run.path / "metrics.jsonl").write_bytes(b'{"step": 1}\n{"ste\n{"step": 3}\n')
    with pytest.raises(RunError, match=r"metrics\.jsonl is damaged in line 2"):
        list(run.events())


def test_an_event_that_json_cannot_hold_leaves_the_file_whole(run: RunFolder) -> None:
    run.append_event({"step": 1})
    with pytest.raises(ValueError):
        run.append_event({"step": 2, "loss": float("nan")})
    assert list(run.events()) == [{"step": 1}]


def test_sweeping_removes_what_a_kill_left_and_nothing_else(run: RunFolder) -> None:
    a_checkpoint().save(run.best_checkpoint)
    before = sorted(run.path.rglob("*"))
    for place in (run.path, run.path / "checkpoints"):
        (place / f"{TEMPORARY_PREFIX}abc").write_text("half")
    run.sweep()
    assert sorted(run.path.rglob("*")) == before
