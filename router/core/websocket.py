"""The opening handshake of a WebSocket (RFC 6455 section 4): what a client must ask, and what a replica must answer.

Pure. What is exchanged afterwards is passed on unread, so both heads have to be beyond doubt: a peer that takes a
refused upgrade for a tunnel would read one side's bytes as the other's requests.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Final

from router.core.errors import Refusal, bad_request, malformed
from router.core.framing import RequestHead, ResponseHead

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_VERSION: Final = b"13"
# Base64 of the 16 bytes of a key is always as long.
_KEY_LENGTH: Final = 24


def is_asked(head: RequestHead) -> bool:
    return b"websocket" in _tokens(head.read.get(b"upgrade", b""))


def read_handshake(head: RequestHead) -> bytes | Refusal:
    """What a replica that agrees must answer as `sec-websocket-accept`, or why there is no handshake."""
    read = head.read
    if head.method != b"GET" or head.minor == 0:
        return bad_request("upgrade to websocket: it begins with GET over HTTP/1.1; correct the client")
    if head.chunked or head.content_length:
        return bad_request("upgrade to websocket: its request has no body; correct the client")
    if read[b"upgrade"].lower() != b"websocket" or b"upgrade" not in _tokens(read.get(b"connection", b"")):
        return bad_request(
            "upgrade to websocket: `upgrade: websocket` and `connection: upgrade` are one each; send both"
        )
    if read.get(b"sec-websocket-version") != _VERSION:
        return Refusal(426, "NOT_SUPPORTED", "upgrade to websocket: version 13 is spoken here; use it")
    key = read.get(b"sec-websocket-key", b"")
    if not _is_key(key):
        return bad_request(
            "upgrade to websocket: sec-websocket-key is not one base64 value of 16 bytes; correct the client"
        )
    return accept_of(key)


def accept_of(key: bytes) -> bytes:
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


def check_answer(head: ResponseHead, accept: bytes) -> None:
    """Raises `ProtocolError` for a 101 that does not answer the handshake."""
    found = [line.partition(b": ")[2] for line in head.fields if line[:21].lower() == b"sec-websocket-accept:"]
    if found != [accept]:
        raise malformed("its sec-websocket-accept does not answer the handshake")
    if head.upgrade.lower() != b"websocket":
        raise malformed("it switched to another protocol than websocket")


def _is_key(key: bytes) -> bool:
    if len(key) != _KEY_LENGTH:
        return False
    try:
        return len(base64.b64decode(key, validate=True)) == 16
    except binascii.Error:
        return False


def _tokens(value: bytes) -> list[bytes]:
    return [token.strip(b" \t").lower() for token in value.split(b",")]
