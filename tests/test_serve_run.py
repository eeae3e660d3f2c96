"""snellen serve: from the folder of a run to answers, and how it begins and ends."""

from __future__ import annotations

import errno
import json
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import snellen
from conftest import FinishedRun
from serve_cases import asking, plain, post, received
from snellen.api.serving import served
from snellen.cli import run
from snellen.core.errors import ConfigError
from snellen.serve.server import listening_socket

TESTS = Path(__file__).parent

# What ``snellen serve`` does once it has a model; here one that is slow and needs no training.
SERVER = """
import sys, time
sys.path.insert(0, {tests!r})
from serve_cases import Shades, served
from snellen.core.console import Console
from snellen.serve.address import Address
from snellen.serve.limits import Limits
from snellen.serve.server import listening_socket
from snellen.serve.start import serve_models

class Slow(Shades):
    def decide(self, seen):
        reds = [round(colour[0]) for colour, size in seen]
        time.sleep(60 if 255 in reds else 0.05)
        return super().decide(seen)

address = Address(port=0, token={token!r})
limits = Limits(max_batch=2, stop_seconds={stop_seconds})
with listening_socket(address.host, address.port) as bound:
    models = served(shades=Slow())
    try:
        serve_models(models, bound, address, limits, version="1", log_requests=True, console=Console())
    except KeyboardInterrupt:
        sys.exit(130)
print("torch was loaded" if "torch" in sys.modules else "no torch")
"""


@dataclass(frozen=True)
class Started:
    process: subprocess.Popen[str]
    port: int
    lines: list[str]

    def ended(self) -> tuple[int, str]:
        """Exit code and what it said after it was told to stop."""
        assert self.process.stdout is not None
        output = self.process.stdout.read()
        return self.process.wait(30), output


@contextmanager
def started(token: str | None = None, stop_seconds: float = 7.0) -> Iterator[Started]:
    code = SERVER.format(tests=str(TESTS), token=token, stop_seconds=stop_seconds)
    command = [sys.executable, "-c", code]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if found := re.search(r"Serving on http://127\.0\.0\.1:(\d+)/", line):
                yield Started(process, int(found[1]), lines)
                return
        raise AssertionError("".join(lines))
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def test_every_answer_of_a_run_is_that_of_its_predictor(finished_run: FinishedRun) -> None:
    files = sorted((finished_run.data / "circle").iterdir())[:4] + sorted((finished_run.data / "square").iterdir())[:4]
    predictions = snellen.predict(finished_run.folder, files)
    with asking({"shapes": served(finished_run.folder, device="cpu")}) as client, ThreadPoolExecutor(4) as pool:
        told = list(pool.map(lambda file: client.post("/predict", content=file.read_bytes()).json(), files))
        [card] = client.get("/models").json()["models"]
    for answer, prediction in zip(told, predictions, strict=True):
        assert prediction.result is not None
        assert answer["label"] == prediction.label
        # Who shares a batch may change the eighth digit: torch adds in another order.
        assert answer["probabilities"] == pytest.approx(prediction.result["probabilities"], abs=1e-6)
    assert card["classes"] == ["circle", "square", "triangle"] and card["explains"]
    assert set(card["metrics"]["val"][card["headline"]]) >= {"value", "low", "high", "n"}
    assert str(finished_run.folder) not in str(card) and "torch" in card["versions"]


def test_signal_under_load_ends_it_after_everything_taken_in_was_answered() -> None:
    with started() as server:
        decoders, sent, answers, failed = _children(server.process.pid), threading.Semaphore(0), [], []

        def ask(red: int) -> None:
            with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
                connection.sendall(post("/predict", plain(red)))
                sent.release()
                (answers if received(connection).startswith(b"HTTP/1.1 200") else failed).append(red)

        with ThreadPoolExecutor(12) as pool:
            for red in range(12):
                pool.submit(ask, red)
            for _ in range(12):
                assert sent.acquire(timeout=20)
            while not answers:  # the server has taken all of them in, and is busy with the rest
                threading.Event().wait(0.005)
            server.process.send_signal(signal.SIGTERM)
        code, said = server.ended()
    assert (code, sorted(answers), failed) == (0, list(range(12)), [])
    assert said.endswith("Stopped.\nno torch\n")
    assert "Traceback" not in said
    assert len(decoders) >= 2 and not any(Path(f"/proc/{decoder}").exists() for decoder in decoders)


