"""The request of HTTP/1.1 that a call of gRPC becomes: its metadata are header fields, its method is a path.

It is parsed as if it had come so, by the same rules: what could not be a request over HTTP is none here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from router.core import errors, oip
from router.core.errors import ProtocolError
from router.core.hpack import Field
from router.core.oip import Asked
from router.proto.request import Request, prepare

if TYPE_CHECKING:
    from router.proto.stream import RpcStream
    from router.server import Gateway

_REMEMBERED: Final = 1_024
_PLAIN: Final = re.compile(rb"[A-Za-z0-9\-._~]*")


class Heads:
    """The requests of HTTP/1.1 that calls become, remembered: a client mostly repeats what it says of itself."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._known: dict[tuple[object, ...], Request] = {}

    def request(self, stream: RpcStream, verb: bytes, asked: Asked, tail: bytes) -> Request:
        """Raises `ProtocolError` for metadata that cannot be passed on."""
        connection, metadata = stream.connection, stream.head.metadata
        key = verb, tail, asked.model, asked.version, metadata, connection.peer, connection.scheme
        request = self._known.get(key)
        if request is None or request.keys_revision != self._gateway.keyring.revision:
            raw = _head(verb, asked, tail, metadata)
            if len(raw) > self._gateway.config.limits.head_bytes:
                raise ProtocolError(
                    errors.too_large(431, "the metadata are too long", self._gateway.config.limits.head_bytes)
                )
            request = prepare(
                raw, self._gateway.config.limits, connection.peer, connection.scheme, self._gateway.keyring
            )
            if not request.request_id and not request.traceparent:  # those are never repeated
                self._remember(key, request)
        return request

    def _remember(self, key: tuple[object, ...], request: Request) -> None:
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[key] = request


def _head(verb: bytes, asked: Asked, tail: bytes, metadata: tuple[Field, ...]) -> bytes:
    version = b"/versions/" + _segment(asked.version) if asked.version else b""
    path = b"/v2/models/" + _segment(asked.model) + version + tail
    lines = [b"%b %b HTTP/1.1" % (verb, path), b"host: modelfleet"]
    if verb == b"POST":
        lines.append(b"content-type: " + oip.MESSAGE)
    lines += [b"%b: %b" % field for field in metadata]
    return b"\r\n".join((*lines, b""))


def _segment(name: str) -> bytes:
    """A name in a path. One that has to be escaped is no model's, and the refusal shows it so."""
    raw = name.encode()
    return raw if _PLAIN.fullmatch(raw) else quote(raw, safe="").encode()
