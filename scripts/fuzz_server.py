"""Send hostile requests to a server on this machine, and see whether it minds.

    python scripts/fuzz_server.py --requests 10000
    python scripts/fuzz_server.py runs/2026-11-22_cats --images photos/

Without a run, a model answers that needs no training. Each request follows from its number: files of many formats
that were mutated, cut short or put together, bombs, forms, chunks, tensors, and what is no HTTP. Full batches of sound
images are answered before: a runtime keeps what its largest batch took. It ends with 1 when there was a 5xx other than
503, when an answer did not come, when the server died or answers no sound image at the end, or when its memory is then
more than 5 % above the most that it was by the middle (it goes up and down by more than that). The decoders, which are
processes of their own, are told apart.
"""

from __future__ import annotations

import argparse
import random
import re
import subprocess
import sys
import time
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from itertools import islice
from pathlib import Path

import psutil
from PIL import Image

TESTS = Path(__file__).parents[1] / "tests"
sys.path.insert(0, str(TESTS))

from hostile_requests import Request, answered, hostile_request, sound_files  # noqa: E402
from serve_cases import photograph, post  # noqa: E402

MOST_GROWTH = 0.05
_PARTS = 10
_AT_ONCE = 48  # requests: enough for full batches, and fewer than one address may have
SERVER = """
import sys
sys.path.insert(0, {tests!r})
from serve_cases import Shades, served
from snellen.core.console import Console
from snellen.serve.address import Address
from snellen.serve.limits import Limits
from snellen.serve.server import listening_socket
from snellen.serve.start import serve_models

address = Address(port=0)
with listening_socket(address.host, address.port) as bound:
    about = dict(version="0", log_requests=False, console=Console())
    limits = Limits(head_seconds=2.0, body_seconds=2.0, decode_seconds=3.0)
    serve_models(served(model=Shades()), bound, address, limits, **about)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", help="what 'snellen serve' is given")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="the number of the first request")
    parser.add_argument("--images", type=Path, help="a folder of images, some of which are mutated as well")
    parser.add_argument("--clients", type=int, default=8, help="at once")
    given = parser.parse_args()
    files = [*sound_files(), *_some_of(given.images)]
    process, port = _started(given.run)
    try:
        return _judged(process, port, files, given)
    finally:
        process.terminate()
        process.wait(20)


def _some_of(folder: Path | None) -> list[bytes]:
    if folder is None:
        return []
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"))
    return [path.read_bytes() for path in random.Random(0).sample(found, min(20, len(found)))]


def _started(run: str | None) -> tuple[subprocess.Popen[str], int]:
    command = [sys.executable, "-c", SERVER.format(tests=str(TESTS))]
    if run is not None:
        command = [sys.executable, "-m", "snellen", "serve", f"model={run}", "--port", "0", "--quiet"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"Serving on http://127\.0\.0\.1:(\d+)/", line):
            return process, int(found[1])
    raise SystemExit("the server did not start")


def _judged(process: subprocess.Popen[str], port: int, files: list[bytes], given: argparse.Namespace) -> int:
    numbers = iter(range(given.first, given.first + given.requests))
    counts: Counter[tuple[str, str]] = Counter()
    failed: list[int] = []

    def send(number: int) -> None:
        request = hostile_request(number, files, "model")
        try:
            status = answered(port, request)
        except TimeoutError:
            status = -1
        counts[request.kind, {None: "no answer", -1: "timeout"}.get(status, str(status))] += 1
        if status == -1 or (status is not None and status >= 500 and status != 503):
            failed.append(number)

    _warm_up(port, max(files, key=_num_pixels))
    started, memory = time.perf_counter(), [_memory(process.pid)]
    print(f"before: {memory[0][0]:.1f} MB, decoders {memory[0][1]:.1f} MB", flush=True)
    with ThreadPoolExecutor(given.clients) as pool:
        for part in range(_PARTS):
            last = part == _PARTS - 1
            list(pool.map(send, islice(numbers, None if last else given.requests // _PARTS)))
            memory.append(_memory(process.pid))
            print(f"{part + 1}/{_PARTS}: {memory[-1][0]:.1f} MB, decoders {memory[-1][1]:.1f} MB", flush=True)
    seconds = time.perf_counter() - started
    alive = process.poll() is None and answered(port, Request("sound", post("/predict", photograph()))) == 200
    _print(counts)
    growth = memory[-1][0] / max(server for server, _ in memory[: _PARTS // 2 + 1]) - 1
    print(f"{given.requests} requests in {seconds:.0f} s, memory of the server {100 * growth:+.1f} %")
    if failed:
        print(f"failed: {len(failed)}, the first of them --first {failed[0]} --requests 1")
    if not alive:
        print("the server does not answer any more")
    return int(bool(failed) or not alive or growth > MOST_GROWTH)


def _num_pixels(file: bytes) -> int:
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(BytesIO(file)) as image:
            return image.width * image.height
    except Exception:  # of what is damaged and odd, Pillow raises almost anything
        return 0


def _warm_up(port: int, file: bytes) -> None:
    raw = [post(f"/{verb}?model=model", file) for verb in ("explain", *["predict"] * _AT_ONCE * 3)]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(lambda each: answered(port, Request("sound", each)), raw))


def _memory(pid: int) -> tuple[float, float]:
    """MB of the server, and of the processes that it started; once it is idle."""
    time.sleep(2)
    server = psutil.Process(pid)
    return server.memory_info().rss / 1e6, sum(each.memory_info().rss for each in server.children()) / 1e6


def _print(counts: Counter[tuple[str, str]]) -> None:
    kinds, statuses = (sorted({key[i] for key in counts}) for i in (0, 1))
    print(f"{'':24}" + "".join(f"{status:>11}" for status in statuses))
    for kind in kinds:
        print(f"{kind:24}" + "".join(f"{counts[kind, status]:>11}" for status in statuses))


if __name__ == "__main__":
    sys.exit(main())
