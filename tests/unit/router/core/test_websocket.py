"""The opening handshake: the client's side and the replica's."""

from __future__ import annotations

import pytest

from router.core.errors import ProtocolError, Refusal
from router.core.framing import parse_request, parse_response
from router.core.websocket import accept_of, check_answer, is_asked, read_handshake

# RFC 6455 section 1.3
KEY, ACCEPT = b"dGhlIHNhbXBsZSBub25jZQ==", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
GOOD = {
    "upgrade": b"websocket",
    "connection": b"Upgrade",
    "sec-websocket-version": b"13",
    "sec-websocket-key": KEY,
}


def handshake(line: bytes = b"GET /models/m/ws HTTP/1.1", **changed: bytes | None) -> bytes | Refusal:
    fields = {"host": b"h", **GOOD, **{name.replace("_", "-"): value for name, value in changed.items()}}
    lines = [line, *(name.encode() + b": " + value for name, value in fields.items() if value is not None), b""]
    return read_handshake(parse_request(b"\r\n".join(lines), 100))


class TestTheClientsSide:
    def test_gives_what_the_replica_must_answer(self) -> None:
        assert handshake() == ACCEPT == accept_of(KEY)

    @pytest.mark.parametrize("connection", [b"upgrade", b"keep-alive, Upgrade", b"UPGRADE"])
    @pytest.mark.parametrize("upgrade", [b"websocket", b"WebSocket"])
    def test_compares_tokens_without_case(self, connection: bytes, upgrade: bytes) -> None:
        assert handshake(connection=connection, upgrade=upgrade) == ACCEPT

    @pytest.mark.parametrize(
        ("changed", "status"),
        [
            ({"line": b"POST /models/m/ws HTTP/1.1"}, 400),
            ({"line": b"GET /models/m/ws HTTP/1.0"}, 400),
            ({"connection": None}, 400),
            ({"connection": b"keep-alive"}, 400),
            ({"upgrade": b"websocket, h2c"}, 400),
            ({"content_length": b"5"}, 400),
            ({"transfer_encoding": b"chunked"}, 400),
            ({"sec_websocket_version": None}, 426),
            ({"sec_websocket_version": b"8"}, 426),
            ({"sec_websocket_version": b"13, 8"}, 426),
            ({"sec_websocket_version": b"013"}, 426),
            ({"sec_websocket_key": None}, 400),
            ({"sec_websocket_key": b""}, 400),
            ({"sec_websocket_key": KEY + b", " + KEY}, 400),
            ({"sec_websocket_key": b"dGhlIHNhbXBsZSBub25j"}, 400),
            ({"sec_websocket_key": b"dGhlIHNhbXBsZSBub25jZSEh"}, 400),
            ({"sec_websocket_key": b"dGhlIHNhbXBsZSBub25jZ!=="}, 400),
        ],
    )
    def test_refuses_whatever_is_not_beyond_doubt(self, changed: dict[str, bytes], status: int) -> None:
        refusal = handshake(**changed)

        assert isinstance(refusal, Refusal)
        assert refusal.status == status

    def test_is_none_of_other_upgrades(self) -> None:
        head = parse_request(b"GET / HTTP/1.1\r\nhost: h\r\nupgrade: h2c\r\nconnection: upgrade\r\n", 100)

        assert not is_asked(head)


class TestTheReplicasSide:
    @pytest.mark.parametrize(
        ("lines", "is_good"),
        [
            (b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + ACCEPT, True),
            (b"upgrade: WebSocket\r\nconnection: keep-alive, upgrade\r\nsec-websocket-accept:" + ACCEPT, True),
            (b"Upgrade: websocket\r\nConnection: Upgrade", False),
            (b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + KEY, False),
            (b"Upgrade: websocket\r\nConnection: Upgrade" + (b"\r\nSec-WebSocket-Accept: " + ACCEPT) * 2, False),
            (b"Connection: Upgrade\r\nSec-WebSocket-Accept: " + ACCEPT, False),
            (b"Upgrade: h2c\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + ACCEPT, False),
            (b"Upgrade: websocket\r\nSec-WebSocket-Accept: " + ACCEPT, False),
        ],
    )
    def test_must_answer_this_handshake(self, lines: bytes, is_good: bool) -> None:
        head = parse_response(b"HTTP/1.1 101 Switching Protocols\r\n" + lines + b"\r\n", is_head=False)

        if is_good:
            check_answer(head, ACCEPT)
        else:
            with pytest.raises(ProtocolError):
                check_answer(head, ACCEPT)
