"""What decodes files of strangers: the same pixels as everywhere, and a process that may die."""

from __future__ import annotations

import os
import signal
import struct
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Timer

import numpy as np
import pytest

from evil_images import bomb_png, chunk, encoded, exif, samples, scene
from snellen.data.image import read_image
from snellen.serve import decoding
from snellen.serve.decoding import Decoders
from snellen.serve.limits import Limits
from snellen.serve.refusal import Refusal


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    found = Decoders(Limits(max_pixels=10**6, decode_seconds=20))
    yield found
    found.close()


@pytest.mark.parametrize("min_side", [None, 8])
def test_pixels_are_those_of_the_one_decoder(decoders: Decoders, min_side: int | None) -> None:
    files = [*samples().values(), encoded(scene(300, 200), "JPEG", exif=exif(6))]
    for file in files:
        header, pixels = read_image(file, min_side=min_side)
        found = decoders.decode(file, min_side=min_side)
        np.testing.assert_array_equal(found.pixels, pixels)
        assert found.size == (header.width, header.height)


def test_picture_to_show_is_made_smaller_and_never_larger(decoders: Decoders) -> None:
    assert decoders.decode(encoded(scene(300, 100), "PNG"), max_side=60).pixels.shape == (20, 60, 3)
    assert decoders.decode(encoded(scene(30, 10), "PNG"), max_side=60).pixels.shape == (10, 30, 3)
    assert decoders.decode(encoded(scene(300, 1), "PNG"), max_side=60).pixels.shape == (1, 60, 3)


@pytest.mark.parametrize("file", [b"", b"nothing", bomb_png(), encoded(scene(), "JPEG")[:300]])
def test_refusal_names_no_path_and_leaves_the_process_alive(decoders: Decoders, file: bytes) -> None:
    before = {process._process.pid for process in decoders._all}
    with pytest.raises(Refusal, match="the uploaded image") as refused:
        decoders.decode(file)
    assert refused.value.status == 422 and "/" not in refused.value.message.replace("image/", "")
    assert {process._process.pid for process in decoders._all} == before


def test_many_at_once_each_get_their_own(decoders: Decoders) -> None:
    files = [encoded(scene(10 + i, 8), "PNG") for i in range(20)]
    with ThreadPoolExecutor(6) as pool:
        assert [each.size for each in pool.map(decoders.decode, files)] == [(10 + i, 8) for i in range(20)]


@pytest.mark.parametrize("by_the_clock", [4.0, 1000.0])
def test_file_that_takes_too_long_is_given_up_and_the_next_is_decoded(
    by_the_clock: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(decoding, "_SHARED", by_the_clock)
    decoders = Decoders(Limits(decode_seconds=0.2), told.append)
    try:
        with pytest.raises(Refusal, match=r"more than 0.2 s") as refused:
            for _ in range(4):  # the first ones may find their process still starting
                decoders.decode(slow_png())
        assert refused.value.status == 422
        assert told == ["refused"]
        assert decoders.decode(encoded(scene(), "PNG")).size == (40, 24)
    finally:
        decoders.close()


def stopped(decoders: Decoders) -> int:
    """The next process to be used stands still from its next request on. Its number."""
    process = decoders._idle.queue[-1]
    write, number = process._write, process._process.pid

    def stop(content: bytes) -> None:
        os.kill(number, signal.SIGSTOP)
        process._write = write  # type: ignore[method-assign]
        write(content)

    process._write = stop  # type: ignore[method-assign]
    return number


def test_time_in_which_others_have_the_processor_does_not_count() -> None:
    decoders = Decoders(Limits(decode_seconds=1.0))
    try:
        waking = Timer(1.2, os.kill, (stopped(decoders), signal.SIGCONT))
        waking.start()
        assert decoders.decode(encoded(scene(), "PNG")).size == (40, 24)
        assert not waking.is_alive()
    finally:
        decoders.close()


def test_process_that_never_gets_on_is_given_up() -> None:
    decoders = Decoders(Limits(decode_seconds=0.1))
    try:
        stopped(decoders)
        with pytest.raises(Refusal, match=r"more than 0.1 s") as refused:
            decoders.decode(encoded(scene(), "PNG"))
        assert refused.value.status == 422
    finally:
        decoders.close()


def slow_png() -> bytes:
    """8 MB of empty chunks before the pixels of a tiny image."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"\x00\x00")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"abCd", b"") * 700_000 + pixels


def test_process_that_was_killed_fails_one_request_at_most_and_is_replaced(decoders: Decoders) -> None:
    for process in list(decoders._all):
        process._process.kill()
        process._process.wait()
    file = encoded(scene(), "PNG")
    assert [decoders.decode(file).size for _ in range(4)] == [(40, 24)] * 4


def test_process_that_dies_over_a_file_is_told_as_busy_and_replaced(decoders: Decoders) -> None:
    process = decoders._idle.queue[-1]  # the next to be used
    write = process._write

    def die(content: bytes) -> None:
        write(content)
        process._process.kill()

    process._write = die  # type: ignore[method-assign]
    file = encoded(scene(), "PNG")
    with pytest.raises(Refusal) as refused:
        decoders.decode(file)
    assert (refused.value.status, refused.value.retry_after) == (503, 1)
    assert decoders.decode(file).size == (40, 24)
    assert len(decoders._all) == Limits().decoders


def test_nothing_is_started_after_the_end() -> None:
    decoders = Decoders(Limits())
    decoders.close()
    with pytest.raises(Refusal, match="stopping"):
        decoders.decode(encoded(scene(), "PNG"))
    assert not any(process.is_alive for process in decoders._all)
