"""What serving costs: images a second and latencies of 'snellen serve', beside the same model called in batches.

    python benchmarks/serving.py runs/2026-11-22_cats photos/
    python benchmarks/serving.py runs/2026-11-22_cats photos/ --clients 32 --rounds 7

Ways in turns, in every round:

    model, pixels     decide() on batches of what is prepared already: nothing but the model
    model, files      decoded by threads, prepared and decided in batches: what 'snellen predict' does
    server, pixels    UINT8 tensors over the Open Inference Protocol, at the size that the model sees
    server, files     image files to /predict
    server, half      files at random moments, at half of the rate that 'server, files' reached
    server, twice     the same at twice that rate: what is too much must be refused, not pile up

The first two run in this process, which has the model too. 'server, pixels' and 'server, files' are closed loops: so
many clients, each with one request on its way. The last two are open ones: requests come when they come. A share is of
'model, pixels' or 'model, files' in the same round; latencies are of the requests that were answered with 200.

Clients and server share the machine. On two cores the clients' own work, and the server's parsing of HTTP and decoding,
are taken from the model: shares would be higher with clients elsewhere. 'cpu' is what an image costs in milliseconds of
processor, in the server and its decoders, without the clients; it hardly depends on what else the machine does.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import psutil

BATCH = 16
REFERENCE = {"server, pixels": "model, pixels", "server, files": "model, files"}


@dataclass
class Round:
    """images a second, seconds of processor an image, seconds of each answered request, and how many were refused."""

    rate: float
    cpu: float = 0.0
    latencies: list[float] = field(default_factory=list)
    refused: int = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("photos", type=Path)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each way in each round")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    paths = sorted(path for path in given.photos.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))[:200]
    files = [path.read_bytes() for path in paths]
    model = Model(Path(given.run), files)
    process, port = started(given.run)
    try:
        rounds = measured(model, Clients(process.pid, port, given.clients), files, given)
    finally:
        process.terminate()
        process.wait(20)
    printed(rounds)


def measured(model: Model, clients: Clients, files: list[bytes], given: argparse.Namespace) -> dict[str, list[Round]]:
    pixels = [tensor_request(image) for image in model.pixels]
    sent = [("/predict?model=model", file, {}) for file in files]
    found: dict[str, list[Round]] = {}

    def note(way: str, one: Round) -> Round:
        found.setdefault(way, []).append(one)
        print(f"  {way:16} {one.rate:8.1f}", flush=True)
        return one

    for number in range(given.rounds + 1):
        if number == 1:
            found.clear()  # the first round warms everything up
        note("model, pixels", model.on_pixels(given.seconds))
        note("server, pixels", clients.closed_loop(pixels, given.seconds))
        note("model, files", model.on_files(given.seconds))
        reached = note("server, files", clients.closed_loop(sent, given.seconds)).rate
        note("server, half", clients.open_loop(sent, given.seconds, 0.5 * reached, number))
        note("server, twice", clients.open_loop(sent, given.seconds, 2 * reached, number))
    return found


def printed(rounds: dict[str, list[Round]]) -> None:
    print(
        f"{'':16} {'images/s: median':>16}" + "".join(f" {title:>7}" for title in ("min", "max", "share", "cpu ms")),
        end="",
    )
    print("".join(f" {title:>8}" for title in ("p50 ms", "p99 ms", "refused")))
    for way, each in rounds.items():
        rates = [one.rate for one in each]
        line = f"{way:16} {statistics.median(rates):>16.1f} {min(rates):>7.1f} {max(rates):>7.1f}"
        if way in REFERENCE:
            pairs = zip(each, rounds[REFERENCE[way]], strict=True)
            line += f" {statistics.median(one.rate / other.rate for one, other in pairs):>7.3f}"
        else:
            line += " " * 8
        line += f" {1000 * statistics.median(one.cpu for one in each):>7.1f}"
        latencies = [1000 * seconds for one in each for seconds in one.latencies]
        if latencies:
            p50, p99 = np.percentile(latencies, [50, 99])
            line += f" {p50:>8.0f} {p99:>8.0f} {sum(one.refused for one in each):>8}"
        print(line)


# ---- the model itself


class Model:
    """The model of the run in this process."""

    def __init__(self, run: Path, files: list[bytes]) -> None:
        from snellen.api.serving import served
        from snellen.core.device import available_cores

        self._answering = served(run).answering
        self._files, self._pool = files, ThreadPoolExecutor(max(2, available_cores()))
        width, height = self._answering.preprocessing.input_size
        rng = np.random.default_rng(0)
        self.pixels = [rng.integers(0, 256, (height, width, 3), np.uint8) for _ in range(4 * BATCH)]

    def on_pixels(self, seconds: float) -> Round:
        seen = [self._answering.prepare(each, (each.shape[1], each.shape[0])) for each in self.pixels]
        return self._timed(seconds, lambda start: [seen[(start + i) % len(seen)] for i in range(BATCH)])

    def on_files(self, seconds: float) -> Round:
        ahead = self._pool.map(self._read, (self._files[i % len(self._files)] for i in range(BATCH)))

        def batch(start: int) -> list[Any]:
            nonlocal ahead
            ready = list(ahead)
            following = (self._files[(start + BATCH + i) % len(self._files)] for i in range(BATCH))
            ahead = self._pool.map(self._read, following)  # while the model works
            return ready

        return self._timed(seconds, batch)

    def _read(self, file: bytes) -> Any:
        from snellen.data.image import read_image

        header, pixels = read_image(file, min_side=self._answering.min_side)
        return self._answering.prepare(pixels, (header.width, header.height))

    def _timed(self, seconds: float, batch: Callable[[int], list[Any]]) -> Round:
        started, cpu, done = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() - started < seconds:
            done += len(self._answering.decide(batch(done)))
        return Round(done / (time.perf_counter() - started), (time.process_time() - cpu) / done)


# ---- the server and its clients

Sent = tuple[str, bytes, dict[str, str]]  # path, body, headers


def started(run: str) -> tuple[subprocess.Popen[str], int]:
    options = ["--port", "0", "--quiet", "--max-batch", str(BATCH), "--per-client", "1000"]
    command = [sys.executable, "-m", "snellen", "serve", f"model={run}", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"Serving on http://127\.0\.0\.1:(\d+)/", line):
            return process, int(found[1])
    raise SystemExit("the server did not start")


def tensor_request(pixels: np.ndarray) -> Sent:
    tensor = {"name": "image", "datatype": "UINT8", "shape": [1, *pixels.shape]}
    parameters = {"binary_data_size": pixels.nbytes}
    head = json.dumps({"inputs": [{**tensor, "parameters": parameters}], "outputs": [{"name": "answer"}]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    return "/v2/models/model/infer", head + pixels.tobytes(), headers


class Clients:
    """Connections that are kept open."""

    def __init__(self, server: int, port: int, num: int) -> None:
        self._server, self._port, self._num = psutil.Process(server), port, num

    def closed_loop(self, sent: list[Sent], seconds: float) -> Round:
        """Each client asks again as soon as it was answered."""
        numbers, ends = count(), time.perf_counter() + seconds
        return self._together(self._num, lambda: iter(lambda: self._next(numbers, ends), None), sent)

    def open_loop(self, sent: list[Sent], seconds: float, rate: float, seed: int) -> Round:
        """Requests at random moments (a Poisson process), whether or not earlier ones were answered. A latency counts
        from the moment that a request was due."""
        rng = random.Random(seed)
        gaps = (rng.expovariate(rate) for _ in count())
        begins, moments, moment = time.perf_counter(), [], 0.0
        while (moment := moment + next(gaps)) < seconds:
            moments.append(moment)
        due, lock = iter(enumerate(moments)), threading.Lock()

        def turns() -> Any:
            while True:
                with lock:
                    turn = next(due, None)
                if turn is None:
                    return
                number, at = turn
                time.sleep(max(0.0, begins + at - time.perf_counter()))
                yield number, begins + at

        return self._together(200, turns, sent)

    @staticmethod
    def _next(numbers: Any, ends: float) -> tuple[int, float] | None:
        now = time.perf_counter()
        return (next(numbers), now) if now < ends else None

    def _together(self, num: int, turns: Callable[[], Any], sent: list[Sent]) -> Round:
        found = Round(0.0)
        started, cpu = time.perf_counter(), self._cpu()

        def ask() -> None:
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
            for number, begun in turns():
                path, body, headers = sent[number % len(sent)]
                connection.request("POST", path, body, headers)
                response = connection.getresponse()
                response.read()
                if response.status == 200:
                    found.latencies.append(time.perf_counter() - begun)
                else:
                    found.refused += 1
            connection.close()

        with ThreadPoolExecutor(num) as pool:
            for future in list(islice((pool.submit(ask) for _ in count()), num)):
                future.result()
        found.rate = len(found.latencies) / (time.perf_counter() - started)
        found.cpu = (self._cpu() - cpu) / max(1, len(found.latencies))
        return found

    def _cpu(self) -> float:
        """Seconds of processor that the server and its decoders have used."""
        each = [process.cpu_times() for process in (self._server, *self._server.children())]
        return sum(times.user + times.system for times in each)


if __name__ == "__main__":
    main()
