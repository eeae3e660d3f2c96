"""Requests that a server should survive, as bytes on the wire: each follows from its number."""

from __future__ import annotations

import json
import random
import re
import socket
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from evil_images import bomb_png, chunk, encoded, exif, grey_16_ramp, jpeg_with_damaged_exif, png, samples, scene

PATIENCE = 60.0  # seconds that an answer may take: more than the server waits for what was announced and not sent


@dataclass(frozen=True)
class Request:
    """``raw`` is sent; who ``leaves`` does not wait for the answer."""

    kind: str
    raw: bytes
    leaves: bool = False


def hostile_request(number: int, files: list[bytes], model: str) -> Request:
    """One of the kinds below, by lot. ``files`` are sound images that it is made from."""
    rng = random.Random(number)
    kind = rng.choice(list(KINDS))
    return KINDS[kind](rng, files, model)


def sound_files() -> list[bytes]:
    """One of each format, and some that are odd."""
    odd = [
        grey_16_ramp(),
        jpeg_with_damaged_exif(),
        encoded(scene(), "JPEG", exif=exif(6)),
        encoded(scene(1, 1), "GIF"),
    ]
    return [*samples().values(), *odd]


def answered(port: int, request: Request) -> int | None:
    """The status of the answer; None where none came. Raises OSError where nobody listens."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        found = b""
        with suppress(ConnectionError):
            connection.sendall(request.raw)
            if request.leaves:
                return None
            while piece := connection.recv(65536):
                found += piece
    status = re.match(rb"HTTP/1\.1 (\d{3}) ", found)
    return int(status[1]) if status else None


# ---- files


def mutated(rng: random.Random, file: bytes) -> bytes:
    content = bytearray(file)
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        at, length = rng.randrange(len(content) + 1), rng.choice([1, 2, 4, 16, 200])
        edit = rng.randrange(6)
        if edit == 0:
            content[at : at + length] = rng.randbytes(length)
        elif edit == 1:
            del content[at : at + length]
        elif edit == 2:
            content[at:at] = rng.randbytes(length)
        elif edit == 3:
            content[at : at + 4] = rng.choice([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", struct.pack("<I", 2**31)])
        elif edit == 4:
            content[at:at] = content[:length]
        else:
            content = content[: max(1, at)]
    return bytes(content)


def _bomb(rng: random.Random) -> bytes:
    side = rng.choice([5_000, 60_000])
    claims = struct.pack("<HH", side, side)
    text = chunk(b"zTXt", b"k\0\0" + zlib.compress(b"a" * 5_000_000))
    scans = encoded(scene(400, 300), "JPEG", progressive=True)
    last = scans.rindex(b"\xff\xc4")
    return rng.choice(
        [
            bomb_png(),
            b"GIF89a" + claims + b"\x80\0\0" + b"\0" * 6 + b"," + b"\0" * 4 + claims + b"\0\x02\x02D\x01\0;",
            b"BM"
            + struct.pack("<IHHIIiiHHIIiiII", 100, 0, 0, 54, 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0)
            + b"\0" * 50,
            b"P6 %d %d 255\n" % (side, side) + b"\0" * 99,
            png(8, 8, 8, 0, (b"\0" + bytes(8)) * 8, extra=text),
            scans[:-2] + scans[last:-2] * 300 + b"\xff\xd9",
        ]
    )


def _foreign(rng: random.Random, files: list[bytes]) -> bytes:
    file = rng.choice(files)
    page = b"<!doctype html><script>alert(1)</script>"
    return rng.choice(
        [
            file + b"PK\x03\x04" + rng.randbytes(99),
            page + file,
            b"GIF89a/*" + page + b"*/=1;" + file,
            b"%PDF-1.7\n" + rng.randbytes(300),
            b"%!PS-Adobe-3.0 EPSF-3.0\n(/etc/passwd) (r) file\n",
            b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
            b"",
            rng.randbytes(rng.randrange(2000)),
            rng.choice(files)[: rng.randrange(40)],
        ]
    )


# ---- requests


def _head(line: str, *headers: str) -> bytes:
    return "\r\n".join([line, "Host: 127.0.0.1", "Connection: close", *headers]).encode("latin-1") + b"\r\n\r\n"


def _post(path: str, body: bytes, *headers: str) -> bytes:
    return _head(f"POST {path} HTTP/1.1", f"Content-Length: {len(body)}", *headers) + body


def _mutated_file(rng: random.Random, files: list[bytes], model: str) -> Request:
    picture = rng.choice(["", "", "&picture=1"])
    kind = rng.choice(
        ["image/jpeg", "text/html", "application/octet-stream", "image/png; charset=x", "\xff", "a/b" * 99]
    )
    body = mutated(rng, rng.choice(files))
    return Request("mutated file", _post(f"/predict?model={model}{picture}", body, f"Content-Type: {kind}"))


def _bomb_or_foreign(rng: random.Random, files: list[bytes], model: str) -> Request:
    body = _bomb(rng) if rng.random() < 0.5 else _foreign(rng, files)
    return Request("bomb or foreign file", _post(f"/{rng.choice(['predict', 'explain'])}?model={model}", body))


def _form(rng: random.Random, files: list[bytes], model: str) -> Request:
    part = b'Content-Disposition: form-data; name="file"; filename="../../x.png"\r\n\r\n' + rng.choice(files)
    body = b"".join(b"--edge\r\n" + part + b"\r\n" for _ in range(rng.choice([1, 1, 2, 30]))) + b"--edge--\r\n"
    if rng.random() < 0.6:
        body = mutated(rng, body)
    edge = rng.choice(["edge", "edge", "edge", '"edge"', "", "x" * 300, "edge; charset=utf-7"])
    return Request(
        "form", _post(f"/predict?model={model}", body, f"Content-Type: multipart/form-data; boundary={edge}")
    )


def _chunked(rng: random.Random, files: list[bytes], model: str) -> Request:
    body, raw = rng.choice(files), b""
    for start in range(0, len(body), 100):
        piece = body[start : start + 100]
        raw += b"%x\r\n" % rng.choice([len(piece)] * 30 + [len(piece) + 1, 0, 2**40]) + piece + b"\r\n"
    extra = rng.choice([(), (), ("Content-Length: 3",), ("Transfer-Encoding: gzip",)])
    head = _head(f"POST /predict?model={model} HTTP/1.1", "Transfer-Encoding: chunked", *extra)
    whole = rng.random() < 0.8
    return Request("chunked", head + raw + (b"0\r\n\r\n" if whole else b""), leaves=not whole)


def _cut_short(rng: random.Random, files: list[bytes], model: str) -> Request:
    whole = _post(f"/predict?model={model}", rng.choice(files))
    return Request("cut short", whole[: rng.randrange(len(whole))], leaves=True)


def _tensors(rng: random.Random, files: list[bytes], model: str) -> Request:
    path = f"/v2/models/{model}/infer"
    if rng.random() < 0.2:
        deep = [b"[" * 50_000, b'{"a":' * 5000, b'{"inputs": [' + b"9" * 5000 + b"]}", b"\xff\xfe{}"]
        return Request("tensors", _post(path, rng.choice(deep)))
    images = [rng.choice(files)] * rng.choice([1, 3])
    raw = b"".join(struct.pack("<I", len(file)) + file for file in images)
    tensor = {"name": "image", "datatype": "BYTES", "shape": [len(images)]}
    tensor["parameters"] = {"binary_data_size": len(raw)}
    if rng.random() < 0.3:
        raw = rng.randbytes(210)
        tensor |= {"datatype": "UINT8", "shape": [2, 5, 7, 3], "parameters": {"binary_data_size": 210}}
    if rng.random() < 0.4:
        wrong = {
            "name": ["x", None],
            "datatype": ["FP32", 3],
            "shape": [[10**9] * 4, [-1], "x", [], [2]],
            "parameters": [{"binary_data_size": size} for size in (0, -1, 2**40, "9")],
        }
        name = rng.choice(list(wrong))
        tensor[name] = rng.choice(wrong[name])
    head = json.dumps({"id": rng.choice(["a", "a", 3]), "inputs": [tensor] * rng.choice([1, 1, 1, 2])}).encode()
    if rng.random() < 0.2:
        head = mutated(rng, head)
    length = rng.choice([len(head)] * 6 + [0, -3, len(head) + len(raw) + 1, 10**20])
    return Request("tensors", _post(path, head + raw, f"Inference-Header-Content-Length: {length}"))


def _odd_request(rng: random.Random, files: list[bytes], model: str) -> Request:
    paths = [
        "/",
        "/page/../../x",
        "/page/%2e%2e/app.py",
        "//",
        "/%00",
        "/predict/",
        "/v2/models/%2fetc/infer",
        "*",
        "/é",
    ]
    paths += [
        "/metrics",
        "/models?x=" + "y" * 5000,
        "http://evil.example/",
        "/v2/models/" + "a" * 3000,
        "/openapi.json",
    ]
    methods = ["GET", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW", "get", "G\0T", "X" * 500]
    headers = [
        "Host: evil.example",
        "Content-Length: -5",
        "Content-Length: 5, 6",
        "Cookie: " + "a=b; " * 500,
        "X" * 9000,
    ]
    headers += [
        "Authorization: Bearer \xff",
        "Upgrade: websocket",
        "Origin: null",
        "Expect: 100-continue",
        ": x",
        "A: \x01",
    ]
    headers += ["Range: bytes=0-1", "Transfer-Encoding: x", "Content-Encoding: gzip", "X-Forwarded-For: 1.2.3.4"]
    version = rng.choice(["HTTP/1.1"] * 8 + ["HTTP/1.0", "HTTP/9", ""])
    line = f"{rng.choice(methods)} {rng.choice(paths)} {version}"
    raw = _head(line, *rng.sample(headers, rng.choice([0, 1, 2])))
    # A length that is announced and not sent would be waited for.
    return Request("odd request", raw if rng.random() < 0.9 else rng.randbytes(500) + b"\r\n\r\n")


KINDS: dict[str, Callable[[random.Random, list[bytes], str], Request]] = {
    "mutated file": _mutated_file,
    "mutated file too": _mutated_file,
    "bomb or foreign file": _bomb_or_foreign,
    "form": _form,
    "chunked": _chunked,
    "cut short": _cut_short,
    "tensors": _tensors,
    "odd request": _odd_request,
}