def test_requests_that_take_too_long_are_told_that_the_server_stops() -> None:
    """Those whose batch is in the model, and does not come out of it, as well as those that wait behind it."""
    with started(stop_seconds=1.0) as server, ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(_answered, server.port, plain(255)) for _ in range(3)]
        _until_taken_in(server.port, 3)
        server.process.send_signal(signal.SIGTERM)
        server.process.send_signal(signal.SIGTERM)  # what passes a signal on may do so twice
        code, said = server.ended()
    for answer in (each.result() for each in answers):
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503") and b"retry-after: 1" in head and b"nosniff" in head
        assert "stopping" in json.loads(body)["error"]
    assert code == 0
    assert re.fullmatch(r"(127\.0\.0\.1 (GET|POST) \S+ \d+ \d+ ms\n)+Stopped\.\nno torch\n", said), said


def test_second_interrupt_waits_for_nothing_and_says_nothing() -> None:
    with started() as server, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(_answered, server.port, plain(255))
        _until_taken_in(server.port, 1)
        server.process.send_signal(signal.SIGINT)
        while _accepts(server.port):
            threading.Event().wait(0.01)
        server.process.send_signal(signal.SIGINT)
        code, said = server.ended()
        assert answer.result() == b""
    assert code == 130
    assert re.fullmatch(r"(127\.0\.0\.1 (GET|POST) \S+ \d+ \d+ ms\n)+", said), said


def _answered(port: int, file: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(post("/predict", file))
        return received(connection)


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


def _until_taken_in(port: int, num: int) -> None:
    """Images have their places in the queue, and the model has the first of them."""
    told = ""
    while f'snellen_queue_images{{model="shades"}} {num}.0' not in told:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            told = received(connection).decode()


def test_start_tells_address_model_and_token_and_an_interrupt_ends_it() -> None:
    with started("a-token-of-its-own") as server:
        server.process.send_signal(signal.SIGINT)
        code, said = server.ended()
    told = "".join(server.lines)
    assert "shades: classification (dark, red, <b>green</b>)" in told
    assert f"http://127.0.0.1:{server.port}/?token=a-token-of-its-own" in told
    assert "Authorization: Bearer a-token-of-its-own" in said
    assert code == 0


def test_decoders_end_when_the_server_is_killed() -> None:
    with started() as server:
        children = _children(server.process.pid)
        server.process.kill()
        server.process.wait()
    for child in children:
        while Path(f"/proc/{child}").exists() and _state(child) != "Z":
            threading.Event().wait(0.01)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "MODELS is missing"),
        (["nowhere"], "nowhere does not exist"),
        (["{run}", "{run}"], "two models are called 'run'"),
        (["{run}", "--port", "99999"], "port = 99999"),
        (
            ["{run}", "--port", "{taken}"],
            "port {taken} of 127.0.0.1 cannot be used (Address already in use): give another --port",
        ),
        (["{run}", "--token", "x"], "a token has"),
        (["{run}", "--token", "long-enough", "--insecure"], "insecure"),
        (["{run}", "--max-batch", "0"], "max_batch = 0"),
        (["{run}", "--device", "tpu"], "device"),
        (["{run}", "--port", "0"], "has no model"),
        (["a?b={run}"], "cannot be the name"),
    ],
)
def test_what_cannot_be_served_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "STATUS").write_text("done\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        filled = {"run": str(folder), "taken": taken.getsockname()[1]}
        code = run(["serve", *(each.format(**filled) for each in arguments)])
    captured = capsys.readouterr()
    assert code == 2
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
    assert words.format(**filled) in captured.err


def test_host_that_is_not_of_this_machine_is_told_apart_from_a_port_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    def bind(bound: socket.socket, address: Any) -> None:
        raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")

    monkeypatch.setattr(socket.socket, "bind", bind)
    with pytest.raises(ConfigError, match="give another --host"):
        listening_socket("127.0.0.1", 8000)


def _children(parent: int) -> list[int]:
    import psutil

    return [child.pid for child in psutil.Process(parent).children()]


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"
