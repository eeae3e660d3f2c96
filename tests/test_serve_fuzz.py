"""A few hundred hostile requests; scripts/fuzz_server.py sends ten thousand."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from hostile_requests import KINDS, Request, answered, hostile_request, sound_files
from serve_cases import Shades, listening, plain, post, served

NUM = 300


def test_hostile_requests_are_refused_or_answered_and_the_server_lives() -> None:
    files, model = sound_files(), Shades()
    requests = [hostile_request(number, files, "shades") for number in range(NUM)]
    short = {"head_seconds": 0.3, "body_seconds": 0.3, "decode_seconds": 2.0, "max_pixels": 10**6}
    with listening(served(shades=model), **short) as server, ThreadPoolExecutor(6) as pool:
        found = Counter(pool.map(lambda request: answered(server.port, request), requests))
        sound = answered(server.port, Request("sound", post("/predict", plain(200))))
    failures = {status: count for status, count in found.items() if status is not None and status >= 500}
    assert set(failures) <= {503}, failures
    assert sound == 200
    assert {request.kind for request in requests} >= set(KINDS) - {"mutated file too"}
    # Most of them get as far as their kind was meant to.
    assert found[200] > 20 and found[422] > 20 and found[400] > 20
