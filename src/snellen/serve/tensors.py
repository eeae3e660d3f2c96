"""Requests and answers of the Open Inference Protocol v2, with its binary tensor extension, as arrays and back.

https://github.com/kserve/open-inference-protocol; the extension is Triton's: after a JSON head, whose length the
header Inference-Header-Content-Length tells, the tensors that have a ``binary_data_size`` follow in their order,
little-endian. BYTES are then each preceded by their length, in 4 bytes; in JSON, which cannot hold a file, they are
base64.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from snellen.serve.decoder import MOST_SIDE
from snellen.serve.refusal import Refusal, quoted

DTYPES: Mapping[str, np.dtype[Any]] = {
    "UINT8": np.dtype("u1"),
    "INT64": np.dtype("<i8"),
    "FP32": np.dtype("<f4"),
}
HEAD_LENGTH = "Inference-Header-Content-Length"
IMAGE = "image"

_MOST_DIMENSIONS = 8
_LARGEST = 2**40
_MOST_LISTED = 1_000_000  # numbers of an answer that are written as JSON


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """What a request asks.

    images   uint8 [H, W, 3] each, or the bytes of an image file each
    id       of the request, given back; None: it has none
    outputs  name -> whether it is to be binary; None: all of them, as ``binary`` says
    """

    images: Sequence[np.ndarray] | Sequence[bytes]
    id: str | None
    outputs: Mapping[str, bool] | None
    binary: bool


def parse(body: bytes, head_length: str | None, *, max_json: int, most: int = 128) -> Asked:
    """``most``: images in a request. Raises Refusal 400 for what is not in order, and says what; 413 for more JSON than
    is parsed, or more images."""
    length = len(body) if head_length is None else _length(head_length, len(body))
    if length > max_json:
        raise Refusal(413, f"{length} bytes of JSON are more than {max_json}: send tensors as binary data")
    head = _object(_json(body[:length]), "the request")
    parameters = _object(head.get("parameters") or {}, "parameters")
    inputs = head.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1:
        raise Refusal(400, f"inputs must be a list of one tensor, '{IMAGE}'")
    tensor = _object(inputs[0], "the input")
    if tensor.get("name") != IMAGE:
        raise Refusal(400, f"the input {quoted(tensor.get('name'))} is not known: there is '{IMAGE}'")
    shape = _shape(tensor.get("shape"))
    if shape[0] > most:  # before anything is made of each
        raise Refusal(413, f"{shape[0]} images in one request are more than the {most} that are taken")
    images, rest = _images(tensor, shape, memoryview(body)[length:])
    if rest:
        raise Refusal(400, f"{len(rest)} bytes follow the tensors that the request describes")
    id = head.get("id")
    if id is not None and not isinstance(id, str):
        raise Refusal(400, "id must be text")
    binary = _flag(parameters, "binary_data_output")
    return Asked(images, id, _outputs(head.get("outputs"), binary), binary)


def _length(text: str, available: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 16) or int(text) > available:
        raise Refusal(400, f"{HEAD_LENGTH} must be a number of bytes of the body, which has {available}")
    return int(text)


def _json(text: bytes) -> Any:
    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is no number of JSON")

    try:
        return json.loads(text.decode("utf-8"), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, f"the request is not JSON: {error}") from None


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Refusal(400, f"{what} must be a JSON object")
    return value


def _flag(parameters: Mapping[str, Any], name: str) -> bool:
    value = parameters.get(name, False)
    if not isinstance(value, bool):
        raise Refusal(400, f"{name} must be true or false")
    return value


def _outputs(asked: Any, binary: bool) -> dict[str, bool] | None:
    if asked is None:
        return None
    if not isinstance(asked, list) or len(asked) > 100:
        raise Refusal(400, "outputs must be a list of tensors")
    wanted: dict[str, bool] = {}
    for each in asked:
        output = _object(each, "an output")
        parameters = _object(output.get("parameters") or {}, "parameters")
        unknown = parameters.keys() - {"binary_data"}
        if unknown:
            raise Refusal(400, f"the parameter {quoted(min(unknown))} of an output is not supported")
        wanted[str(output.get("name"))] = _flag(parameters, "binary_data") if "binary_data" in parameters else binary
    return wanted or None


# ---- the input


def _images(
    tensor: dict[str, Any], shape: list[int], raw: memoryview
) -> tuple[list[np.ndarray] | list[bytes], memoryview]:
    """The images of the input, and what is left of ``raw``."""
    datatype = tensor.get("datatype")
    if datatype == "UINT8":
        if len(shape) != 4 or shape[3] != 3 or 0 in shape:
            raise Refusal(400, f"'{IMAGE}' as UINT8 has the shape [N, H, W, 3], RGB; got {shape}")
        if max(shape[1:3]) > MOST_SIDE:
            raise Refusal(422, f"no side of an image may have more than {MOST_SIDE} pixels; got {shape}")
    elif datatype == "BYTES":
        if len(shape) not in (1, 2) or math.prod(shape) != shape[0] or 0 in shape:
            raise Refusal(400, f"'{IMAGE}' as BYTES has the shape [N], an image file each; got {shape}")
    else:
        raise Refusal(400, f"'{IMAGE}' is UINT8 or BYTES, not {quoted(datatype)}")
    parameters = _object(tensor.get("parameters") or {}, "parameters")
    if any(name.startswith("shared_memory") for name in parameters):
        raise Refusal(400, "shared memory is not supported: send the tensor in the request")
    size = parameters.get("binary_data_size")
    if size is None:
        return _from_json(tensor.get("data"), datatype, shape), raw
    if (
        tensor.get("data") is not None
        or isinstance(size, bool)
        or not isinstance(size, int)
        or not 0 <= size <= len(raw)
    ):
        raise Refusal(400, f"binary_data_size = {quoted(size)} does not fit the {len(raw)} bytes that follow the JSON")
    return _from_binary(raw[:size], datatype, shape), raw[size:]


def _shape(given: Any) -> list[int]:
    if (
        not isinstance(given, list)
        or not 1 <= len(given) <= _MOST_DIMENSIONS
        or any(isinstance(n, bool) or not isinstance(n, int) or not 0 <= n <= _LARGEST for n in given)
    ):
        raise Refusal(400, f"shape must be a list of numbers, 0 or more; got {quoted(given)}")
    return given


def _from_json(data: Any, datatype: str, shape: list[int]) -> list[np.ndarray] | list[bytes]:
    if not isinstance(data, list):
        raise Refusal(400, "the input has no data: give a list, or binary data with its binary_data_size")
    if datatype == "BYTES":
        texts = [each for row in data for each in (row if isinstance(row, list) else [row])]
        if len(texts) != shape[0]:
            raise Refusal(400, f"the shape says {shape[0]} images and data has {len(texts)}")
        return [_file(text) for text in texts]
    try:
        # A type of its own choice could be text, which takes as much for each number as the longest text of them.
        values = np.asarray(data, np.float64)
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise Refusal(400, "data must be a list of numbers, or lists of one length") from None
    if values.size != math.prod(shape) or values.ndim not in (1, len(shape)):
        raise Refusal(400, f"data must hold {math.prod(shape)} numbers for the shape {shape}; got {values.size}")
    if not ((values >= 0) & (values <= 255) & (values % 1 == 0)).all():
        raise Refusal(400, "pixels must be whole numbers in 0..255")
    return list(values.astype(np.uint8).reshape(shape))


def _file(text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True) if isinstance(text, str) else _not_base64()
    except (binascii.Error, ValueError):
        return _not_base64()


def _not_base64() -> NoReturn:
    raise Refusal(400, "in JSON an image file must be base64 text: send it so, or as binary data")


def _from_binary(raw: memoryview, datatype: str, shape: list[int]) -> list[np.ndarray] | list[bytes]:
    if datatype == "BYTES":
        return _strings(raw, shape[0])
    if len(raw) != math.prod(shape):
        raise Refusal(400, f"the shape {shape} needs {math.prod(shape)} bytes, got {len(raw)}")
    return list(np.frombuffer(raw, np.uint8).reshape(shape))


def _strings(raw: memoryview, num: int) -> list[bytes]:
    found: list[bytes] = []
    at = 0
    while at < len(raw) and len(found) <= num:
        end = at + 4 + int.from_bytes(raw[at : at + 4], "little")
        if at + 4 > len(raw) or end > len(raw):
            raise Refusal(400, "a string of the tensor is longer than what is left of it")
        found.append(bytes(raw[at + 4 : end]))
        at = end
    if len(found) != num or at != len(raw):
        raise Refusal(400, f"the shape says {num} images, and the tensor does not hold as many")
    return found


# ---- the answer


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """values: an array of one of ``DTYPES``, or for BYTES a list of bytes."""

    name: str
    datatype: str
    values: np.ndarray | list[bytes]

    @property
    def shape(self) -> list[int]:
        return list(self.values.shape) if isinstance(self.values, np.ndarray) else [len(self.values)]

    def raw(self) -> bytes:
        if isinstance(self.values, list):
            return b"".join(struct.pack("<I", len(each)) + each for each in self.values)
        return np.ascontiguousarray(self.values, DTYPES[self.datatype]).tobytes()

    def listed(self) -> list[Any]:
        if isinstance(self.values, list):
            return [each.decode("utf-8") for each in self.values]
        flat: list[Any] = self.values.ravel().tolist()
        return flat


def answer(head: dict[str, Any], tensors: Sequence[tuple[Tensor, bool]]) -> tuple[bytes, int | None]:
    """The body of an answer, and the length of its JSON where binary tensors follow. A tensor comes with whether it
    is to be binary. Raises ValueError for numbers that JSON cannot tell."""
    outputs, raws = [], []
    for tensor, binary in tensors:
        told: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
        if binary:
            raws.append(tensor.raw())
            told["parameters"] = {"binary_data_size": len(raws[-1])}
        else:
            if isinstance(tensor.values, np.ndarray) and tensor.values.size > _MOST_LISTED:
                raise Refusal(413, f"'{tensor.name}' is too large for JSON: ask for it with binary_data")
            told["data"] = tensor.listed()
        outputs.append(told)
    text = json.dumps({**head, "outputs": outputs}, allow_nan=False).encode()
    return b"".join([text, *raws]), len(text) if raws else None
