"""What every test stands on: one thread per worker, the same hypothesis examples each time, and no network."""

from __future__ import annotations

import contextlib
import gc
import io
import ipaddress
import os
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# xdist already fills the cores; a library that takes all of them in each worker makes the suite slower, not faster.
# These are read when a library loads, so they stand here, and the processes that tests start inherit them.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"
if "torch" in sys.modules:
    sys.modules["torch"].set_num_threads(1)

# A shell without job control starts what it runs in the background deaf to Ctrl-C, and the processes that tests start
# would be as well.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# What imports make stays: while the tests are collected, which is mostly imports, the collector of garbage would walk
# all of it again and again, and so it would in every full collection of the tests' own garbage.
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


settings.register_profile("ci", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("ci")


def is_local(host: str | bytes | None) -> bool:
    """True for this machine: a loopback address, ``localhost``, or no host at all."""
    name = host.decode() if isinstance(host, bytes) else host
    if name in (None, "", "localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """A test that reaches for another machine fails at once, whatever the code under test would catch.

    It guards this process only; a command that a test starts must be given no reason to use the network.
    """

    def refuse(host: object) -> None:
        pytest.fail(f"a test reached for the network: {host!r}", pytrace=True)

    def guarded(connect: Any) -> Any:
        def checked(self: socket.socket, address: Any) -> Any:
            if self.family in (socket.AF_INET, socket.AF_INET6) and not is_local(address[0]):
                refuse(address)
            return connect(self, address)

        return checked

    look_up = socket.getaddrinfo

    def checked_look_up(host: Any, *args: Any, **kwargs: Any) -> Any:
        if not is_local(host):
            refuse(host)
        return look_up(host, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded(socket.socket.connect))
        patch.setattr(socket.socket, "connect_ex", guarded(socket.socket.connect_ex))
        patch.setattr(socket, "getaddrinfo", checked_look_up)
        yield


@pytest.fixture
def cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the test's own: hand it over as ``cache``; code that takes the default finds it as well."""
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture(scope="session", autouse=True)
def few_resamples() -> Iterator[None]:
    """The band of a learning curve, which every run draws, is of a tenth of its resamples; its own tests take all."""
    from snellen.train import learning_curve

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learning_curve, "_RESAMPLES", 20)
        yield


@contextlib.contextmanager
def charts_undrawn() -> Iterator[None]:
    """The charts of reports are made, but not drawn: for tests of whole runs, half of whose time that takes."""
    from snellen.draw import chart

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chart, "_written", lambda canvas, salt: "<g/>")
        yield


@pytest.fixture
def undrawn() -> Iterator[None]:
    """For one test, and not for ``finished_run``, which is made before it."""
    with charts_undrawn():
        yield


@pytest.fixture(scope="module")
def narrow_networks() -> Iterator[None]:
    """'small-resnet' is a quarter as wide in the tests of a module, whose trainings take mostly its time."""
    from snellen.nn.small_resnet import SmallResNet

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SmallResNet.__init__, "__defaults__", (8,))
        yield


@dataclass(frozen=True)
class FinishedRun:
    """What one ``snellen train --json`` left behind. Tests read it; who wants to change something copies it first."""

    data: Path
    cache: Path
    folder: Path
    exit_code: int
    stdout: str
    stderr: str


@pytest.fixture
def one_thread() -> Iterator[None]:
    """torch on one thread, whatever a training of this worker has set."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """Made once a process, from the command line: two epochs on 30 tiny images."""
    from shapes import save_folders
    from snellen.cli import run

    place = tmp_path_factory.mktemp("finished")
    data = save_folders(place / "shapes", per_class=10, side=8)
    cache, folder = place / "cache", place / "run"
    where = ["--out", str(folder), "--cache", str(cache)]
    fixed = ["--device", "cpu", "--precision", "fp32", "--threads", "1", "--workers", "1"]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(["train", str(data), "--epochs", "2", "--json", *where, *fixed])
    return FinishedRun(data, cache, folder, code, out.getvalue(), err.getvalue())
