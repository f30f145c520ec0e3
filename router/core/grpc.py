"""gRPC on top of HTTP/2: what a request's head says, where messages begin and end, and how an answer ends.

Pure. https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from router.core import errors
from router.core.errors import ProtocolError, Refusal, malformed
from router.core.hpack import Field, literal

PREFIX_BYTES: Final = 5  # of a message: whether it is compressed, and its length
_TIMEOUT: Final = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNIT_S: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_LONGEST_S: Final = 1e6  # up to 11 days, as over HTTP

_PSEUDO: Final = frozenset((b":method", b":scheme", b":path", b":authority"))
# RFC 9113 section 8.2.2: they mean a connection of HTTP/1.1.
_CONNECTION: Final = frozenset((b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"))
# They speak of the bytes of this hop, or would mean another body to whoever reads them behind the gateway.
_OWN: Final = frozenset(
    b"te content-type content-length content-encoding accept-encoding host expect trailer range "
    b"inference-header-content-length".split()
)

# The beginning of every answer: status 200, and what the gateway takes.
ANSWER: Final = b"".join(
    (b"\x88", literal(b"content-type", b"application/grpc"), literal(b"grpc-accept-encoding", b"identity"))
)
_NOT_PLAIN: Final = re.compile(rb"[^\x20-\x24\x26-\x7e]")


class Malformed(Exception):  # noqa: N818 - RFC 9113's word
    """No request that HTTP/2 allows (section 8.1.1): its stream is reset."""


class Head(NamedTuple):
    """`metadata` is what goes on to the replica. `timeout_s`: 0 when none was given. `refusal`: it is HTTP/2, but
    nothing that this port serves."""

    path: bytes
    timeout_s: float
    metadata: tuple[Field, ...]
    refusal: Refusal | None = None


def read_head(fields: list[Field]) -> Head:
    """Raises `Malformed`."""
    pseudo: dict[bytes, bytes] = {}
    own: dict[bytes, bytes] = {}
    metadata: list[Field] = []
    for field in fields:
        name, value = field
        if name[0] == 58:  # a colon
            if name in pseudo or name not in _PSEUDO or own or metadata:
                raise Malformed(f"the field {name[:40].decode('latin-1')!r} is unknown, double or late")
            pseudo[name] = value
        elif name in _OWN or name.startswith(b"grpc-"):
            own[name] = value
        elif name in _CONNECTION:
            raise Malformed(f"the field {name.decode()!r} is HTTP/1.1's")
        elif not name.endswith(b"-bin"):
            metadata.append(field)
    if len(pseudo) < len(_PSEUDO) and not {b":method", b":scheme", b":path"} <= pseudo.keys():
        raise Malformed("the method, scheme or path is missing")
    timeout = own.get(b"grpc-timeout")
    timeout_s = read_timeout(timeout) if timeout is not None else 0.0
    return Head(pseudo[b":path"], timeout_s, tuple(metadata), _stop(pseudo, own, timeout_s))


def read_timeout(value: bytes) -> float:
    """-1: it is none."""
    match = _TIMEOUT.fullmatch(value)
    return min(int(match.group(1)) * _UNIT_S[match.group(2)], _LONGEST_S) if match else -1.0


def _stop(pseudo: dict[bytes, bytes], own: dict[bytes, bytes], timeout_s: float) -> Refusal | None:
    if pseudo[b":method"] != b"POST" or not own.get(b"content-type", b"").startswith(b"application/grpc"):
        return Refusal(415, "NOT_SUPPORTED", "this port speaks gRPC; HTTP requests go to the gateway's other port")
    if timeout_s < 0:
        return errors.bad_request("grpc-timeout: it is not a number of at most 8 digits and its unit; correct it")
    encoding = own.get(b"grpc-encoding", b"identity")
    return None if encoding == b"identity" else compressed()


def compressed() -> Refusal:
    return Refusal(501, "NOT_SUPPORTED", "the message is compressed; messages are read uncompressed; send identity")


class MessageReader:
    """Cuts messages out of what comes on one stream. What is not cut yet waits in it, up to `most_bytes`."""

    __slots__ = ("_held", "_most_bytes")

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._held = bytearray()

    @property
    def size(self) -> int:
        return len(self._held)

    @property
    def wanted_bytes(self) -> int:
        """How long what waits will be with the message that it begins, as far as that is known."""
        return PREFIX_BYTES + int.from_bytes(self._held[1:5], "big") if len(self._held) >= PREFIX_BYTES else 0

    def feed(self, data: bytes) -> None:
        """Raises `ProtocolError` as soon as the next message is known to be no good."""
        self._held += data
        self._check()

    def next(self) -> bytearray | None:
        """The next message, if it is whole. Raises `ProtocolError` for the one after it."""
        held = self._held
        if len(held) < PREFIX_BYTES or len(held) < (end := self.wanted_bytes):
            return None
        if len(held) == end:
            self._held = bytearray()
            del held[:PREFIX_BYTES]
            return held
        message = held[PREFIX_BYTES:end]
        del held[:end]
        self._check()
        return message

    def _check(self) -> None:
        if len(self._held) < PREFIX_BYTES:
            return
        if self._held[0]:
            raise ProtocolError(compressed())
        length = self.wanted_bytes - PREFIX_BYTES
        if length > self._most_bytes:
            raise ProtocolError(errors.too_large(413, f"a message of {length} bytes", self._most_bytes))


def cut_off() -> ProtocolError:
    return malformed("the stream ends inside a message, or without one; send it whole")


def prefix(length: int) -> bytes:
    return b"\x00" + length.to_bytes(4, "big")


def trailers(status: int, sentence: str = "", fields: Iterable[Field] = ()) -> bytes:
    """The header block that ends an answer."""
    block = literal(b"grpc-status", b"%d" % status)
    if sentence:
        block += literal(b"grpc-message", _NOT_PLAIN.sub(_escaped, sentence.encode()))
    return block + b"".join(literal(name, value) for name, value in fields)


def _escaped(match: re.Match[bytes]) -> bytes:
    return b"%%%02X" % match.group()[0]
