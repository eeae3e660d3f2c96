"""The Open Inference Protocol v2: an unmodified client of Triton, and requests that are not in order."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from serve_cases import CLASSES, Listening, Shades, asking, listening, photograph, plain, served
from snellen.serve.refusal import Refusal
from snellen.serve.tensors import Tensor, answer, parse

TASKS = ("classification", "multilabel", "regression", "detection", "segmentation")
FILES = [photograph(), plain(200, width=40, height=24), plain(90, width=40, height=24, format="WEBP")]
HEAD = "Inference-Header-Content-Length"


@pytest.fixture(scope="module")
def server() -> Iterator[Listening]:
    with listening(served(**{task: Shades(task) for task in TASKS})) as found:
        yield found


@pytest.fixture(scope="module")
def triton(server: Listening) -> Iterator[Any]:
    http = pytest.importorskip("tritonclient.http")
    client = http.InferenceServerClient(f"127.0.0.1:{server.port}")
    yield client
    client.close()


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with asking(served(shades=Shades())) as found:
        yield found


def of_files(files: list[bytes]) -> Any:
    from tritonclient.http import InferInput

    tensor = InferInput("image", [len(files)], "BYTES")
    tensor.set_data_from_numpy(np.array(files, object))
    return tensor


def of_pixels(pixels: np.ndarray, *, binary: bool) -> Any:
    from tritonclient.http import InferInput

    tensor = InferInput("image", list(pixels.shape), "UINT8")
    tensor.set_data_from_numpy(pixels, binary_data=binary)
    return tensor


def expected(task: str, files: list[bytes]) -> list[Any]:
    """What the model says itself."""
    from snellen.data.image import read_image

    model, seen = Shades(task), []
    for file in files:
        header, pixels = read_image(file)
        seen.append(model.prepare(pixels, (header.width, header.height)))
    return model.decide(seen)


def test_triton_client_finds_server_and_models_ready(triton: Any) -> None:
    assert triton.is_server_live() and triton.is_server_ready()
    assert all(triton.is_model_ready(task) and triton.is_model_ready(task, "1") for task in TASKS)
    assert not triton.is_model_ready("nobody") and not triton.is_model_ready("detection", "2")
    assert triton.get_server_metadata()["name"] == "snellen"
    assert "binary_tensor_data" in triton.get_server_metadata()["extensions"]
    assert [(each["name"], each["state"]) for each in triton.get_model_repository_index()] == [
        (task, "READY") for task in TASKS
    ]


def test_triton_client_gets_a_configuration_that_agrees_with_the_metadata(triton: Any) -> None:
    for task in TASKS:
        for version in ("", "1"):
            told, config = triton.get_model_metadata(task, version), triton.get_model_config(task, version)
            assert (config["name"], config["platform"], config["max_batch_size"]) == (task, told["platform"], 0)
            for tensors, declared in ((config["input"], told["inputs"]), (config["output"], told["outputs"])):
                assert [(each["name"], each["dims"]) for each in tensors] == [
                    (each["name"], each["shape"]) for each in declared
                ]
                kinds = {"BYTES": "TYPE_STRING"}
                assert [each["data_type"] for each in tensors] == [
                    kinds.get(each["datatype"], f"TYPE_{each['datatype']}") for each in declared
                ]


NOT_SERVED: dict[str, tuple[Any, ...]] = {
    "load_model": ("detection",),
    "unload_model": ("detection",),
    "get_trace_settings": (),
    "update_log_settings": ({"log_info": True},),
    "get_system_shared_memory_status": (),
    "register_cuda_shared_memory": ("x", b"handle", 0, 10),
}


@pytest.mark.parametrize("method", NOT_SERVED)
def test_triton_client_is_told_what_is_not_served(triton: Any, method: str) -> None:
    from tritonclient.utils import InferenceServerException

    with pytest.raises(InferenceServerException, match=r"\[404\] this part of the protocol is not served; /v2 names"):
        getattr(triton, method)(*NOT_SERVED[method])


def test_server_is_named_with_and_without_a_slash_and_health_is_told_as_json(client: TestClient) -> None:
    assert client.get("/v2").json() == client.get("/v2/").json()
    assert client.get("/v2/health/live").json() == {"live": True}  # KServe's client reads these
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get("/v2/models/shades/ready").json() == {"name": "shades", "ready": True}


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("task", TASKS)
def test_triton_client_gets_the_answers_of_the_model(triton: Any, task: str, binary: bool) -> None:
    from tritonclient.http import InferRequestedOutput

    names = [each["name"] for each in triton.get_model_metadata(task)["outputs"]]
    outputs = [InferRequestedOutput(name, binary_data=binary) for name in names]
    found = triton.infer(task, [of_files(FILES)], outputs=outputs, request_id="seven")
    targets, model = expected(task, FILES), Shades(task).task
    told = [json.loads(text) for text in found.as_numpy("answer").ravel()]
    assert found.get_response()["id"] == "seven"
    assert told == [model.describe(target) for target in targets]
    if task in ("classification", "multilabel"):
        np.testing.assert_array_equal(found.as_numpy("probabilities"), [target.scores for target in targets])
    if task == "regression":
        np.testing.assert_array_equal(found.as_numpy("values"), [target.values for target in targets])
    if task == "segmentation":
        np.testing.assert_array_equal(found.as_numpy("classes"), [target.array for target in targets])
    if task == "detection":
        rows = zip(*(found.as_numpy(name) for name in ("image_index", "labels", "scores", "boxes")), strict=True)
        shown = [(i, CLASSES[label], float(score), [round(float(x), 2) for x in box]) for i, label, score, box in rows]
        assert shown == [
            (i, each["label"], each["confidence"], each["box"]) for i, one in enumerate(told) for each in one["objects"]
        ]


@pytest.mark.parametrize("task", TASKS)
def test_metadata_tell_the_type_and_shape_of_what_comes(triton: Any, task: str) -> None:
    declared = triton.get_model_metadata(task)["outputs"]
    found = triton.infer(task, [of_files(FILES)]).get_response()["outputs"]
    assert [(each["name"], each["datatype"]) for each in found] == [
        (each["name"], each["datatype"]) for each in declared
    ]
    for each, said in zip(found, declared, strict=True):
        assert len(each["shape"]) == len(said["shape"])
        assert all(want in (-1, got) for got, want in zip(each["shape"], said["shape"], strict=True))


@pytest.mark.parametrize("binary", [True, False])
def test_pixels_are_answered_as_the_file_with_them(triton: Any, binary: bool) -> None:
    from snellen.data.image import read_image

    pixels = np.stack([read_image(file)[1] for file in FILES])
    found = triton.infer("classification", [of_pixels(pixels, binary=binary)])
    np.testing.assert_array_equal(
        found.as_numpy("probabilities"), triton.infer("classification", [of_files(FILES)]).as_numpy("probabilities")
    )


def test_maps_of_different_sizes_are_asked_apart(triton: Any) -> None:
    from tritonclient.http import InferRequestedOutput
    from tritonclient.utils import InferenceServerException

    files = [plain(1), plain(1, width=5)]
    with pytest.raises(InferenceServerException, match="different sizes"):
        triton.infer("segmentation", [of_files(files)])
    found = triton.infer("segmentation", [of_files(files)], outputs=[InferRequestedOutput("answer")])
    assert [json.loads(text)["size"] for text in found.as_numpy("answer")] == [[24, 16], [5, 16]]


def test_bad_image_of_several_is_named(triton: Any) -> None:
    from tritonclient.utils import InferenceServerException

    with pytest.raises(InferenceServerException, match=r"\[422\] image 1: the uploaded image"):
        triton.infer("classification", [of_files([plain(1), b"no image", plain(2)])])


def test_statistics_count_what_was_answered(triton: Any) -> None:
    before = triton.get_inference_statistics("regression")["model_stats"][0]
    triton.infer("regression", [of_files(FILES)])
    after = triton.get_inference_statistics("regression")["model_stats"][0]
    assert after["inference_count"] == before["inference_count"] + len(FILES)
    assert after["last_inference"] > 1.6e12
    assert (
        sum(each["batch_size"] * each["compute_infer"]["count"] for each in after["batch_stats"])
        == (after["inference_count"])
    )
    assert len(triton.get_inference_statistics()["model_stats"]) == len(TASKS)


# ---- requests that are not in order

PIXEL: dict[str, Any] = {"name": "image", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [1, 2, 3]}
TEXT = base64.b64encode(plain(1)).decode()

DISORDERS: list[tuple[Any, str]] = [
    ([], "object"),
    ({}, "inputs"),
    ({"inputs": [PIXEL, PIXEL]}, "inputs"),
    ({"inputs": [7]}, "object"),
    ({"inputs": [{**PIXEL, "name": "picture"}]}, "'picture' is not known"),
    ({"inputs": [{**PIXEL, "datatype": "FP32"}]}, "UINT8 or BYTES"),
    ({"inputs": [{**PIXEL, "shape": [1, 3]}]}, r"\[N, H, W, 3\]"),
    ({"inputs": [{**PIXEL, "shape": [1, 1, 3, 1]}]}, r"\[N, H, W, 3\]"),
    ({"inputs": [{**PIXEL, "shape": [0, 1, 1, 3], "data": []}]}, r"\[N, H, W, 3\]"),
    ({"inputs": [{**PIXEL, "shape": [100, 10**4, 10**4, 3]}]}, "numbers for the shape"),
    ({"inputs": [{**PIXEL, "shape": [-1, 1, 1, 3]}]}, "shape must be"),
    ({"inputs": [{**PIXEL, "shape": [True, 1, 1, 3]}]}, "shape must be"),
    ({"inputs": [{**PIXEL, "data": [1, 2]}]}, "3 numbers"),
    ({"inputs": [{**PIXEL, "data": [1, 2, 256]}]}, "0..255"),
    ({"inputs": [{**PIXEL, "data": [1, 2, -1]}]}, "0..255"),
    ({"inputs": [{**PIXEL, "data": [1, 2, 0.5]}]}, "0..255"),
    ({"inputs": [{**PIXEL, "data": [1, 2, "red"]}]}, "list of numbers"),
    ({"inputs": [{**PIXEL, "data": [1, 2, None]}]}, "0..255"),
    ({"inputs": [{**PIXEL, "data": [[1], [2, 3]]}]}, "list of numbers"),
    ({"inputs": [{**PIXEL, "data": {"a": 1}}]}, "no data"),
    ({"inputs": [{**PIXEL, "parameters": {"shared_memory_region": "x"}}]}, "shared memory"),
    ({"inputs": [{**PIXEL, "parameters": {"binary_data_size": 3}}]}, "binary_data_size"),
    ({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [2], "data": [TEXT]}]}, "2 images"),
    ({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": ["no base64!"]}]}, "base64"),
    ({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [7]}]}, "base64"),
    ({"inputs": [PIXEL], "id": 7}, "id must be text"),
    ({"inputs": [PIXEL], "outputs": "answer"}, "outputs must be"),
    ({"inputs": [PIXEL], "outputs": [{"name": "logits"}]}, "'logits' is not known; shades has answer, probabilities"),
    ({"inputs": [PIXEL], "outputs": [{"name": "answer", "parameters": {"classification": 3}}]}, "not supported"),
    ({"inputs": [PIXEL], "parameters": {"binary_data_output": "yes"}}, "true or false"),
]


@pytest.mark.parametrize(("request_", "words"), DISORDERS)
def test_disorder_is_refused_with_its_name(client: TestClient, request_: Any, words: str) -> None:
    import re

    response = client.post("/v2/models/shades/infer", json=request_)
    assert response.status_code == 400
    assert re.search(words, response.json()["error"])


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff\xfe", b'{"inputs": NaN}', b"[" * 100_000, b'{"inputs": 1' + b"0" * 5000]
)
def test_what_is_no_json_is_refused(client: TestClient, body: bytes) -> None:
    response = client.post("/v2/models/shades/infer", content=body)
    assert response.status_code == 400
    assert "\n" not in response.json()["error"] and len(response.json()["error"]) <= 400


@pytest.mark.parametrize("length", ["-1", "x", "1e3", "99999", "9" * 30, "²"])
def test_wrong_length_of_the_head_is_refused(length: str) -> None:
    with pytest.raises(Refusal, match=HEAD):
        parse(b"{}", length, max_json=100)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x05",
        struct.pack("<I", 9) + b"short",
        struct.pack("<I", 1) + b"ab",
        struct.pack("<I", 0) * 3,
        b"\xff" * 9,
    ],
)
def test_strings_that_do_not_fit_their_tensor_are_refused(raw: bytes) -> None:
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"inputs": [tensor]}).encode()
    with pytest.raises(Refusal, match=r"tensor"):
        parse(head + raw, str(len(head)), max_json=1000)


def test_too_many_images_are_refused_before_any_is_made() -> None:
    tensor = {"name": "image", "datatype": "UINT8", "shape": [9, 1, 1, 3], "parameters": {"binary_data_size": 27}}
    head = json.dumps({"inputs": [tensor]}).encode()
    with pytest.raises(Refusal, match="9 images in one request are more than the 8") as refused:
        parse(head + bytes(27), str(len(head)), max_json=1000, most=8)
    assert refused.value.status == 413


def test_answers_that_are_too_large_for_json_are_refused() -> None:
    large = Tensor("classes", "UINT8", np.zeros((1, 1001, 1000), np.uint8))
    with pytest.raises(Refusal, match="ask for it with binary_data"):
        answer({}, [(large, False)])
    assert answer({}, [(large, True)])[1] is not None


def test_json_is_capped_where_binary_data_is_not() -> None:
    with pytest.raises(Refusal) as refused:
        parse(b" " * 101, None, max_json=100)
    assert refused.value.status == 413


def test_files_in_json_are_base64(client: TestClient) -> None:
    request = {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [TEXT]}]}
    told = client.post("/v2/models/shades/versions/1/infer", json=request).json()
    assert [each["name"] for each in told["outputs"]] == ["answer", "probabilities"]
    assert (told["model_name"], told["model_version"], "id" in told) == ("shades", "1", False)


@pytest.mark.parametrize("path", ["/v2/models/shades/infer", "/predict"])
def test_compressed_requests_are_refused(client: TestClient, path: str) -> None:
    response = client.post(path, params={"model": "shades"}, content=b"x", headers={"content-encoding": "gzip"})
    assert response.status_code == 415 and "compressed" in response.json()["error"]


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=5), st.text(max_size=10))
def test_binary_strings_arrive_as_they_were_sent(files: list[bytes], id: str) -> None:
    raw = Tensor("image", "BYTES", files).raw()
    parameters = {"binary_data_size": len(raw)}
    tensor = {"name": "image", "datatype": "BYTES", "shape": [len(files)], "parameters": parameters}
    head = json.dumps({"id": id, "inputs": [tensor]}).encode()
    asked = parse(head + raw, str(len(head)), max_json=10_000)
    assert (list(asked.images), asked.id) == (files, id)


@given(st.binary(max_size=60), st.sampled_from([None, "0", "1", "30", "60"]))
def test_no_bytes_make_parsing_fail_otherwise(body: bytes, length: str | None) -> None:
    with pytest.raises(Refusal):
        parse(body, length, max_json=50)


def test_binary_and_json_outputs_stand_side_by_side() -> None:
    tensors = [Tensor("a", "FP32", np.array([[1.5, 2.5]], np.float32)), Tensor("b", "BYTES", [b"x"])]
    body, length = answer({"model_name": "m"}, [(tensors[0], True), (tensors[1], False)])
    assert length is not None
    told = json.loads(body[:length])["outputs"]
    assert told[0]["parameters"] == {"binary_data_size": 8} and told[1]["data"] == ["x"]
    np.testing.assert_array_equal(np.frombuffer(body[length:], "<f4"), [1.5, 2.5])
