"""The open-loop generator against a server of this test's own."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from benchmarks.gateway.openloop import Generator, Result, summary

TAIL = b"ok"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n" + TAIL
REQUEST = b"GET / HTTP/1.1\r\nhost: h\r\n\r\n"


class Server:
    """Serves one connection after the other; `stall_s` before the first answer."""

    def __init__(self, answer: bytes, stall_s: float = 0.0) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._answer = answer
        self._stall_s = stall_s
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with self._listener.accept()[0] as sock:
            time.sleep(self._stall_s)
            while sock.recv(65_536):
                for piece in (self._answer[:-1], self._answer[-1:]):
                    sock.sendall(piece)

    def close(self) -> None:
        self._thread.join()
        self._listener.close()


@pytest.fixture
def stalled() -> Iterator[Server]:
    server = Server(OK, stall_s=0.2)
    yield server
    server.close()


@pytest.fixture
def failing() -> Iterator[Server]:
    server = Server(OK.replace(b"200", b"503"))
    yield server
    server.close()


def run(port: int, arrivals: list[float]) -> Result:
    generator = Generator(port, REQUEST, TAIL, connections=1)
    result = generator.run(arrivals)
    generator.close()
    return result


class TestGenerator:
    def test_counts_a_stall_against_every_request_that_was_due_in_it(self, stalled: Server) -> None:
        """No coordinated omission: the second waited for the connection, and its latency says so."""
        result = run(stalled.port, [0.0, 0.05, 0.1])

        assert len(result.latencies_s) == 3
        assert result.failed == 0
        assert all(latency >= least for latency, least in zip(result.latencies_s, (0.19, 0.14, 0.09), strict=True))

    def test_says_how_late_requests_left(self, stalled: Server) -> None:
        result = run(stalled.port, [0.0, 0.05])

        assert result.lateness_s[0] < 0.05
        assert result.lateness_s[1] >= 0.14

    def test_counts_answers_other_than_200_as_failed(self, failing: Server) -> None:
        result = run(failing.port, [0.0, 0.001])

        assert result.failed == 2


def test_summary_is_in_milliseconds() -> None:
    result = Result([0.001, 0.002, 0.003], [0.0, 0.0, 0.001], failed=1)

    assert summary(result) == {
        "answered": 3,
        "failed": 1,
        "p50_ms": 2.0,
        "p99_ms": 3.0,
        "late_p50_ms": 0.0,
        "late_p99_ms": 1.0,
    }
