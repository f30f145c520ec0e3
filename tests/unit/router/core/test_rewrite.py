"""The bytes that each side is sent."""

from __future__ import annotations

import pytest

from router.core import rewrite
from router.core.errors import overloaded
from router.core.framing import parse_request, parse_response


def prefix(*lines: bytes) -> bytes:
    head = parse_request(b"\r\n".join((b"POST /a?b=%20c HTTP/1.1", b"Host: h", *lines, b"")), 100)
    return rewrite.request_prefix(head, b"/new", b"10.0.0.9", b"http")


class TestRequest:
    def test_is_rebuilt_with_the_replicas_path_and_the_clients_query(self) -> None:
        assert prefix(b"A: b", b"Connection: close") == (
            b"POST /new?b=%20c HTTP/1.1\r\nhost: h\r\nA: b\r\nx-forwarded-for: 10.0.0.9\r\nx-forwarded-proto: http\r\n"
        )

    def test_adds_the_peer_behind_addresses_that_others_wrote(self) -> None:
        assert b"\r\nx-forwarded-for: 6.6.6.6, 7.7.7.7, 10.0.0.9\r\n" in prefix(
            b"X-Forwarded-For: 6.6.6.6", b"X-Forwarded-For: 7.7.7.7"
        )

    def test_replaces_a_spoofed_scheme(self) -> None:
        assert b"https" not in prefix(b"X-Forwarded-Proto: https")

    def test_has_one_framing(self) -> None:
        def request(length: int, method: bytes = b"POST") -> bytes:
            return rewrite.request(b"", b"id", b"trace", 10, length, method, b"body")

        assert request(4).endswith(b"content-length: 4\r\n\r\nbody")
        assert b"content-length: 0\r\n\r\n" in request(0)
        assert request(-1).endswith(b"transfer-encoding: chunked\r\n\r\nbody")
        assert b"content-length" not in request(0, b"GET")


class TestResponse:
    def test_keeps_the_replicas_fields_but_not_its_connection(self) -> None:
        head = parse_response(b"HTTP/1.0 418 Tea\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nKeep-Alive: 1\r\n", False)

        assert rewrite.response_prefix(head) == b"HTTP/1.1 418 Tea\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n"

    @pytest.mark.parametrize(
        ("seconds", "shown"),
        [
            (0.0, b"0.00"),
            (0.000_004, b"0.00"),
            (0.000_016, b"0.02"),
            (0.012_34, b"12.34"),
            (0.019_999, b"20.00"),
            (0.02, b"20.00"),
            (61.5, b"61500.00"),
        ],
    )
    def test_shows_times_in_milliseconds(self, seconds: float, shown: bytes) -> None:
        answer = rewrite.response(b"HTTP/1.1 200 OK\r\n", b"id", b"2", seconds, 0.001, b"", b"", b"body")

        assert answer == (
            b"HTTP/1.1 200 OK\r\nx-request-id: id\r\nx-model-version: 2\r\n"
            b"server-timing: queue;dur=%b, model;dur=1.00\r\n\r\nbody" % shown
        )

    def test_of_a_refusal_says_when_to_come_back(self) -> None:
        answer = rewrite.refusal_response(overloaded("m", "1", 5), "id", is_head=False, connection=b"")

        assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert b"\r\nretry-after: 1\r\n" in answer

    def test_of_a_refused_head_request_has_a_length_and_no_body(self) -> None:
        answer = rewrite.refusal_response(overloaded("m", "1", 5), "id", is_head=True, connection=b"")

        assert answer.endswith(b"\r\n\r\n")
        assert b"content-length: 0" not in answer
