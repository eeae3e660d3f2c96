"""Safe by default: who may ask, how much, how fast; and what an error tells a stranger."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from evil_images import bomb_png, encoded
from serve_cases import HOST, Listening, Shades, asking, listening, photograph, plain, post, received, served
from snellen.core.errors import ConfigError
from snellen.serve.address import Access, Address, network_of
from snellen.serve.ledger import Ledger
from snellen.serve.limits import Limits
from snellen.serve.models import Served, check_name
from snellen.serve.refusal import Refusal

TOKEN = "a-token+of/its=own"
MOST = 5000  # bytes of a body, here


@pytest.fixture(scope="module")
def server() -> Iterator[Listening]:
    # The limits are so short that tests wait for them.
    with listening(max_body=MOST, head_seconds=0.3, body_seconds=0.3, per_client=10, connections=30) as found:
        yield found


@pytest.fixture(scope="module")
def guarded() -> Iterator[TestClient]:
    with asking(access=Access(TOKEN, frozenset({HOST}))) as found:
        yield found


def status(answer: bytes) -> int:
    found = re.match(rb"HTTP/1\.1 (\d+) ", answer)
    assert found, answer[:200]
    return int(found[1])


# ---- who may ask


def test_address_of_this_machine_needs_no_token_and_others_get_a_fresh_one() -> None:
    for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost", "LOCALHOST"):
        assert Address(host=host).access.token is None
        assert host.lower() in (Address(host=host).access.hosts or ())
    for host in ("0.0.0.0", "::", "192.168.1.7", "example.org", ""):
        tokens = {Address(host=host).access.token for _ in range(3)}
        assert None not in tokens and len(tokens) == 3
        assert all(len(token or "") >= 32 for token in tokens)
        assert Address(host=host, insecure=True).access == Access(None, None)
        assert Address(host=host, token=TOKEN).access.token == TOKEN


@pytest.mark.parametrize(("host", "told"), [("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("192.168.1.7", "192.168.1.7")])
def test_address_is_told_as_a_browser_of_this_machine_opens_it(host: str, told: str) -> None:
    assert Address(host=host).url(80) == f"http://{told}:80/"


@pytest.mark.parametrize(
    "token", ["short", "", "with blank", 'quote"quote', "umlaut-ä-umlaut", "line\nline-line", "semi;colon"]
)
def test_token_that_cannot_be_sent_or_is_soon_guessed_is_refused(token: str) -> None:
    with pytest.raises(ConfigError, match="a token has"):
        Address(token=token)


def test_contradictions_and_impossible_ports_are_refused() -> None:
    with pytest.raises(ConfigError, match="insecure"):
        Address(token=TOKEN, insecure=True)
    for port in (-1, 65536):
        with pytest.raises(ConfigError, match="port"):
            Address(port=port)


@pytest.mark.parametrize(
    "limits", [{"max_batch": 0}, {"queue": 8}, {"max_delay": -1.0}, {"max_body": -5}, {"max_pixels": 0}]
)
def test_limits_that_make_no_sense_are_refused(limits: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(limits))):
        Limits(**limits)


@pytest.mark.parametrize("name", ["", "a/b", "..", "a?b", "a%20b", "line\nline", "x" * 300])
def test_name_that_is_no_part_of_an_address_is_refused(name: str) -> None:
    with pytest.raises(ConfigError):
        check_name(name)


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "", "127.0.0.1.evil.example", "[::1", "testserver.evil"]
)
def test_foreign_name_of_this_machine_is_refused(guarded: TestClient, host: str) -> None:
    response = guarded.get("/health", headers={"host": host})
    assert response.status_code == 421


def test_own_names_are_answered_with_and_without_a_port() -> None:
    with asking(access=Address().access) as client:
        for host in ("localhost", "localhost:8000", "127.0.0.1:1", "[::1]:8000", "LocalHost"):
            assert client.get("/models", headers={"host": host}).status_code == 200


def test_pages_of_other_sites_are_refused_and_the_own_one_is_not(guarded: TestClient) -> None:
    bearer = {"authorization": f"Bearer {TOKEN}"}
    for origin in ("http://evil.example", "null", "http://[", f"http://{HOST}:99"):
        for site in ("same-site", "cross-site", "none"):
            asked = {**bearer, "origin": origin, "sec-fetch-site": site}
            assert guarded.get("/models", headers=asked).status_code == 403
        assert guarded.get("/models", headers={**bearer, "origin": origin}).status_code == 403
    behind_a_proxy = {**bearer, "origin": "https://eyes.example", "sec-fetch-site": "same-origin"}
    assert guarded.get("/models", headers=behind_a_proxy).status_code == 200
    assert guarded.get("/models", headers={**bearer, "origin": f"http://{HOST}"}).status_code == 200


def test_everything_that_tells_of_a_model_needs_the_token(guarded: TestClient) -> None:
    app: Any = guarded.app
    is_open = {"/", "/page/{name}", "/health", "/v2/health/live", "/v2/health/ready"}
    for route in app._app._app.routes:
        verb = min(route.methods - {"HEAD"})
        address = re.sub(r"\{\w+\}", "index.html", route.path)
        without = guarded.request(verb, address).status_code
        assert without == (200 if route.path in is_open else 401), route.path
        right = guarded.request(verb, address, headers={"authorization": f"bearer {TOKEN}"})
        assert right.status_code not in (401, 403, 421)


@pytest.mark.parametrize(
    "given", ["", "Bearer", "Bearer x", f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer \xff"]
)
def test_wrong_token_is_refused(guarded: TestClient, given: str) -> None:
    response = guarded.get("/models", headers={"authorization": given.encode("latin-1")})
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"


def test_token_in_the_address_becomes_a_cookie_that_no_page_can_read(guarded: TestClient) -> None:
    welcome = guarded.get("/", params={"token": TOKEN}, follow_redirects=False)
    assert (welcome.status_code, welcome.headers["location"]) == (303, "./")
    cookie = welcome.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and "Path=/" in cookie
    guarded.cookies.clear()
    assert guarded.get("/models", headers={"cookie": cookie.partition(";")[0]}).status_code == 200
    elsewhere = {"host": f"{HOST}:8001"}
    assert guarded.get("/models", headers={"cookie": cookie.partition(";")[0], **elsewhere}).status_code == 401
    wrong = guarded.get("/", params={"token": "wrong-token"}, follow_redirects=False)
    assert wrong.status_code == 303 and "set-cookie" not in wrong.headers
    assert guarded.get("/models", params={"token": TOKEN}).status_code == 401


# ---- how much


def test_body_is_capped_whether_or_not_it_says_its_length(server: Listening) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
    announced = head + b"Content-Length: 999999999\r\n\r\n"
    chunks = b"".join(b"400\r\n" + b"x" * 1024 + b"\r\n" for _ in range(6))
    form = b"--b\r\nContent-Disposition: form-data; name=a; filename=a\r\n\r\n" + b"x" * MOST + b"\r\n--b--\r\n"
    assert status(server.send(announced)) == 413
    assert status(server.send(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)) == 413
    assert status(server.send(post("/predict", form, "Content-Type: multipart/form-data; boundary=b"))) == 413
    assert status(server.send(post("/v2/models/shades/infer", b"x" * (MOST + 1)))) == 413
    assert status(server.send(post("/predict", plain(1)))) == 200


def test_chunked_body_within_the_cap_is_answered(server: Listening) -> None:
    body = plain(200)
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(body[i : i + 7]), body[i : i + 7]) for i in range(0, len(body), 7))
    head = b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = server.send(head + chunks + b"0\r\n\r\n")
    assert status(answer) == 200 and b'"label": "dark"' in answer


def test_bytes_of_all_requests_together_are_capped_and_given_back() -> None:
    ledger = Ledger(100)
    with ledger.request() as hold:
        hold(150)  # one alone is capped elsewhere
    with ledger.request() as one, ledger.request() as other:
        one(60)
        other(40)
        with pytest.raises(Refusal) as refused:
            other(1)
    assert (refused.value.status, refused.value.retry_after, ledger.held) == (503, 1, 0)


def test_one_request_alone_cannot_hold_more_than_there_is() -> None:
    ledger = Ledger(100)
    with ledger.request() as hold, pytest.raises(Refusal, match="memory"):
        for _ in range(3):  # the images of one request
            hold(60)
    assert ledger.held == 0


def test_images_of_an_endless_side_are_refused_from_their_header() -> None:
    thin = encoded(Image.new("1", (1_000_000, 1)), "PNG")
    with asking(served(shades=Shades())) as client:
        answer = client.post("/predict", content=thin)
        assert (answer.status_code, "no side may have more than 32768" in answer.json()["error"]) == (422, True)


def test_answer_that_nobody_fetches_ends_the_connection() -> None:
    with listening(served(shades=Shades()), body_seconds=1.0) as server:
        with server.connected() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.settimeout(1)
            with contextlib.suppress(OSError):
                client.sendall(b"GET /page/app.js HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 3000)  # and nothing is read
            still_open = server.server.server_state.connections
            deadline = time.monotonic() + 20
            while still_open and time.monotonic() < deadline:
                time.sleep(0.05)
            assert not still_open


def test_pixels_that_wait_for_the_model_are_capped() -> None:
    model = Shades(gate=threading.Event())
    assert model.gate is not None
    model.gate.set()
    file = plain(200, width=100, height=100)  # 300 bytes, and 30,000 of pixels
    with listening(served(shades=model), max_batch=1, max_held=50_000) as server:
        model.gate.clear()
        model.reached.clear()
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(server.send, post("/predict", file))
            assert model.reached.wait(20)
            assert status(server.send(post("/predict", plain(1, width=200, height=100)))) == 503
            model.gate.set()
            assert status(first.result()) == 200
        assert status(server.send(post("/predict", file))) == 200


def test_bomb_is_refused_from_its_header() -> None:
    with asking(max_pixels=1000) as client:
        for file, claimed in ((bomb_png(), "20000 x 20000"), (photograph("PNG", 50, 40), "50 x 40")):
            response = client.post("/predict", content=file)
            assert response.status_code == 422
            assert claimed in response.json()["error"]
        assert client.post("/predict", content=photograph()).status_code == 200


def test_too_many_images_in_a_request_are_refused() -> None:
    one = {"name": "image", "datatype": "UINT8", "shape": [20, 1, 1, 3], "data": [0] * 60}
    with asking(queue=19, max_batch=4) as client:
        response = client.post("/v2/models/shades/infer", json={"inputs": [one]})
    assert response.status_code == 413 and "20 images" in response.json()["error"]


def test_full_queue_and_greedy_client_are_told_when_to_come_back() -> None:
    model = Shades(gate=threading.Event())
    assert model.gate is not None
    model.gate.set()
    models = {"shades": Served(model, {}, lambda *asked: pytest.fail("its image never arrives"))}
    with listening(models, max_batch=1, queue=2, per_client=3) as server:
        model.gate.clear()
        with ThreadPoolExecutor(2) as pool:
            waiting = [pool.submit(server.send, post("/predict", plain(red))) for red in (1, 2)]
            _until(lambda: b'snellen_queue_images{model="shades"} 2.0' in server.send(_get("/metrics")))
            refused = server.send(post("/predict", plain(3)))
            with server.connected() as slow:  # a third request of this address: its body is on its way
                slow.sendall(post("/explain", b"x" * 100)[:-50])
                _until(lambda: status(server.send(post("/explain", plain(4)))) == 429)
            model.gate.set()
            assert [status(future.result()) for future in waiting] == [200, 200]
        assert status(refused) == 503 and b"retry-after: 1" in refused


def _get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()


def _until(condition: Any) -> None:
    """As often as it takes; the suite's own time limit ends it."""
    pause = threading.Event()
    while not condition():
        pause.wait(0.005)


