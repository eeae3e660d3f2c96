"""Snellen's command in processes of their own, which can be killed at any moment.

The processes are forked from one that has imported torch already: a kill then falls into the work, not into an import
of seconds.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import numpy as np

from snellen.core.checkpoint import Checkpoint, load_tensors
from snellen.core.run import RunFolder

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    [
        *("snellen.cli", "snellen.train.run_training", "snellen.train.start", "snellen.report.build", "scipy.optimize"),
        *(
            "torch._dynamo",
            "matplotlib.figure",
            "matplotlib.backends.backend_svg",
            "snellen.tasks.classification.plots",
        ),
        *("tensorboard.summary.writer.event_file_writer", "safetensors.torch", "tomli_w"),
    ]
)


def _command(arguments: Sequence[str], log: Path) -> None:
    """``snellen`` with these arguments; what it prints is appended to ``log``."""
    from snellen.cli import run

    with open(log, "a", buffering=1) as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        code = run(list(arguments))
    sys.exit(code)


@dataclass(frozen=True)
class Trial:
    """Where one training run is made again and again, with the same settings.

    settings  options of ``snellen train`` beside --out and --cache
    """

    data: Path
    folder: Path
    settings: Sequence[str]

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"

    def train(self, out: Path) -> ForkServerProcess:
        return self._started("train", str(self.data), "--out", str(out), "--cache", f"{out}-cache", *self.settings)

    def resume(self, out: Path) -> ForkServerProcess:
        return self._started("train", "--resume", str(out))

    def _started(self, *arguments: str) -> ForkServerProcess:
        process = _FORKS.Process(target=_command, args=(arguments, self.log))
        process.start()
        return process


def ended(process: ForkServerProcess) -> int:
    """Wait for its end; the exit code, negative for a signal."""
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def when(condition: Callable[[], bool], process: ForkServerProcess) -> None:
    """Wait until ``condition`` holds. AssertionError when the process ends before that."""
    while not condition():
        assert process.is_alive(), f"it ended with {process.exitcode} before it was to be stopped"
        time.sleep(0.002)


def send(process: ForkServerProcess, number: signal.Signals) -> None:
    assert process.pid is not None
    os.kill(process.pid, number)


@dataclass(frozen=True, kw_only=True)
class Kill:
    """A SIGKILL and what it left.

    after   seconds from the start of the process
    status  of the run folder, or 'none' where there was nothing yet to go on from
    step    of last.safetensors, 0 where there was none
    events  steps told in metrics.jsonl
    """

    after: float
    status: str
    step: int
    events: int


def kill_at_random(trial: Trial, out: Path, rng: np.random.Generator, longest: float) -> Kill | None:
    """Start or resume the run in ``out`` and kill it within ``longest`` seconds; None when it was done before that.

    AssertionError when what is left is damaged, or when the run ended in an error.
    """
    process = trial.resume(out) if out.exists() else trial.train(out)
    after = float(rng.uniform(0, longest))
    process.join(after)
    process.kill()
    code = ended(process)
    if code == 0:
        return None
    assert code == -signal.SIGKILL, f"exit code {code}; see {trial.log}"
    if not (out / "plan.json").exists():
        shutil.rmtree(out, ignore_errors=True)
        return Kill(after=after, status="none", step=0, events=0)
    return _look(RunFolder.open(out), after)


def _look(run: RunFolder, after: float) -> Kill:
    """Everything that is there can be read."""
    if run.best_checkpoint.exists():
        weights = Checkpoint.load(run.best_checkpoint).weights
        assert all(bool(tensor.isfinite().all()) for tensor in weights.values())
    step = load_tensors(run.last_checkpoint)[1]["progress"]["step"] if run.last_checkpoint.exists() else 0
    told = [event["step"] for event in run.events() if event["event"] == "step"]
    assert told == list(range(1, len(told) + 1)) and len(told) >= step
    return Kill(after=after, status=run.status, step=step, events=len(told))


def traces(out: Path) -> dict[str, Any]:
    """What must be the same, bit by bit, however often a run was stopped: by name, weights and the rest."""
    run = RunFolder.open(out)
    best = Checkpoint.load(run.best_checkpoint)
    results = run.read_json("results.json")
    timeless = {"seconds", "time"}
    return {
        "status": run.status,
        "weights": {name: (str(t.dtype), tuple(t.shape), t.numpy().tobytes()) for name, t in best.weights.items()},
        "best": (best.origin, best.epoch, best.step),
        "events": [{name: e[name] for name in e if name not in timeless} for e in run.events()],
        "results": {name: results[name] for name in results if name not in timeless},
        "predictions": {path.name: path.read_bytes() for path in sorted(run.predictions.iterdir())},
        "left": sorted(path.name for path in (out / "checkpoints").iterdir()),
        "report": (out / "report.html").is_file(),
    }


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return [name for name in one if one[name] != other[name]]
