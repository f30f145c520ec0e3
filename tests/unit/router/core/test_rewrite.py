"""The bytes that each side is sent."""

from __future__ import annotations

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
        assert b"content-length: 5\r\n\r\n" in rewrite.request_suffix(b"id", b"trace", 10, 5, b"POST")
        assert b"content-length: 0\r\n\r\n" in rewrite.request_suffix(b"id", b"trace", 10, 0, b"POST")
        assert rewrite.request_suffix(b"id", b"t", 10, -1, b"POST").endswith(b"transfer-encoding: chunked\r\n\r\n")
        assert b"content-length" not in rewrite.request_suffix(b"id", b"trace", 10, 0, b"GET")


class TestResponse:
    def test_keeps_the_replicas_fields_but_not_its_connection(self) -> None:
        head = parse_response(b"HTTP/1.0 418 Tea\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nKeep-Alive: 1\r\n", False)

        assert rewrite.response_prefix(head) == b"HTTP/1.1 418 Tea\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n"

    def test_of_a_refusal_says_when_to_come_back(self) -> None:
        answer = rewrite.refusal_response(overloaded("m", "1", 5), "id", is_head=False, connection=b"")

        assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert b"\r\nretry-after: 1\r\n" in answer

    def test_of_a_refused_head_request_has_a_length_and_no_body(self) -> None:
        answer = rewrite.refusal_response(overloaded("m", "1", 5), "id", is_head=True, connection=b"")

        assert answer.endswith(b"\r\n\r\n")
        assert b"content-length: 0" not in answer
