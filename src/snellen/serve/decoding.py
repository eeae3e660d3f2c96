"""Files of strangers to pixels, in processes that can be ended.

Threads would be simpler, and load images everywhere else in Snellen. But a thread cannot be stopped, and a file of
32 MB can keep a decoder busy for hours: a scan of a progressive JPEG takes 98 bytes, and 70 ms at 49 million pixels.
A process can also crash, or run out of memory, and take nothing with it; what it grew by, it gives back.

Seconds are those of the processor, so that what is decoded does not depend on how much else there is to do.
"""

from __future__ import annotations

import os
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, LifoQueue
from threading import Lock

import numpy as np

from snellen.core.geometry import Size
from snellen.serve.limits import Limits
from snellen.serve.refusal import Refusal, busy

REQUEST = struct.Struct(">QIIQd")  # bytes of the file, min_side (0: none), max_side (0: none), max_pixels, seconds
REPLY = struct.Struct(">BIIIIQd")  # one of the kinds below, width, height, rows, columns, bytes that follow, seconds
PIXELS, REFUSED = 0, 1
OUT_OF_TIME = getattr(signal, "SIGPROF", None)  # ends a process that has used its seconds; not on Windows

_SHARED = 4.0  # seconds by the clock for each of the processor, where others use it as well

_PIECE = 2**18  # bytes; of all pipes of a user Linux lets 64 MB be so large


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """pixels uint8 [H, W, 3] of an image that is ``size`` (width, height), upright; they may be fewer."""

    pixels: np.ndarray
    size: Size


class Allowance:
    """Seconds of decoding that the files of one request may take together, however many they are."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._left, self._lock = seconds, seconds, Lock()

    def least(self, seconds: float) -> float:
        """What a file may take that might take ``seconds`` alone. Raises Refusal 422 when nothing is left."""
        if self._left <= 0:
            raise Refusal(422, self.told)
        return min(seconds, self._left)

    @property
    def told(self) -> str:
        return f"the images of this request take more than {self._seconds:g} s to decode together: send fewer"

    def spend(self, seconds: float) -> None:
        with self._lock:
            self._left -= seconds


class Decoders:
    """A few processes, each with one image at a time. ``observe`` is told why a file was refused."""

    def __init__(self, limits: Limits, observe: Callable[[str], None] = lambda reason: None) -> None:
        self._limits, self._observe = limits, observe
        self._idle: LifoQueue[_Process] = LifoQueue()
        self._all: set[_Process] = set()
        self._lock, self._closed = Lock(), False
        for _ in range(limits.decoders):
            self._idle.put(self._start())

    def decode(
        self,
        file: bytes,
        *,
        min_side: int | None = None,
        max_side: int | None = None,
        allowance: Allowance | None = None,
    ) -> Decoded:
        """As ``data.image.read_image``; with ``max_side`` made smaller, so that no side is longer.

        ``allowance``: what it and other files may take. Called from any thread; waits for an idle process. Raises
        Refusal: 422 for what is no image, has too many pixels or takes too long, 503 when the process died.
        """
        allowance = allowance or Allowance(self._limits.decode_seconds)
        process = self._idle.get()
        try:
            seconds = allowance.least(self._limits.decode_seconds)
            if not process.is_alive:  # it was ended while idle, from outside
                process = self._replaced(process)
            head = REQUEST.pack(len(file), min_side or 0, max_side or 0, self._limits.max_pixels, seconds)
            try:
                answer, spent = process.ask(head, file, seconds)
            except TimeoutError:
                answer, spent = Refusal(422, self._too_long(seconds, allowance)), seconds
            allowance.spend(spent)
            if isinstance(answer, Refusal):
                raise answer
            return answer
        except Refusal as refusal:
            self._observe("refused" if refusal.status == 422 else "died")
            if not process.is_alive and not self._closed:
                process = self._replaced(process)
            raise
        finally:
            self._idle.put(process)

    def _too_long(self, seconds: float, allowance: Allowance) -> str:
        if seconds < self._limits.decode_seconds:
            return allowance.told
        return f"the image takes more than {self._limits.decode_seconds:g} s to decode"

    def close(self) -> None:
        """Ends the processes; a file that is being decoded is refused as busy."""
        with self._lock:
            self._closed = True
            for process in self._all:
                process.kill()
        idle = []
        with suppress(Empty):
            while True:
                idle.append(self._idle.get_nowait())
        for process in idle:  # those in use are put away by the threads that use them
            process.end()
            self._idle.put(process)

    def _start(self) -> _Process:
        with self._lock:
            if self._closed:
                raise busy("the server is stopping")
            process = _Process()
            self._all.add(process)
        return process

    def _replaced(self, process: _Process) -> _Process:
        process.end()
        with self._lock:
            self._all.discard(process)
        return self._start()


class _Process:
    def __init__(self) -> None:
        # -I: neither the current folder nor the environment says what is imported; one thread, little memory.
        command = [sys.executable, "-I", "-c", _START.format(path=sys.path)]
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        # A session of its own: Ctrl-C is for the server, which then answers what it took in.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
            bufsize=0,
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._to, self._from = self._process.stdin.fileno(), self._process.stdout.fileno()
        for pipe in (self._to, self._from):
            _widen(pipe)

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        self._process.kill()

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def ask(self, head: bytes, file: bytes, seconds: float) -> tuple[Decoded | Refusal, float]:
        """The pixels or why there are none, and the seconds that it took. Raises TimeoutError, and Refusal 503."""
        deadline = time.monotonic() + _SHARED * seconds
        try:
            self._write(head)
            self._write(file)
            kind, width, height, rows, columns, length, spent = REPLY.unpack(self._read(REPLY.size, deadline))
            content = self._read(length, deadline)
        except TimeoutError:
            self.end()
            raise
        except (OSError, EOFError):
            self.end()
            if OUT_OF_TIME is not None and self._process.returncode == -OUT_OF_TIME:
                raise TimeoutError from None
            raise busy("what decodes images was ended") from None
        if kind != PIXELS:
            return Refusal(422, content.decode("utf-8", "replace")), spent
        return Decoded(np.frombuffer(content, np.uint8).reshape(rows, columns, 3), (width, height)), spent

    def _write(self, content: bytes) -> None:
        # The process reads a whole request before it does anything else, so this does not wait for it.
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(self._to, rest[:_PIECE]) :]

    def _read(self, length: int, deadline: float) -> bytearray:
        content = bytearray(length)
        rest = memoryview(content)
        while rest:
            if not select.select([self._from], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError
            num = os.readv(self._from, [rest])
            if num == 0:
                raise EOFError
            rest = rest[num:]
        return content


def _widen(pipe: int) -> None:
    """By default a pipe holds 64 kB, and both sides wake up for each of them; not everywhere may it hold more."""
    with suppress(OSError, ImportError, AttributeError):
        import fcntl

        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIECE)


_START = "import sys; sys.path[:] = {path!r}; from snellen.serve.decoder import main; main()"