def test_request_whose_client_went_away_never_reaches_the_model() -> None:
    model = Shades(gate=threading.Event())
    assert model.gate is not None
    model.gate.set()
    with listening(served(shades=model), max_batch=1) as server:
        model.gate.clear()
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(server.send, post("/predict", plain(50)))
            _until(lambda: b'images{model="shades"} 1.0' in server.send(_get("/metrics")))
            with server.connected() as gone:
                gone.sendall(post("/predict", plain(77)))
                _until(lambda: b'images{model="shades"} 2.0' in server.send(_get("/metrics")))
            _until(lambda: b'images{model="shades"} 1.0' in server.send(_get("/metrics")))
            model.gate.set()
            assert status(first.result()) == 200
        assert status(server.send(post("/predict", plain(88)))) == 200
    assert 77 not in model.asked and {50, 88} <= set(model.asked)


# ---- how fast


@pytest.mark.parametrize(
    "start",
    [b"", b"GET /health HT", b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: 1\r\n"],
    ids=["nothing", "half a line", "half a head"],
)
def test_connection_that_sends_no_whole_head_is_cut_off(server: Listening, start: bytes) -> None:
    with server.connected() as connection:
        connection.sendall(start)
        assert received(connection) == b""


def test_body_that_does_not_arrive_in_time_is_told_so(server: Listening) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: 100\r\n\r\n"
    assert status(server.send(head + b"x")) == 408


def test_slow_clients_do_not_hold_up_others(server: Listening) -> None:
    slow = [server.connected() for _ in range(10)]
    for connection in slow:
        connection.sendall(b"POST /predict HTTP/1.1\r\nContent-Le")
    assert status(server.send(post("/predict", plain(1)))) == 200
    for connection in slow:
        connection.close()


def test_more_connections_than_allowed_are_closed_at_once(server: Listening) -> None:
    with contextlib.ExitStack() as open_:
        for _ in range(20):
            open_.enter_context(server.connected("127.0.0.2"))
        with server.connected("127.0.0.2") as one_more:
            assert received(one_more) == b""
        assert status(server.send(_get("/health"))) == 200  # from another address
        for _ in range(10):
            open_.enter_context(server.connected("127.0.0.3"))
        with server.connected("127.0.0.4") as one_more:  # of all addresses together
            assert received(one_more) == b""
    _until(lambda: not server.server.server_state.connections)
    with server.connected("127.0.0.2") as again:
        again.sendall(_get("/health"))
        assert status(received(again)) == 200


def test_clients_are_told_apart_by_their_network() -> None:
    assert network_of("192.0.2.1") != network_of("192.0.2.2")
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:0:0:1") != network_of("2001:db8:0:1::1")
    assert network_of("::ffff:192.0.2.1") == network_of("192.0.2.1")
    assert network_of("fe80::1%eth0") == network_of("fe80::2%eth0")
    assert network_of("testclient") == "testclient"


def test_head_that_is_too_long_is_refused(server: Listening) -> None:
    assert status(server.send(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"x" * 20_000)) == 400


# ---- what an error tells


def test_failure_of_a_model_tells_nothing_of_the_server(caplog: pytest.LogCaptureFixture) -> None:
    with asking(served(shades=Shades(broken=(13,)))) as client:
        response = client.post("/predict", content=plain(13))
        assert client.post("/predict", content=plain(14)).status_code == 200
    assert response.status_code == 500
    assert "secret" not in response.text and "Traceback" not in response.text
    assert "secret/model.py" in caplog.text  # whoever runs the server is told


def test_answer_that_json_cannot_tell_is_an_error_not_a_nan() -> None:
    class Lost(Shades):
        def decide(self, seen: Any) -> Any:
            targets = super().decide(seen)
            for target in targets:
                target.values[:] = float("nan")
            return targets

    request = {"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [0] * 3}]}
    with asking(served(lost=Lost("regression"))) as client:
        for response in (client.post("/predict", content=plain(1)), client.post("/v2/models/lost/infer", json=request)):
            assert response.status_code == 500
            assert "not finite" in json.loads(response.text)["error"]


def test_log_has_a_line_a_request_without_queries_and_control_characters(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="snellen.serve")
    with asking() as client:
        client.get("/no%0Awhere%1b[31m", params={"token": "hush-hush"})
    lines = [record.getMessage() for record in caplog.records]
    assert any(re.fullmatch(r"testclient GET /no\\nwhere\\x1b\[31m 404 \d+ ms", line) for line in lines)
    assert "hush" not in caplog.text
