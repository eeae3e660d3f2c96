"""What serving costs: images a second and latencies of 'snellen serve', beside the same model called in batches.

    python benchmarks/serving.py runs/2026-11-22_cats photos/
    python benchmarks/serving.py runs/2026-11-22_cats photos/ --clients 32 --rounds 7
    python benchmarks/serving.py runs/2026-11-22_cats photos/ --mixes 5000
    python benchmarks/serving.py runs/2026-11-22_cats photos/ --soak 10

Ways in turns, in every round:

    model, pixels     decide() on batches of what is prepared already: nothing but the model
    streams, pixels   the same as the server asks it: by several threads at once, where it says that it can be
    server, pixels    UINT8 tensors over the Open Inference Protocol, at the size that the model sees
    1x, pixels        the same at random moments, at the rate that 'server, pixels' reached
    2x, pixels        the same at twice that rate: what is too much must be refused, not pile up
    model, files      decoded by threads, prepared and decided in batches: what 'snellen predict' does
    streams, files    the same by several threads
    server, files     image files to /predict
    half, files       files at random moments, at half of the rate that 'server, files' reached
    1x, files         the same at that rate
    2x, files         the same at twice that rate

The model's ways run in this process. The server's are closed loops: so many clients, each with one request on its way.
'half', '1x' and '2x' are open ones: requests come when they come, and a latency counts from the moment that one was
due. 'of model' and 'of streams' are shares of that way in the same round; of '1x' it is the share of 'server' that was
answered with 200 (the goodput), and of '2x' that of '1x': what overload takes away, apart from what chance does, which
spares neither caches nor batches. Latencies are of what was answered with 200; 'refused' is how many were told 503, and
after how many milliseconds (median, 99 %). Anything else is counted as 'failed' and should not be there.

Clients and server share the machine, and the clients' work is taken from the model; what they cost is told, and is
small (load.py). 'cpu' is what an answered image costs in milliseconds of processor: in the server with its decoders,
and in the clients. It depends less on what else the machine does than rates do.

--mixes N asks for N images (crops of the photos), each alone and then in the company of random others; every answer
must be the same to the last bit. --soak MINUTES is '2x, files' for so long, and tells of memory and open files.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from load import Reply, Run, closed_loop, each_once, open_loop, written

BATCH = 16
KINDS = ("pixels", "files")
OWN = ("answer", "probabilities", "values")  # outputs with a row for each image


@dataclass
class Round:
    """images a second; seconds of processor an image, of what answers and of the clients; replies."""

    rate: float
    cpu: float = 0.0
    clients: float = 0.0
    replies: list[Reply] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each way in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mixes", type=int, metavar="N")
    parser.add_argument("--soak", type=float, metavar="MINUTES")
    given = parser.parse_args()
    paths = sorted(path for path in given.photos.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))[:200]
    files = [path.read_bytes() for path in paths]
    model = None if given.mixes or given.soak else Model(given.run, files)
    with started(given.run) as server:
        if given.mixes:
            mixed(server, files, given.mixes, given.clients)
        elif given.soak:
            soaked(server, files, given.soak, given.clients)
        elif model is not None:
            printed(measured(model, server, files, given))


def measured(model: Model, server: Server, files: list[bytes], given: argparse.Namespace) -> dict[str, list[Round]]:
    sent = {
        "pixels": [tensor_request(server.port, image) for image in model.pixels],
        "files": [written(server.port, "/predict?model=model", file, {}) for file in files],
    }
    found: dict[str, list[Round]] = {}

    def note(way: str, one: Round) -> Round:
        found.setdefault(way, []).append(one)
        print(f"  {way:16} {one.rate:8.1f}", flush=True)
        return one

    for number in range(given.rounds + 1):
        if number == 1:
            found.clear()  # the first round warms everything up
        for kind in KINDS:
            note(f"model, {kind}", model.timed(kind, given.seconds, streams=1))
            if model.streams > 1:
                note(f"streams, {kind}", model.timed(kind, given.seconds, streams=model.streams))
            reached = note(f"server, {kind}", server.closed(sent[kind], given.clients, given.seconds)).rate
            if kind == "files":
                note("half, files", server.open(sent[kind], 0.5 * reached, given.seconds, number))
            for times in (1, 2):
                note(f"{times}x, {kind}", server.open(sent[kind], times * reached, 2 * given.seconds, number))
    return found


# ---- tables


def printed(rounds: dict[str, list[Round]]) -> None:
    titles = (f"{'images/s':>9} {'min':>6} {'max':>6} {'of model':>8} {'of streams':>10} {'cpu ms':>7} {'clients':>7}",)
    print(f"{'':16} " + titles[0] + f" {'p50 ms':>7} {'p99 ms':>7} {'refused':>14} {'failed':>6}")
    for way, each in rounds.items():
        rates = [one.rate for one in each]
        line = f"{way:16} {statistics.median(rates):>9.1f} {min(rates):>6.1f} {max(rates):>6.1f}"
        line += "".join(f" {_share(rounds, way, base):>{width}}" for base, width in (("model", 8), ("streams", 10)))
        line += f" {1000 * statistics.median(one.cpu for one in each):>7.1f}"
        line += f" {1000 * statistics.median(one.clients for one in each):>7.2f}"
        print(line + told([reply for one in each for reply in one.replies]))


def _share(rounds: dict[str, list[Round]], way: str, base: str) -> str:
    name, _, kind = way.partition(", ")
    other = {"server": base, "1x": "server", "2x": "1x"}.get(name)
    if other is None or f"{other}, {kind}" not in rounds or (name != "server" and base == "streams"):
        return ""
    pairs = zip(rounds[way], rounds[f"{other}, {kind}"], strict=True)
    return f"{statistics.median(one.rate / than.rate for one, than in pairs):.3f}"


def told(replies: list[Reply]) -> str:
    """Latencies of what was answered and of what was refused."""
    if not replies:
        return ""
    taken = {code: [1000 * (one.ended - one.due) for one in replies if one.status == code] for code in (200, 503)}
    line = "".join(f" {value:>7.0f}" for value in np.percentile(taken[200] or [math.nan], [50, 99]))
    refused = "0"
    if taken[503]:
        refused = f"{len(taken[503])}: " + "/".join(f"{value:.0f}" for value in np.percentile(taken[503], [50, 99]))
    return f"{line} {refused:>14} {len(replies) - sum(map(len, taken.values())):>6}"


# ---- the model itself


class Model:
    """The model of the run in this process, asked by one thread or by as many as it can be."""

    def __init__(self, run: Path, files: list[bytes]) -> None:
        from snellen.api.opening import open_model
        from snellen.api.serving import served
        from snellen.core.device import available_cores

        shared = served(run)
        self._plain, self._shared, self.streams = open_model(run).answering, shared.answering, shared.streams
        self._files, self._pool = files, ThreadPoolExecutor(max(2, available_cores()))
        width, height = self._plain.preprocessing.input_size
        rng = np.random.default_rng(0)
        self.pixels = [rng.integers(0, 256, (height, width, 3), np.uint8) for _ in range(4 * BATCH)]
        self._seen = [self._plain.prepare(each, (width, height)) for each in self.pixels]

    def timed(self, kind: str, seconds: float, *, streams: int) -> Round:
        answering = self._plain if streams == 1 else self._shared
        batches = self._of_files if kind == "files" else self._of_pixels
        started, cpu, ends = time.perf_counter(), time.process_time(), time.perf_counter() + seconds

        def work(batches: Iterator[list[Any]]) -> int:
            done = 0
            while time.perf_counter() < ends:
                done += len(answering.decide(next(batches)))
            return done

        with ThreadPoolExecutor(streams) as pool:
            done = sum(pool.map(work, [batches(i) for i in range(streams)]))
        return Round(done / (time.perf_counter() - started), (time.process_time() - cpu) / done)

    def _of_pixels(self, first: int) -> Iterator[list[Any]]:
        start = first * BATCH
        while True:
            yield [self._seen[(start + i) % len(self._seen)] for i in range(BATCH)]
            start += BATCH

    def _of_files(self, first: int) -> Iterator[list[Any]]:
        """The next batch is decoded while the model works on one."""
        start, ahead = first * BATCH, None
        while True:
            following = self._pool.map(self._read, (self._files[(start + i) % len(self._files)] for i in range(BATCH)))
            if ahead is not None:
                yield list(ahead)
            ahead, start = following, start + BATCH

    def _read(self, file: bytes) -> Any:
        from snellen.data.image import read_image

        header, pixels = read_image(file, min_side=self._plain.min_side)
        return self._plain.prepare(pixels, (header.width, header.height))


# ---- the server


@dataclass(frozen=True)
class Server:
    process: psutil.Process
    port: int

    def closed(self, raws: list[bytes], clients: int, seconds: float) -> Round:
        return self._round(lambda: closed_loop(self.port, raws, clients, seconds))

    def open(self, raws: list[bytes], rate: float, seconds: float, seed: int) -> Round:
        return self._round(lambda: open_loop(self.port, raws, rate, seconds, seed))

    def _round(self, work: Callable[[], Run]) -> Round:
        before = self._cpu()
        run = work()
        answered = sum(reply.status == 200 for reply in run.replies)
        cpu, clients = (self._cpu() - before) / max(1, answered), run.cpu / max(1, answered)
        return Round(answered / run.seconds, cpu, clients, run.replies)

    def _cpu(self) -> float:
        """Seconds of processor that the server and its decoders have used."""
        times = [process.cpu_times() for process in (self.process, *self.process.children())]
        return sum(each.user + each.system for each in times)

    def state(self) -> str:
        decoders = self.process.children()
        memory = [process.memory_info().rss / 2**20 for process in (self.process, *decoders)]
        open_ = f"{self.process.num_fds():4} open files, {self.process.num_threads():3} threads"
        return f"{memory[0]:7.1f} MB, {sum(memory[1:]):7.1f} MB in {len(decoders)} decoders, {open_}"


@contextmanager
def started(run: Path) -> Iterator[Server]:
    options = ["--port", "0", "--quiet", "--max-batch", str(BATCH), "--per-client", "1000"]
    command = [sys.executable, "-m", "snellen", "serve", f"model={run}", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        found = next((re.search(r":(\d+)/", line) for line in process.stdout if line.startswith("Serving on")), None)
        if found is None:
            raise SystemExit("the server did not start")
        yield Server(psutil.Process(process.pid), int(found[1]))
    finally:
        process.terminate()
        process.wait(20)


def tensor_request(port: int, pixels: np.ndarray) -> bytes:
    tensor = {"datatype": "UINT8", "shape": [1, *pixels.shape]}
    return inference(port, tensor, pixels.tobytes(), ["answer"])


def inference(port: int, tensor: dict[str, Any], raw: bytes, outputs: list[str]) -> bytes:
    image = {"name": "image", **tensor, "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"inputs": [image], "outputs": [{"name": name} for name in outputs]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    return written(port, "/v2/models/model/infer", head + raw, headers)


# ---- in any company


def mixed(server: Server, files: list[bytes], num: int, clients: int) -> None:
    rng = random.Random(0)
    images = [a_crop(files[i % len(files)], rng) for i in range(num)]
    alone = answers(server.port, [[i] for i in range(num)], images, 1)
    order = rng.sample(range(num), num)
    mixes = []
    while order:
        mixes.append([order.pop() for _ in range(min(len(order), rng.randint(1, 9)))])
    together = answers(server.port, mixes, images, clients)
    differ = [i for i in range(num) if alone[i] != together[i]]
    distinct = len(set(alone.values()))
    print(f"{num} images alone and in {len(mixes)} mixes, {clients} requests at once: {len(differ)} answers differ")
    print(f"{distinct} different answers among them; {server.state()}")
    if differ:
        raise SystemExit(f"for example {alone[differ[0]]} alone and {together[differ[0]]} in company")


def a_crop(file: bytes, rng: random.Random) -> bytes:
    """A part of a photo as a file of its own; many are of one size, so that they meet in a call of the model."""
    with Image.open(BytesIO(file)) as image:
        width, height = rng.choice([(96, 96), (160, 120), (224, 224), (300, 200)])
        left, top = (
            rng.randint(0, max(0, side - most)) for side, most in zip(image.size, (width, height), strict=True)
        )
        part = image.convert("RGB").crop((left, top, left + width, top + height))
    found = BytesIO()
    part.save(found, rng.choice(["JPEG", "PNG", "WEBP"]))
    return found.getvalue()


def answers(port: int, mixes: list[list[int]], images: list[bytes], clients: int) -> dict[int, str]:
    """What is said of each image, when those of a mix are sent as one request."""
    raws = []
    for mix in mixes:
        raw = b"".join(len(images[i]).to_bytes(4, "little") + images[i] for i in mix)
        raws.append(inference(port, {"datatype": "BYTES", "shape": [len(mix)]}, raw, known_outputs(port)))
    found: dict[int, str] = {}
    for mix, reply in zip(mixes, each_once(port, raws, clients), strict=True):
        if reply.status != 200:
            raise SystemExit(f"a request of {len(mix)} images was told {reply.status}: {reply.body[:300]!r}")
        outputs = json.loads(reply.body)["outputs"]
        for place, i in enumerate(mix):
            rows = [np.reshape(np.array(output["data"]), (len(mix), -1))[place].tolist() for output in outputs]
            found[i] = json.dumps(rows)
    return found


def known_outputs(port: int) -> list[str]:
    import urllib.request

    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/models/model") as response:
        return [output["name"] for output in json.load(response)["outputs"] if output["name"] in OWN]


# ---- for long


def soaked(server: Server, files: list[bytes], minutes: float, clients: int) -> None:
    sent = [written(server.port, "/predict?model=model", file, {}) for file in files]
    server.closed(sent, clients, 10)
    reached = server.closed(sent, clients, 10).rate
    print(
        f"{reached:.1f} images/s in a closed loop; now {2 * reached:.1f} come a second, for {minutes:g} minutes",
        flush=True,
    )
    ended, ends = threading.Event(), time.monotonic() + 60 * minutes

    def watch() -> None:
        while not ended.wait(max(1.0, 3.0 * minutes)):
            print(f"  {ends - time.monotonic():6.0f} s left: {server.state()}", flush=True)

    print(f"  at the start:  {server.state()}", flush=True)
    watching = threading.Thread(target=watch)
    watching.start()
    round_ = server.open(sent, 2 * reached, 60 * minutes, 0)
    ended.set()
    watching.join()
    print(f"  at the end:    {server.state()}")
    printed({"2x, files": [round_], "server, files": [server.closed(sent, clients, 10)]})


if __name__ == "__main__":
    main()
