"""The guards of conftest.py do guard."""

from __future__ import annotations

import os
import socket

import pytest
from hypothesis import settings


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "example.invalid"])
def test_reaching_for_another_machine_fails_whatever_the_code_would_catch(host: str) -> None:
    with pytest.raises(pytest.fail.Exception, match="reached for the network"):
        try:
            socket.create_connection((host, 80), timeout=0.1)
        except Exception:  # code that shrugs off a missing network must not hide that it asked
            pass


def test_connect_ex_is_guarded_too() -> None:
    with socket.socket() as sock, pytest.raises(pytest.fail.Exception, match="reached for the network"):
        sock.settimeout(0.1)
        sock.connect_ex(("192.0.2.1", 80))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_this_machine_can_be_reached(host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection((host, port), timeout=5) as client, server.accept()[0] as accepted:
            client.sendall(b"seen")
            assert accepted.recv(4) == b"seen"


def test_each_worker_computes_on_one_thread() -> None:
    assert os.environ["OMP_NUM_THREADS"] == "1"


def test_hypothesis_draws_the_same_examples_each_time() -> None:
    assert settings().derandomize
    assert settings().deadline is None
